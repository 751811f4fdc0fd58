//! Listener filters' inspection of a connection's first bytes: however the input is split, no byte is lost.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|pieces: Vec<Vec<u8>>| topsail::proxy::fuzz::first_bytes(&pieces));
