//! Header blocks of HTTP/2, from a client or a host, and what the bundled proxy makes of them for the next.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, Vec<Vec<u8>>)| topsail::proxy::fuzz::hpack(input.0, &input.1));
