//! HTTP/1.1 requests from a client, split at arbitrary points.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|pieces: Vec<Vec<u8>>| topsail::proxy::fuzz::requests(&pieces));
