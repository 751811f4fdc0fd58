//! `envoy.filters.listener.original_dst`: the address that the client dialled, before iptables.

use crate::xds::pb::listener_filter::original_dst::OriginalDst;

pub(super) const NAME: &str = "envoy.filters.listener.original_dst";

pub(super) fn config() -> OriginalDst {
    OriginalDst::default()
}
