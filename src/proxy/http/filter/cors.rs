//! `envoy.filters.http.cors`: answers preflight requests, and tells browsers which answers they may show.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    HeaderMap, HeaderName, HeaderValue, ORIGIN,
};
use http::{Method, StatusCode, response};

use crate::proxy::flags::Flags;
use crate::proxy::http::exchange::Exchange;
use crate::proxy::http::local_reply::LocalReply;
use crate::proxy::matcher::StringMatcher;

/// What a route says of CORS.
#[derive(Debug)]
pub(crate) struct CorsPolicy {
    /// Origins that may.
    pub(crate) origins: Vec<StringMatcher>,
    /// `access-control-allow-methods`.
    pub(crate) methods: Option<HeaderValue>,
    /// `access-control-allow-headers`.
    pub(crate) headers: Option<HeaderValue>,
    /// `access-control-expose-headers`.
    pub(crate) expose: Option<HeaderValue>,
    /// `access-control-max-age`.
    pub(crate) max_age: Option<HeaderValue>,
    /// `access-control-allow-credentials: true`.
    pub(crate) credentials: bool,
    /// Whether it is in force; parts per million of requests.
    pub(crate) per_million: u32,
    /// Whether preflight requests of other origins go to the host.
    pub(crate) forward_unmatched: bool,
}

impl CorsPolicy {
    pub(super) fn request(&self, exchange: &mut Exchange) -> Option<LocalReply> {
        let request = &exchange.request;
        let origin = request.headers.get(ORIGIN)?.clone();
        if !self.is_in_force(exchange) {
            return None;
        }
        let preflight =
            request.method == Method::OPTIONS && request.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let allowed = self.allows(&origin);
        if !preflight || (!allowed && self.forward_unmatched) {
            exchange.cors_origin = allowed.then_some(origin);
            return None;
        }
        let mut reply = LocalReply::new(StatusCode::OK, "", Flags::default(), "cors_response");
        if allowed {
            self.allow(&origin, &mut reply.headers);
            let lists = [
                (ACCESS_CONTROL_ALLOW_METHODS, &self.methods),
                (ACCESS_CONTROL_ALLOW_HEADERS, &self.headers),
                (ACCESS_CONTROL_MAX_AGE, &self.max_age),
            ];
            lists
                .into_iter()
                .for_each(|(name, value)| set(&mut reply.headers, name, value.as_ref()));
        }
        Some(reply)
    }

    pub(super) fn response(&self, exchange: &Exchange, response: &mut response::Parts) {
        let Some(origin) = &exchange.cors_origin else {
            return;
        };
        self.allow(origin, &mut response.headers);
        set(
            &mut response.headers,
            ACCESS_CONTROL_EXPOSE_HEADERS,
            self.expose.as_ref(),
        );
    }

    fn is_in_force(&self, exchange: &Exchange) -> bool {
        u64::from(self.per_million) > exchange.random % 1_000_000
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.origins.iter().any(|wanted| wanted.matches(origin.as_bytes()))
    }

    fn allow(&self, origin: &HeaderValue, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<&HeaderValue>) {
    if let Some(value) = value {
        headers.insert(name, value.clone());
    }
}
