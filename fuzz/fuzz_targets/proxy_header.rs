//! PROXY protocol headers: however the input is split, no byte after the header is lost.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, Vec<Vec<u8>>)| topsail::proxy::fuzz::proxy_header(input.0, &input.1));
