//! Envoy's format strings: texts with commands such as `%REQ(X-FORWARDED-FOR)%`, for headers and logs.

use http::{HeaderMap, Method};

use super::connection::{Connection, Stream};

/// A compiled format string.
#[derive(Clone, Debug, Default)]
pub(crate) struct Format {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(Box<str>),
}

/// What a format string draws on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    /// The connection.
    pub(crate) connection: &'a Connection,
    /// The stream.
    pub(crate) stream: &'a Stream,
    /// The request's line, if there is a request.
    pub(crate) request: Option<RequestLine<'a>>,
    /// The request's headers, if they are known.
    pub(crate) request_headers: Option<&'a HeaderMap>,
    /// The response's headers, if there are any yet.
    pub(crate) response_headers: Option<&'a HeaderMap>,
    /// The response's trailers, if there were any.
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

impl Format {
    /// Compiles a format string.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Ok(Self {
            parts: vec![Part::Literal(text.into())],
        })
    }

    /// The text for a header that is being added to `headers`.
    pub(crate) fn header_value(&self, _headers: &HeaderMap, _context: &Context<'_>) -> String {
        self.parts.iter().map(|Part::Literal(text)| &**text).collect()
    }
}
