//! Interim answers (RFC 9110 section 15.2): what a client is told before the answer to its request.

use std::cell::Cell;

use http::{HeaderMap, Response, StatusCode};

use super::conditioning::remove_one_hop;
use super::{http1, http2};
use crate::proxy::flags::Flags;

/// The interim answers to a request. They are told while the request waits for its answer, and not afterwards.
#[derive(Debug)]
pub(crate) struct Interims {
    client: Client,
    /// Whether those of hosts are passed on (`proxy_100_continue`).
    passed_on: bool,
    /// A host's.
    heard: Cell<Option<StatusCode>>,
}

#[derive(Debug)]
enum Client {
    Http1(http1::receiving::Teller),
    Http2(http2::Teller),
}

impl Interims {
    /// For a client of HTTP/1.1. Those of hosts are passed on, or not.
    pub(super) fn by_http1(teller: http1::receiving::Teller, passed_on: bool) -> Self {
        Self::to(Client::Http1(teller), passed_on)
    }

    /// For one of HTTP/2.
    pub(super) fn by_http2(teller: http2::Teller, passed_on: bool) -> Self {
        Self::to(Client::Http2(teller), passed_on)
    }

    fn to(client: Client, passed_on: bool) -> Self {
        Self {
            client,
            passed_on,
            heard: Cell::new(None),
        }
    }

    /// Whether one of this status is of interest. Envoy knows no others.
    pub(crate) fn is_known(status: StatusCode) -> bool {
        matches!(status.as_u16(), 100 | 102..=104)
    }

    /// Whether those of hosts are passed on.
    pub(super) fn are_passed_on(&self) -> bool {
        self.passed_on
    }

    /// Asks the client for the body that it has announced.
    pub(super) fn ask_for_body(&self) {
        self.tell(StatusCode::CONTINUE, &HeaderMap::new());
    }

    /// Hears one of a host's. The first is passed on; none after it is, as in Envoy.
    pub(crate) fn hear(&self, answer: Response<()>) {
        let (mut parts, ()) = answer.into_parts();
        if !Self::is_known(parts.status) || self.heard().is_some() {
            return;
        }
        self.heard.set(Some(parts.status));
        if self.passed_on {
            remove_one_hop(&mut parts.headers);
            self.tell(parts.status, &parts.headers);
        }
    }

    /// What a host has said.
    pub(super) fn heard(&self) -> Option<StatusCode> {
        self.heard.get()
    }

    /// The flag and the `%RESPONSE_CODE_DETAILS%` of a request whose stream was reset by the client, or for what it said.
    pub(super) fn reset(&self) -> Option<(Flags, &'static str)> {
        match &self.client {
            Client::Http1(_) => None,
            Client::Http2(teller) => teller.reset(),
        }
    }

    fn tell(&self, status: StatusCode, headers: &HeaderMap) {
        match &self.client {
            Client::Http1(teller) => teller.tell(status, headers),
            Client::Http2(teller) => teller.tell(status, headers),
        }
    }
}
