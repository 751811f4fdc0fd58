//! A peer certificate, as parsed by the bundled proxy.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|der: &[u8]| topsail::proxy::fuzz::certificate(der));
