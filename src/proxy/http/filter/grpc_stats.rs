//! `envoy.filters.http.grpc_stats`: counts gRPC calls by status, and their messages.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use http::header::HeaderMap;
use http::{Response, StatusCode};
use http_body::Frame;

use crate::proxy::http::exchange::Exchange;
use crate::proxy::http::grpc::GRPC_STATUS;
use crate::proxy::http::route::{RouteAction, is_grpc};
use crate::proxy::stats::grpc::{CallStats, GrpcStats};
use crate::proxy::upstream::cluster::Cluster;

/// Which methods have statistics of their own. Paths that name no method are not counted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ByMethod {
    /// All methods (`stats_for_all_methods`).
    All,
    /// These (`service/method`, of `individual_method_stats_allowlist`); the others are counted together.
    Only(HashSet<Box<str>>),
}

impl ByMethod {
    /// Starts to count a call. The caller has checked that the request is gRPC.
    pub(super) fn request(&self, exchange: &mut Exchange) {
        if let Some(cluster) = cluster_of(exchange) {
            exchange.grpc_call = self.stats_of(exchange.path(), &cluster.stats.grpc).map(Call::new);
        }
    }

    fn stats_of(&self, path: &str, stats: &GrpcStats) -> Option<Arc<CallStats>> {
        let method = method(path)?;
        let apart = match self {
            ByMethod::All => true,
            ByMethod::Only(some) => some.contains(&*method),
        };
        Some(if apart {
            stats.of_method(&method)
        } else {
            stats.together()
        })
    }
}

/// The cluster in which a call counts: the one that its route selects.
pub(super) fn cluster_of(exchange: &Exchange) -> Option<Arc<Cluster>> {
    let matched = exchange.matched.as_ref()?;
    let RouteAction::Forward(action) = &matched.route.action else {
        return None;
    };
    let (slot, _) = exchange.destination(action);
    slot?.load_full()
}

/// Counts a call by the `grpc-status` in headers or trailers, if it is there.
pub(super) fn charge(stats: &CallStats, headers: &HeaderMap) {
    if let Some(status) = headers.get(GRPC_STATUS) {
        stats.ended(&String::from_utf8_lossy(status.as_bytes()));
    }
}

/// `service/method` of a path, normally the path without its first slash.
pub(super) fn method(path: &str) -> Option<Cow<'_, str>> {
    let path = path.split('?').next()?;
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let (service, method) = (parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let plain = path.strip_prefix('/');
    let plain = plain.filter(|plain| plain.len() == service.len() + 1 + method.len());
    Some(plain.map_or_else(|| format!("{service}/{method}").into(), Cow::from))
}

/// Counts of one call.
#[derive(Debug)]
pub(crate) struct Call {
    stats: Arc<CallStats>,
    /// Counts messages of the response, if it is gRPC.
    answer: Option<Messages>,
}

impl Call {
    fn new(stats: Arc<CallStats>) -> Self {
        Self { stats, answer: None }
    }

    /// The counter of the request's messages.
    pub(crate) fn request(&self) -> Messages {
        Messages::new(&self.stats, |stats| &stats.request_messages)
    }

    /// The response headers; a trailers-only response has its status there.
    pub(crate) fn answered<B>(&mut self, answer: &Response<B>) {
        charge(&self.stats, answer.headers());
        if answer.status() == StatusCode::OK && is_grpc(answer.headers()) {
            self.answer = Some(Messages::new(&self.stats, |stats| &stats.response_messages));
        }
    }

    /// A frame of the response.
    pub(crate) fn saw(&self, frame: &Frame<Bytes>) {
        if let (Some(data), Some(answer)) = (frame.data_ref(), &self.answer) {
            answer.saw(data);
        }
        if let Some(trailers) = frame.trailers_ref() {
            charge(&self.stats, trailers);
        }
    }
}

/// Counts the messages of a body by their five-byte prefixes: a flag and the length.
#[derive(Debug)]
pub(crate) struct Messages {
    stats: Arc<CallStats>,
    counter: fn(&CallStats) -> &AtomicU64,
    place: Cell<Place>,
}

impl Messages {
    fn new(stats: &Arc<CallStats>, counter: fn(&CallStats) -> &AtomicU64) -> Self {
        Self {
            stats: stats.clone(),
            counter,
            place: Cell::default(),
        }
    }

    /// Counts the messages that start in a piece of the body.
    pub(crate) fn saw(&self, piece: &[u8]) {
        let mut place = self.place.get();
        let begun = place.pass(piece);
        self.place.set(place);
        if begun > 0 {
            (self.counter)(&self.stats).fetch_add(begun, Relaxed);
        }
    }
}

/// A position within a message.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// How many of the five bytes of the prefix have been read.
    head: u8,
    /// The length, as far as it has been read.
    length: u32,
    /// Bytes of the message that are still to come.
    left: u32,
}

impl Place {
    /// Advances over a piece; returns how many messages start in it.
    fn pass(&mut self, mut piece: &[u8]) -> u64 {
        let mut begun = 0;
        while let [byte, rest @ ..] = piece {
            if self.left > 0 {
                let len = piece.len().min(self.left as usize);
                self.left -= len as u32;
                piece = &piece[len..];
                continue;
            }
            match self.head {
                0 => begun += 1,
                _ => self.length = self.length << 8 | u32::from(*byte),
            }
            self.head = (self.head + 1) % 5;
            if self.head == 0 {
                self.left = std::mem::take(&mut self.length);
            }
            piece = rest;
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_has_a_service() {
        assert_eq!(method("/a.B/C").as_deref(), Some("a.B/C"));
        assert_eq!(method("/a.B/C?x=/y").as_deref(), Some("a.B/C"));
        assert_eq!(method("//a.B//C/").as_deref(), Some("a.B/C"));
        assert_eq!(method("/a.B"), None);
        assert_eq!(method("/a/B/C"), None);
    }

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let body = b"\0\0\0\0\0\0\0\0\0\x03abc\x01\0\0\x01\0".iter().copied();
        let body: Vec<u8> = body.chain([7; 256]).chain(*b"\0\0").collect();
        for size in [1, 2, 3, 5, 7, 64, body.len()] {
            let mut place = Place::default();
            let begun: u64 = body.chunks(size).map(|piece| place.pass(piece)).sum();
            assert_eq!(begun, 4, "{size}");
        }
    }

    #[test]
    fn methods_are_told_apart_where_that_is_wanted_and_what_names_none_is_not_counted() {
        let stats = GrpcStats::default();
        let some = ByMethod::Only(["a/B".into()].into());
        let same = |one: Option<Arc<CallStats>>, other: &Arc<CallStats>| Arc::ptr_eq(&one.unwrap(), other);
        assert!(same(some.stats_of("/a/B", &stats), &stats.of_method("a/B")));
        assert!(same(some.stats_of("/a/C", &stats), &stats.together()));
        assert!(some.stats_of("/a", &stats).is_none());
        assert!(same(ByMethod::All.stats_of("/a/C", &stats), &stats.of_method("a/C")));
        assert!(ByMethod::All.stats_of("/a", &stats).is_none());
    }
}
