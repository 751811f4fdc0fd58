//! `envoy.filters.listener.original_dst`: restores the destination address before iptables
//! redirection.

use crate::xds::pb::listener_filter::original_dst::OriginalDst;

pub(super) const NAME: &str = "envoy.filters.listener.original_dst";

pub(super) fn config() -> OriginalDst {
    OriginalDst::default()
}
