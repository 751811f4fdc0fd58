//! Names of resources, in the formats that Istio's tools parse.

use std::net::IpAddr;
use std::sync::Arc;

use crate::ir::ResourceName;
use crate::ir::listener::ListenAddress;
use crate::name::Hostname;

/// The cluster that forwards to the original destination.
pub(super) const PASSTHROUGH: &str = "PassthroughCluster";

/// The cluster without endpoints, for rejected traffic.
pub(super) const BLACK_HOLE: &str = "BlackHoleCluster";

/// The cluster that forwards to the application's original destination port.
pub(super) const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";

/// ALPN for HTTP/1 ports. The last one is the protocol, the others select the server's filter
/// chain.
pub(super) const ALPN_HTTP1: [&str; 3] = ["istio-http/1.1", "istio", "http/1.1"];

/// ALPN for HTTP/2 ports.
pub(super) const ALPN_HTTP2: [&str; 3] = ["istio-h2", "istio", "h2"];

/// ALPN for other ports.
pub(super) const ALPN_TCP: [&str; 1] = ["istio"];

/// `outbound|9080|v1|reviews.default.svc.cluster.local`.
pub(super) fn outbound_cluster(port: u16, subset: Option<&str>, host: &Hostname) -> ResourceName {
    format!("outbound|{port}|{}|{host}", subset.unwrap_or_default()).into()
}

/// SNI of Istio mutual TLS: `outbound_.9080_.v1_.reviews.default.svc.cluster.local`.
pub(super) fn default_sni(port: u16, subset: Option<&str>, host: &Hostname) -> Arc<str> {
    format!("outbound_.{port}_.{}_.{host}", subset.unwrap_or_default()).into()
}

/// `inbound|9080||`.
pub(super) fn inbound_cluster(port: u16) -> ResourceName {
    format!("inbound|{port}||").into()
}

/// `10.96.0.1_9080`, or the path of a Unix domain socket.
pub(super) fn listener(address: &ListenAddress) -> ResourceName {
    match address {
        ListenAddress::Ip(ip, port) => format!("{ip}_{port}").into(),
        ListenAddress::Unix(path) => path.clone(),
    }
}

/// `reviews.default.svc.cluster.local:9080`: name of a virtual host, or of a route configuration
/// for a port with protocol detection.
pub(super) fn host_port(host: &str, port: u16) -> Arc<str> {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]:{port}").into(),
        Ok(IpAddr::V4(_)) | Err(_) => format!("{host}:{port}").into(),
    }
}
