//! Protocol of a Kubernetes Service port (Istio's `pkg/config/kube` conversion).

use crate::api::service::{ServicePort, TransportProtocol};
use crate::mesh::lower::value::parse_protocol;
use crate::mesh::service::Protocol;

/// Well-known ports of server-first protocols (SMTP, DNS, MySQL, MongoDB), where protocol detection
/// would hang.
const SERVER_FIRST: [u32; 4] = [25, 53, 3306, 27017];

/// `protocol: UDP`, else `appProtocol`, else by the port's name.
pub(super) fn of_port(port: &ServicePort) -> Protocol {
    match port.protocol {
        TransportProtocol::Udp | TransportProtocol::Sctp => return Protocol::Udp,
        TransportProtocol::Tcp => {}
    }
    let named = match port.app_protocol.as_str() {
        "" => of_name(&port.name),
        "kubernetes.io/h2c" => Some(Protocol::Http2),
        "kubernetes.io/ws" => Some(Protocol::Http),
        "kubernetes.io/wss" => Some(Protocol::Https),
        other => of_name(other),
    };
    match named {
        Some(protocol) => protocol,
        None if SERVER_FIRST.contains(&port.port) => Protocol::Tcp,
        None => Protocol::Auto,
    }
}

/// `grpc-web…`, else the prefix before the first `-`.
fn of_name(name: &str) -> Option<Protocol> {
    let name = name.to_ascii_lowercase();
    if name.starts_with("grpc-web") {
        return Some(Protocol::GrpcWeb);
    }
    let (prefix, _) = name.split_once('-').unwrap_or((&name, ""));
    parse_protocol(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol(name: &str, app_protocol: &str, port: u32) -> Protocol {
        of_port(&ServicePort {
            name: name.to_owned(),
            app_protocol: app_protocol.to_owned(),
            port,
            ..ServicePort::default()
        })
    }

    #[test]
    fn names_tell_the_protocol() {
        assert_eq!(protocol("http-web", "", 80), Protocol::Http);
        assert_eq!(protocol("HTTP2", "", 80), Protocol::Http2);
        assert_eq!(protocol("grpc-web-x", "", 80), Protocol::GrpcWeb);
        assert_eq!(protocol("grpc-x", "", 80), Protocol::Grpc);
        assert_eq!(protocol("tls-x", "", 443), Protocol::Tls);
        assert_eq!(protocol("web", "", 80), Protocol::Auto);
        assert_eq!(protocol("", "", 3306), Protocol::Tcp);
        assert_eq!(protocol("http", "", 3306), Protocol::Http);
    }

    #[test]
    fn app_protocol_comes_first() {
        assert_eq!(protocol("http", "tcp", 80), Protocol::Tcp);
        assert_eq!(protocol("tcp", "kubernetes.io/h2c", 80), Protocol::Http2);
        assert_eq!(protocol("tcp", "kubernetes.io/wss", 80), Protocol::Https);
        assert_eq!(protocol("tcp", "example.com/foo", 80), Protocol::Auto);
    }

    #[test]
    fn udp_is_not_proxied() {
        let udp = ServicePort {
            name: "http".to_owned(),
            protocol: TransportProtocol::Udp,
            ..ServicePort::default()
        };
        assert_eq!(of_port(&udp), Protocol::Udp);
    }
}
