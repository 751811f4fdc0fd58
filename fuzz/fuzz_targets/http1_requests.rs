//! What a client says to the bundled proxy by HTTP/1.1, however it is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|pieces: Vec<Vec<u8>>| topsail::proxy::fuzz::requests(&pieces));
