//! xDS resources from an arbitrary control plane: accepted or rejected by the bundled proxy.

#![no_main]

use libfuzzer_sys::fuzz_target;
use topsail::xds::resource::{Resource, ResourceType};

fuzz_target!(|input: (u8, &[u8])| {
    let (number, bytes) = input;
    let kind = ResourceType::ALL[usize::from(number) % ResourceType::ALL.len()];
    let resource = Resource::new(kind, "name".into(), bytes.to_vec(), [].into());
    if let Err(why) = topsail::proxy::takes(&resource) {
        assert!(!why.is_empty());
    }
});
