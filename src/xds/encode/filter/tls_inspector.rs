//! `envoy.filters.listener.tls_inspector`: detects TLS and reads SNI and ALPN.

use crate::xds::encode::value::uint32;
use crate::xds::pb::listener_filter::tls_inspector::TlsInspector;

pub(super) const NAME: &str = "envoy.filters.listener.tls_inspector";

/// As in Istio: 512 bytes suffice for most ClientHellos, and the buffer grows for others.
pub(super) fn config() -> TlsInspector {
    TlsInspector {
        initial_read_buffer_size: Some(uint32(512_u32)),
        ..Default::default()
    }
}
