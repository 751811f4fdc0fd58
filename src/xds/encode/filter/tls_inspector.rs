//! `envoy.filters.listener.tls_inspector`: SNI and ALPN, and whether it is TLS at all.

use crate::xds::encode::value::uint32;
use crate::xds::pb::listener_filter::tls_inspector::TlsInspector;

pub(super) const NAME: &str = "envoy.filters.listener.tls_inspector";

/// As Istio has it: most client hellos fit 512 bytes, and the buffer grows for the others.
pub(super) fn config() -> TlsInspector {
    TlsInspector {
        initial_read_buffer_size: Some(uint32(512_u32)),
        ..Default::default()
    }
}
