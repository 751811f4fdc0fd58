//! Format strings of access logs and headers: parsed or rejected, and evaluated for arbitrary paths and
//! headers.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, Vec<(&str, &[u8])>)| {
    let (text, path, headers) = input;
    if let Err(why) = topsail::proxy::fuzz::format(text, path, &headers) {
        assert!(!why.is_empty());
    }
});
