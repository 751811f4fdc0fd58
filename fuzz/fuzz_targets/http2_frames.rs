//! What a client or a host says to the bundled proxy by HTTP/2 after its settings, however it is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|said: (bool, Vec<Vec<u8>>)| topsail::proxy::fuzz::frames(said.0, &said.1));
