//! HTTP/1.1 responses from a host, split at arbitrary points.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<Vec<u8>>)| topsail::proxy::fuzz::answers(input.0, &input.1));
