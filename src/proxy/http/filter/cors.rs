//! `envoy.filters.http.cors`: answers preflight requests, and tells browsers which origins may read responses.

use std::sync::Arc;

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

/// A CORS policy of a route.
#[derive(Debug)]
pub(crate) struct CorsPolicy {
    /// Allowed origins; `None`: those of a wider level.
    pub(crate) origins: Arc<[StringMatcher]>,
    /// `access-control-allow-methods`.
    pub(crate) methods: Option<HeaderValue>,
    /// `access-control-allow-headers`.
    pub(crate) headers: Option<HeaderValue>,
    /// `access-control-expose-headers`.
    pub(crate) expose: Option<HeaderValue>,
    /// `access-control-max-age`.
    pub(crate) max_age: Option<HeaderValue>,
    /// `access-control-allow-credentials: true`; off by default.
    pub(crate) credentials: Option<bool>,
    /// The share of requests for which it is enabled, in parts per million.
    pub(crate) per_million: u32,
    /// `forward_not_matching_preflights`: whether preflight requests of other origins are forwarded; on by default.
    pub(crate) forward_unmatched: Option<bool>,
}

impl CorsPolicy {
    /// Merges this with a wider level, setting by setting.
    pub(super) fn within(&self, wider: &Self) -> Self {
        let header = |near: &Option<HeaderValue>, wider: &Option<HeaderValue>| near.clone().or_else(|| wider.clone());
        let origins = if self.origins.is_empty() {
            &wider.origins
        } else {
            &self.origins
        };
        Self {
            origins: origins.clone(),
            methods: header(&self.methods, &wider.methods),
            headers: header(&self.headers, &wider.headers),
            expose: header(&self.expose, &wider.expose),
            max_age: header(&self.max_age, &wider.max_age),
            credentials: self.credentials.or(wider.credentials),
            per_million: self.per_million,
            forward_unmatched: self.forward_unmatched.or(wider.forward_unmatched),
        }
    }

    pub(super) fn request(&self, exchange: &mut Exchange) -> Option<LocalReply> {
        let request = &exchange.request;
        let origin = request.headers.get(ORIGIN)?.clone();
        if !self.is_in_force(exchange) {
            return None;
        }
        let asked = request.headers.get(ACCESS_CONTROL_REQUEST_METHOD);
        let preflight = request.method == Method::OPTIONS && asked.is_some_and(|method| !method.is_empty());
        let allowed = self.allows(&origin);
        exchange.cors_origin = allowed.then_some(origin);
        if !preflight || (!allowed && self.forward_unmatched.unwrap_or(true)) {
            return None;
        }
        let mut reply = LocalReply::new(StatusCode::OK, "", Flags::default(), "cors_response");
        if allowed {
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
        let headers = &mut response.headers;
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials == Some(true) {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        set(headers, ACCESS_CONTROL_EXPOSE_HEADERS, self.expose.as_ref());
    }

    fn is_in_force(&self, exchange: &Exchange) -> bool {
        u64::from(self.per_million) > exchange.random % 1_000_000
    }

    /// As in Envoy, a matcher that matches `*` allows every origin.
    fn allows(&self, origin: &HeaderValue) -> bool {
        let matches = |wanted: &StringMatcher| wanted.matches(b"*") || wanted.matches(origin.as_bytes());
        self.origins.iter().any(matches)
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<&HeaderValue>) {
    if let Some(value) = value {
        headers.insert(name, value.clone());
    }
}
