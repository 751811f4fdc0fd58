//! `envoy.filters.listener.original_src`: keeps the client's source address on upstream
//! connections.

use crate::xds::pb::listener_filter::original_src::OriginalSrc;

pub(super) const NAME: &str = "envoy.filters.listener.original_src";

/// Configuration with the mark that exempts the connection from interception.
pub(super) fn config(mark: u32) -> OriginalSrc {
    OriginalSrc {
        mark,
        ..Default::default()
    }
}
