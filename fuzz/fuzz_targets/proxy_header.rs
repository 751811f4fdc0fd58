//! A header of the PROXY protocol before a connection to the bundled proxy: however it is cut, nothing of what follows
//! is lost.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, Vec<Vec<u8>>)| topsail::proxy::fuzz::proxy_header(input.0, &input.1));
