//! Request headers as used by the bundled proxy.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|headers: Vec<(&str, &[u8])>| topsail::proxy::fuzz::request(&headers));
