//! Envoy's format strings, such as `%REQ(X-FORWARDED-FOR)%`, for headers and access logs.

mod command;
mod grpc;
mod header;
mod parse;
mod request;
mod time;
mod wire;
mod write;

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use http::{HeaderMap, Method, StatusCode};

use super::connection::{Connection, Stream};
use super::http::local_reply::grpc_status;
use super::http::route::is_grpc;
use command::Command;
use time::TimeFormat;

pub(crate) use command::protocol_name;
pub(crate) use write::Escaped;

/// A compiled format string.
#[derive(Clone, Debug, Default)]
pub(crate) struct Format {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(Box<str>),
    Command(Command),
}

/// The value of a command, converted to text only when it is written.
#[derive(Clone, Debug)]
enum Value<'a> {
    /// A missing value.
    None,
    /// A text.
    Text(Cow<'a, str>),
    /// A number.
    Number(u64),
    /// An address and port.
    Address(SocketAddr),
    /// An IP address.
    Ip(IpAddr),
    /// A point in time.
    Time(&'a TimeFormat, SystemTime),
}

/// Data that is collected only if a format string or filter needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Request headers, after the request is sent.
    RequestHeaders,
    /// Bytes on the wire.
    WireBytes,
}

/// What format strings can refer to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    /// The connection.
    pub(crate) connection: &'a Connection,
    /// The stream.
    pub(crate) stream: &'a Stream,
    /// The request's pseudo-headers, if there is a request.
    pub(crate) request: Option<RequestLine<'a>>,
    /// Request headers, if known.
    pub(crate) request_headers: Option<&'a HeaderMap>,
    /// Response headers, if there are any yet.
    pub(crate) response_headers: Option<&'a HeaderMap>,
    /// Response trailers, if there were any.
    pub(crate) response_trailers: Option<&'a HeaderMap>,
}

/// The pseudo-headers of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestLine<'a> {
    /// `:method`.
    pub(crate) method: &'a Method,
    /// `:path`, with the query.
    pub(crate) path: &'a str,
    /// `:authority`.
    pub(crate) authority: &'a str,
    /// `:scheme`.
    pub(crate) scheme: &'a str,
}

impl Context<'_> {
    /// The gRPC status of the response.
    pub(crate) fn grpc_status(&self) -> Option<u64> {
        let of = |headers: Option<&HeaderMap>| headers?.get("grpc-status")?.to_str().ok()?.parse().ok();
        of(self.response_trailers).or_else(|| of(self.response_headers))
    }

    /// `%GRPC_STATUS%` of the response to a gRPC request; the equivalent of the HTTP status if there is none, -1 if it
    /// is not a number.
    fn grpc_status_of_request(&self) -> Option<i64> {
        if !self.request_headers.is_some_and(is_grpc) {
            return None;
        }
        let of = |headers: Option<&HeaderMap>| {
            let status = headers?.get("grpc-status")?.to_str().ok();
            Some(
                status
                    .and_then(|status| status.parse::<u32>().ok())
                    .map_or(-1, i64::from),
            )
        };
        let of_http = || StatusCode::from_u16(self.stream.status).ok().map(grpc_status);
        of(self.response_trailers)
            .or_else(|| of(self.response_headers))
            .or_else(|| of_http().map(i64::from))
    }
}

impl Format {
    /// Compiles a format string.
    ///
    /// # Errors
    /// The error, for the configuration's author.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        parse::parse(text).map(|parts| Self { parts })
    }

    /// The value of a header: missing values are left out.
    pub(crate) fn header_value(&self, context: &Context<'_>) -> String {
        self.text(context, "")
    }

    /// The text, with `missing` for missing values.
    pub(crate) fn text(&self, context: &Context<'_>, missing: &str) -> String {
        let mut out = String::with_capacity(128);
        // Writing to a string cannot fail.
        let _ = self.write(&mut out, context, missing);
        out
    }

    /// Writes the text, with `missing` for missing values.
    ///
    /// # Errors
    /// Those of `out`.
    pub(crate) fn write(&self, out: &mut impl fmt::Write, context: &Context<'_>, missing: &str) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Literal(text) => out.write_str(text),
            Part::Command(command) => match command.value(context) {
                Value::None => out.write_str(missing),
                value => value.write(out),
            },
        })
    }

    /// Writes a JSON value; returns whether it is `null`. A format string of a single command keeps the type of its
    /// value, anything else is a string with `missing` for missing values.
    pub(crate) fn write_json(&self, out: &mut String, context: &Context<'_>, missing: &str) -> bool {
        // Writing to a string cannot fail.
        let _ = match &self.parts[..] {
            [Part::Command(command)] => match command.value(context) {
                Value::None => return false,
                value @ Value::Number(_) => value.write(out),
                value => Escaped::quoted(out, |out| value.write(out)),
            },
            _ => Escaped::quoted(out, |out| self.write(out, context, missing)),
        };
        true
    }

    /// Whether it needs this.
    pub(crate) fn asks_for(&self, need: Need) -> bool {
        self.parts
            .iter()
            .any(|part| matches!(part, Part::Command(command) if command.asks_for(need)))
    }
}
