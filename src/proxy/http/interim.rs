//! Interim (1xx) responses (RFC 9110 section 15.2).

use std::cell::Cell;

use http::{HeaderMap, Response, StatusCode};

use super::conditioning::remove_one_hop;
use super::{http1, http2};
use crate::proxy::flags::Flags;

/// Interim responses to one request; they are sent while it waits for its final response.
#[derive(Debug)]
pub(crate) struct Interims {
    client: Client,
    /// Whether those of hosts are forwarded (`proxy_100_continue`).
    passed_on: bool,
    /// The status of one from a host.
    heard: Cell<Option<StatusCode>>,
}

#[derive(Debug)]
enum Client {
    Http1(http1::receiving::InterimSender),
    Http2(http2::InterimSender),
}

impl Interims {
    /// For an HTTP/1.1 client.
    pub(super) fn by_http1(interim_sender: http1::receiving::InterimSender, passed_on: bool) -> Self {
        Self::to(Client::Http1(interim_sender), passed_on)
    }

    /// For an HTTP/2 client.
    pub(super) fn by_http2(interim_sender: http2::InterimSender, passed_on: bool) -> Self {
        Self::to(Client::Http2(interim_sender), passed_on)
    }

    fn to(client: Client, passed_on: bool) -> Self {
        Self {
            client,
            passed_on,
            heard: Cell::new(None),
        }
    }

    /// Whether a host's interim response with this status is handled: the ones that Envoy handles.
    pub(crate) fn is_known(status: StatusCode) -> bool {
        matches!(status.as_u16(), 100 | 102..=104)
    }

    /// Whether those of hosts are forwarded.
    pub(super) fn are_passed_on(&self) -> bool {
        self.passed_on
    }

    /// Sends `100 Continue`.
    pub(super) fn ask_for_body(&self) {
        self.tell(StatusCode::CONTINUE, &HeaderMap::new());
    }

    /// Handles a host's interim response. As in Envoy, only the first is forwarded.
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

    /// The status of a host's interim response.
    pub(super) fn heard(&self) -> Option<StatusCode> {
        self.heard.get()
    }

    /// Flag and `%RESPONSE_CODE_DETAILS%` of a request whose stream was reset by the client, or for what it sent.
    pub(super) fn reset(&self) -> Option<(Flags, &'static str)> {
        match &self.client {
            Client::Http1(_) => None,
            Client::Http2(interim_sender) => interim_sender.reset(),
        }
    }

    fn tell(&self, status: StatusCode, headers: &HeaderMap) {
        match &self.client {
            Client::Http1(interim_sender) => interim_sender.tell(status, headers),
            Client::Http2(interim_sender) => interim_sender.tell(status, headers),
        }
    }
}
