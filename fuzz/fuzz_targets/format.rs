//! A format string of access logs and headers: refused with a reason, or written for a request with any path and headers.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, Vec<(&str, &[u8])>)| {
    let (text, path, headers) = input;
    if let Err(why) = topsail::proxy::fuzz::format(text, path, &headers) {
        assert!(!why.is_empty());
    }
});
