//! HPACK header blocks, and their conversion for the next hop.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, Vec<Vec<u8>>)| topsail::proxy::fuzz::hpack(input.0, &input.1));
