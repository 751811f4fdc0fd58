//! The base64 in which browsers send gRPC, however it is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|pieces: Vec<Vec<u8>>| topsail::proxy::fuzz::web_body(&pieces));
