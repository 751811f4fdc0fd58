//! Checks by `grpc.health.v1.Health.Check` (`grpc_health_check`).

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};

use super::connect::Subject;
use super::http2::{Complete, Connection};
use super::{Failure, Outcome, Passed};
use crate::proxy::http::deadlines::{GRPC_TIMEOUT, as_grpc_timeout};
use crate::proxy::http::grpc::{GRPC_STATUS, PREFIX, framed};
use crate::proxy::http::route::is_grpc;
use crate::xds::grpc_health;

const PATH: &str = "/grpc.health.v1.Health/Check";

/// A response is a few bytes long; more is none.
const RESPONSE_SIZE: usize = 4 << 10;

/// `GrpcHealthCheck`.
#[derive(Debug)]
pub(crate) struct GrpcCheck {
    /// `service_name`; empty: the whole server.
    pub(crate) service: String,
    /// `authority`; empty: the name of the cluster.
    pub(crate) authority: Box<str>,
}

impl GrpcCheck {
    /// Makes an attempt.
    pub(super) async fn attempt(&self, connection: &mut Option<Connection>, subject: Subject<'_>) -> Outcome {
        let complete = self.exchange(connection, subject).await;
        let reuse = subject.checked.config().reuse_connection;
        connection.take_if(|connection| complete.is_err() || !reuse || !connection.is_ready());
        match complete? {
            complete if is_serving(&complete) => Ok(Passed::Healthy),
            _ => Err(Failure::Response {
                retriable: false,
                immediate: false,
            }),
        }
    }

    async fn exchange(&self, connection: &mut Option<Connection>, subject: Subject<'_>) -> Result<Complete, Failure> {
        let ready = match connection.take().filter(Connection::is_ready) {
            Some(ready) => ready,
            None => {
                let connected = subject.connect().await.map_err(Failure::network)?;
                Connection::new(connected.io, subject.cluster)
            }
        };
        let connection = connection.insert(ready);
        let complete = connection.exchange(self.request(subject), subject.scheme(), RESPONSE_SIZE);
        complete.await.map_err(Failure::network)
    }

    fn request(&self, subject: Subject<'_>) -> Request<Bytes> {
        let mut request = Request::new(framed(&grpc_health::request(&self.service)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(PATH);
        let headers = request.headers_mut();
        if let Ok(authority) = HeaderValue::from_str(subject.authority(&self.authority)) {
            headers.insert(HOST, authority);
        }
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(USER_AGENT, HeaderValue::from_static("Envoy/HC"));
        headers.insert(GRPC_TIMEOUT, as_grpc_timeout(subject.checked.config().timeout));
        request
    }
}

/// Whether the call succeeded, and the service serves.
fn is_serving(complete: &Complete) -> bool {
    let response = &complete.response;
    let is_ok = |headers: &HeaderMap| headers.get(GRPC_STATUS).is_some_and(|status| status == "0");
    response.status() == StatusCode::OK
        && is_grpc(response.headers())
        && complete.trailers.as_ref().is_some_and(is_ok)
        && message(response.body()).is_some_and(grpc_health::is_serving)
}

/// The only message of a response.
fn message(body: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = body.split_at_checked(PREFIX)?;
    let length = u32::from_be_bytes(prefix.get(1..)?.try_into().ok()?);
    let whole = prefix.first() == Some(&0) && usize::try_from(length).is_ok_and(|length| length == message.len());
    whole.then_some(message)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use http::Response;

    use super::*;
    use crate::proxy::upstream::balance::testing::{checked_config, cluster, endpoints};

    fn complete(status: u16, content_type: &'static str, body: &[u8], grpc_status: Option<&'static str>) -> Complete {
        let mut response = Response::new(BytesMut::from(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Complete {
            response,
            trailers: grpc_status.map(|status| {
                let status = HeaderValue::from_static(status);
                HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), status)])
            }),
        }
    }

    #[test]
    fn the_call_is_envoys() {
        let cluster = cluster(checked_config(), &endpoints(&[(1, 0)]), Default::default());
        let host = cluster.hosts.load().hosts[0].clone();
        let check = GrpcCheck {
            service: "svc".to_owned(),
            authority: "auth.example".into(),
        };
        let request = check.request(Subject {
            cluster: &cluster,
            host: &host,
            checked: host.checked.as_ref().unwrap(),
        });
        let headers = request
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()));
        let expected: [(&str, &[u8]); 5] = [
            ("host", b"auth.example"),
            ("te", b"trailers"),
            ("content-type", b"application/grpc"),
            ("user-agent", b"Envoy/HC"),
            ("grpc-timeout", b"1000m"),
        ];
        assert_eq!(headers.collect::<Vec<_>>(), expected);
        assert_eq!(request.body(), &b"\0\0\0\0\x05\x0a\x03svc"[..]);
    }

    #[test]
    fn only_a_service_that_serves_is_healthy() {
        let serving = [0, 0, 0, 0, 2, 8, 1];
        let grpc = "application/grpc";
        assert!(is_serving(&complete(200, grpc, &serving, Some("0"))));
        assert!(is_serving(&complete(
            200,
            "application/grpc+proto",
            &serving,
            Some("0")
        )));
        assert!(!is_serving(&complete(200, grpc, &[0, 0, 0, 0, 2, 8, 2], Some("0"))));
        assert!(!is_serving(&complete(200, grpc, &[0, 0, 0, 0, 0], Some("0"))));
        assert!(!is_serving(&complete(200, grpc, &serving, Some("12"))));
        assert!(!is_serving(&complete(200, grpc, &serving, None)));
        assert!(!is_serving(&complete(503, grpc, &serving, Some("0"))));
        assert!(!is_serving(&complete(200, "text/html", &serving, Some("0"))));
        assert!(!is_serving(&complete(200, grpc, &serving.repeat(2), Some("0"))));
        assert!(!is_serving(&complete(200, grpc, b"", Some("0"))));
    }
}
