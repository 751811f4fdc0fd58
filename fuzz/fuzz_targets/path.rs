//! Path normalisation of the bundled proxy.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &str)| topsail::proxy::fuzz::path(input.0, input.1));
