//! The bundled proxy's bootstrap parser.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(why) = topsail::proxy::fuzz::bootstrap(text) {
        assert!(!why.is_empty());
    }
});
