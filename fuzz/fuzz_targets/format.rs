//! A format string of access logs and headers: refused with a reason, or written for a stream of which nothing is known.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(why) = topsail::proxy::fuzz::format(text) {
        assert!(!why.is_empty());
    }
});
