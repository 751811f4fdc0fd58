//! The first bytes of a connection to the bundled proxy, before a filter chain is chosen: however they are cut,
//! nothing of them is lost.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|pieces: Vec<Vec<u8>>| topsail::proxy::fuzz::first_bytes(&pieces));
