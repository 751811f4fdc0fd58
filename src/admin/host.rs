//! Protects against DNS rebinding, by which a web page whose host name resolves to a loopback
//! address could read responses.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::answer::problem;

/// The host names a listener accepts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guard {
    /// Accept loopback names only. A listener on another address was exposed on purpose, under
    /// names unknown here.
    loopback_only: bool,
}

impl Guard {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            loopback_only: address.ip().to_canonical().is_loopback(),
        }
    }

    /// Whether the `Host` of a request is accepted. Requests without one do not come from browsers.
    fn admits(self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        !self.loopback_only || hosts.all(|host| host.to_str().is_ok_and(is_loopback))
    }
}

/// `localhost` or a loopback address, with or without a port.
fn is_loopback(host: &str) -> bool {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let name = without_port
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(without_port);
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse()
            .is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
}

/// Rejects requests for other hosts.
pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    if guard.admits(request.headers()) {
        return next.run(request).await;
    }
    let message = "this listener only accepts localhost and loopback addresses in `Host`";
    problem(StatusCode::MISDIRECTED_REQUEST, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_accepted() {
        for host in [
            "localhost",
            "LOCALHOST:15014",
            "127.0.0.1:15014",
            "127.9.9.9",
            "[::1]:15014",
            "[::1]",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:15014",
            "10.0.0.1",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[::2]:1",
            "localhost:x",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_non_loopback_listener_accepts_every_host() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "mesh.example".parse().unwrap());
        assert!(Guard::new("0.0.0.0:15014".parse().unwrap()).admits(&headers));
        let guard = Guard::new("127.0.0.1:15014".parse().unwrap());
        assert!(!guard.admits(&headers));
        assert!(guard.admits(&HeaderMap::new()));
        headers.insert(header::HOST, "localhost".parse().unwrap());
        headers.append(header::HOST, "mesh.example".parse().unwrap());
        assert!(!guard.admits(&headers));
    }
}
