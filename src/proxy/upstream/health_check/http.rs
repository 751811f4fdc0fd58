//! Checks by HTTP requests (`http_health_check`).

use std::convert::Infallible;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};

use super::connect::Subject;
use super::{Failure, HealthCheckStats, Outcome, Passed, http1, http2, payload};
use crate::proxy::matcher::StringMatcher;

/// Marks a response of a host that is to be left out at once.
pub(crate) const IMMEDIATE_FAILURE: &str = "x-envoy-immediate-health-check-fail";
/// Marks a response of a degraded host.
const DEGRADED: &str = "x-envoy-degraded";
/// Names the service that was checked.
const CHECKED_CLUSTER: &str = "x-envoy-upstream-healthchecked-cluster";

/// `HttpHealthCheck`.
#[derive(Debug)]
pub(crate) struct HttpCheck {
    /// `host`; empty: the name of the cluster.
    pub(crate) host: Box<str>,
    /// `path`, with the query.
    pub(crate) path: PathAndQuery,
    /// `method`.
    pub(crate) method: Method,
    /// Headers, after all changes of `request_headers_to_add` and `request_headers_to_remove`.
    pub(crate) headers: HeaderMap,
    /// `send`: the body.
    pub(crate) send: Bytes,
    /// `receive`: what the body of the response must have.
    pub(crate) receive: Vec<Bytes>,
    /// `response_buffer_size`: how much of the body is looked at.
    pub(crate) buffer_size: usize,
    /// `expected_statuses`.
    pub(crate) expected: Vec<Range<u16>>,
    /// `retriable_statuses`.
    pub(crate) retriable: Vec<Range<u16>>,
    /// Whether `codec_client_type` is HTTP/2.
    pub(crate) http2: bool,
    /// `service_name_matcher`.
    pub(crate) service: Option<StringMatcher>,
}

/// A host's connection.
#[derive(Debug, Default)]
pub(super) enum Connection {
    /// There is none.
    #[default]
    None,
    Http1(Box<http1::Connection>),
    Http2(http2::Connection),
}

impl HttpCheck {
    /// Makes an attempt.
    pub(super) async fn attempt(&self, connection: &mut Connection, subject: Subject<'_>) -> Outcome {
        let response = self.exchange(connection, subject).await;
        let reuse = subject.checked.config().reuse_connection;
        if response.is_err() || !reuse || !connection.is_ready() {
            *connection = Connection::None;
        }
        self.judge(&response?, &subject.cluster.stats.health_checks)
    }

    async fn exchange(&self, connection: &mut Connection, subject: Subject<'_>) -> Result<Response<BytesMut>, Failure> {
        if !connection.is_ready() {
            let connected = subject.connect().await.map_err(Failure::network)?;
            *connection = match self.http2 {
                true => Connection::Http2(http2::Connection::new(connected.io, subject.cluster)),
                false => Connection::Http1(Box::new(http1::Connection::new(connected.io))),
            };
        }
        let request = self.request(subject);
        let kept = if self.receive.is_empty() { 0 } else { self.buffer_size };
        match connection {
            Connection::None => Err(Failure::Network),
            Connection::Http1(connection) => connection.exchange(&request, kept).await.map_err(Failure::network),
            Connection::Http2(connection) => {
                let complete = connection.exchange(request, subject.scheme(), kept).await;
                complete.map(|complete| complete.response).map_err(Failure::network)
            }
        }
    }

    fn request(&self, subject: Subject<'_>) -> Request<Bytes> {
        let mut request = Request::new(self.send.clone());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.path.clone());
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::from_str(subject.authority(&self.host)) {
            headers.insert(HOST, host);
        }
        headers.extend(self.headers.clone());
        if !self.send.is_empty() {
            headers.insert(CONTENT_LENGTH, self.send.len().into());
        }
        request
    }

    fn judge(&self, response: &Response<BytesMut>, stats: &HealthCheckStats) -> Outcome {
        let headers = response.headers();
        let failed = |retriable| {
            Err(Failure::Response {
                retriable,
                immediate: headers.contains_key(IMMEDIATE_FAILURE),
            })
        };
        if !payload::is_in(&self.receive, response.body()) {
            return failed(false);
        }
        if !is_within(&self.expected, response.status()) {
            return failed(is_within(&self.retriable, response.status()));
        }
        if let Some(wanted) = &self.service {
            stats.verify_cluster.fetch_add(1, Relaxed);
            let service = headers.get(CHECKED_CLUSTER).map_or(&b""[..], HeaderValue::as_bytes);
            if !wanted.matches(service) {
                return Err(Failure::Response {
                    retriable: false,
                    immediate: false,
                });
            }
        }
        match headers.contains_key(DEGRADED) {
            true => Ok(Passed::Degraded),
            false => Ok(Passed::Healthy),
        }
    }
}

fn is_within(ranges: &[Range<u16>], status: StatusCode) -> bool {
    ranges.iter().any(|range| range.contains(&status.as_u16()))
}

impl Connection {
    fn is_ready(&mut self) -> bool {
        match self {
            Connection::None => false,
            Connection::Http1(connection) => connection.is_ready(),
            Connection::Http2(connection) => connection.is_ready(),
        }
    }

    /// Keeps the connection up between attempts. Never ends.
    pub(super) async fn keep(&mut self) -> Infallible {
        if let Connection::Http2(connection) = self {
            connection.ended().await;
            *self = Connection::None;
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::matcher::Pattern;

    fn check() -> HttpCheck {
        HttpCheck {
            host: "".into(),
            path: PathAndQuery::from_static("/"),
            method: Method::GET,
            headers: HeaderMap::new(),
            send: Bytes::new(),
            receive: Vec::new(),
            buffer_size: 1024,
            expected: vec![200..201, 204..206],
            retriable: vec![500..502, 502..504],
            http2: false,
            service: None,
        }
    }

    fn response(status: u16, header: Option<(&'static str, &'static str)>) -> Response<BytesMut> {
        let mut response = Response::new(BytesMut::from("body"));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }

    const FAILED: Outcome = Err(Failure::Response {
        retriable: false,
        immediate: false,
    });

    #[test]
    fn statuses_are_expected_retriable_or_neither() {
        let judge = |status| check().judge(&response(status, None), &HealthCheckStats::default());
        for status in [200, 204, 205] {
            assert_eq!(judge(status), Ok(Passed::Healthy), "{status}");
        }
        for status in [201, 206, 404, 504] {
            assert_eq!(judge(status), FAILED, "{status}");
        }
        let retriable = Failure::Response {
            retriable: true,
            immediate: false,
        };
        assert_eq!(judge(503), Err(retriable));
    }

    #[test]
    fn headers_tell_of_degraded_hosts_and_of_those_to_be_left_out() {
        let judge = |status, name| check().judge(&response(status, Some((name, "1"))), &HealthCheckStats::default());
        assert_eq!(judge(200, DEGRADED), Ok(Passed::Degraded));
        assert_eq!(judge(404, DEGRADED), FAILED);
        // Only of a check that fails anyway.
        assert_eq!(judge(200, IMMEDIATE_FAILURE), Ok(Passed::Healthy));
        let immediate = Failure::Response {
            retriable: false,
            immediate: true,
        };
        assert_eq!(judge(404, IMMEDIATE_FAILURE), Err(immediate));
    }

    #[test]
    fn the_service_and_the_body_must_be_the_expected_ones() {
        let mut check = check();
        check.service = Some(StringMatcher::new(Pattern::Prefix(b"shop"[..].into()), false));
        let judge = |check: &HttpCheck, header| check.judge(&response(200, header), &HealthCheckStats::default());
        assert_eq!(judge(&check, Some((CHECKED_CLUSTER, "shop-a"))), Ok(Passed::Healthy));
        assert_eq!(judge(&check, Some((CHECKED_CLUSTER, "other"))), FAILED);
        assert_eq!(judge(&check, None), FAILED);
        check.service = None;
        check.receive = vec![Bytes::from("bo"), Bytes::from("y")];
        assert_eq!(judge(&check, None), Ok(Passed::Healthy));
        check.receive = vec![Bytes::from("nothing")];
        assert_eq!(judge(&check, None), FAILED);
    }
}
