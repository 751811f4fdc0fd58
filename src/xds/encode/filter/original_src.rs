//! `envoy.filters.listener.original_src`: keeps the client's address towards the application.

use crate::xds::pb::listener_filter::original_src::OriginalSrc;

pub(super) const NAME: &str = "envoy.filters.listener.original_src";

/// With the packet mark by which interception lets the connection pass.
pub(super) fn config(mark: u32) -> OriginalSrc {
    OriginalSrc {
        mark,
        ..Default::default()
    }
}
