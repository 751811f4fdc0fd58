//! HTTP/2 frames from a client or a host after SETTINGS, split at arbitrary points.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|said: (bool, Vec<Vec<u8>>)| topsail::proxy::fuzz::frames(said.0, &said.1));
