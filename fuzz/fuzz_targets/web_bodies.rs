//! The base64 encoding of gRPC-Web bodies, split at arbitrary points.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|pieces: Vec<Vec<u8>>| topsail::proxy::fuzz::web_body(&pieces));
