//! What a host says to the bundled proxy by HTTP/1.1, however it is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<Vec<u8>>)| topsail::proxy::fuzz::answers(input.0, &input.1));
