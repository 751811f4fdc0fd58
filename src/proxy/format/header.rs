//! Headers and pseudo-headers in format strings.

use http::{HeaderMap, HeaderName};

use super::command::text;
use super::{Context, Value};

/// A header, and the one to use if it is missing.
#[derive(Clone, Debug)]
pub(super) struct HeaderSource {
    first: Header,
    second: Option<Header>,
}

/// A header or pseudo-header.
#[derive(Clone, Debug)]
enum Header {
    Name(HeaderName),
    Method,
    Path,
    Authority,
    Scheme,
    Status,
}

impl HeaderSource {
    /// Parses `NAME` or `NAME?OTHER`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (first, second) = match text.split_once('?') {
            Some((first, second)) => (first, Some(second)),
            None => (text, None),
        };
        Ok(Self {
            first: Header::parse(first)?,
            second: second.map(Header::parse).transpose()?,
        })
    }

    /// Its value in `headers`, or in the request's pseudo-headers.
    pub(super) fn of<'a>(&self, context: &Context<'a>, headers: Option<&'a HeaderMap>) -> Value<'a> {
        let value = self.first.of(context, headers);
        match (&self.second, value) {
            (Some(second), Value::None) => second.of(context, headers),
            (_, value) => value,
        }
    }
}

impl Header {
    fn parse(name: &str) -> Result<Self, String> {
        Ok(match name.to_ascii_lowercase().as_str() {
            ":method" => Header::Method,
            ":path" => Header::Path,
            ":authority" | "host" => Header::Authority,
            ":scheme" => Header::Scheme,
            ":status" => Header::Status,
            lower => Header::Name(
                HeaderName::from_bytes(lower.as_bytes()).map_err(|_| format!("`{name}` is not a valid header name"))?,
            ),
        })
    }

    fn of<'a>(&self, context: &Context<'a>, headers: Option<&'a HeaderMap>) -> Value<'a> {
        let request = context.request;
        match self {
            Header::Name(name) => match headers.and_then(|headers| headers.get(name)) {
                Some(value) => Value::Text(match std::str::from_utf8(value.as_bytes()) {
                    Ok(text) => text.into(),
                    Err(_) => String::from_utf8_lossy(value.as_bytes()),
                }),
                None => Value::None,
            },
            Header::Method => text(request.map(|line| line.method.as_str())),
            Header::Path => text(request.map(|line| line.path)),
            Header::Authority => text(request.map(|line| line.authority)),
            Header::Scheme => text(request.map(|line| line.scheme)),
            Header::Status if context.stream.status == 0 => Value::None,
            Header::Status => Value::Text(context.stream.status.to_string().into()),
        }
    }
}

/// The size of headers in bytes, `pseudo` being that of the pseudo-headers.
pub(super) fn size(headers: Option<&HeaderMap>, pseudo: usize) -> Value<'static> {
    let sizes = headers
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != http::header::HOST);
    let bytes: usize = sizes.map(|(name, value)| name.as_str().len() + value.len()).sum();
    Value::Number((bytes + pseudo) as u64)
}

/// The size of a request's pseudo-headers in bytes.
pub(super) fn pseudo_size(context: &Context<'_>) -> usize {
    let Some(line) = context.request else {
        return 0;
    };
    [
        (":method", line.method.as_str()),
        (":path", line.path),
        (":authority", line.authority),
        (":scheme", line.scheme),
    ]
    .map(|(name, value)| if value.is_empty() { 0 } else { name.len() + value.len() })
    .iter()
    .sum()
}
