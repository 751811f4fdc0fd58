//! HTTP filters: what happens to a request before the router, and to a response after it.

use std::sync::Arc;

use super::exchange::Exchange;
use super::local_reply::LocalReply;

/// A filter of a chain, in the order of the configuration. Each has a file of its own.
#[derive(Debug)]
pub(crate) enum HttpFilter {}

/// What virtual hosts, routes and shares say to filters (`typed_per_filter_config`).
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    /// Names of filters that are off here (`FilterConfig.disabled`).
    pub(crate) disabled: Vec<Arc<str>>,
}

impl HttpFilter {
    /// Looks at a request. Returns what to answer instead of sending it on.
    pub(crate) async fn request(&self, _exchange: &mut Exchange) -> Option<LocalReply> {
        match *self {}
    }

    /// Looks at a response.
    pub(crate) fn response(&self, _exchange: &mut Exchange, _response: &mut http::response::Parts) {
        match *self {}
    }
}
