//! Access logs: a line for each request or TCP connection, in Envoy's format strings.
//!
//! Workers make the lines and hand them to one writing thread by a bounded queue; what does not fit is counted and
//! dropped, so that a slow disk delays no request.

pub(crate) mod filter;
mod writer;

use super::format::{Context, Format};
use filter::LogFilter;

pub(crate) use writer::{Sink, Target};

/// Envoy's format where nothing is said.
pub(crate) const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// A compiled `AccessLog`.
#[derive(Debug)]
pub(crate) struct AccessLog {
    /// Where lines go.
    pub(crate) sink: Sink,
    /// How they look.
    pub(crate) format: LogFormat,
    /// What is logged; none: everything.
    pub(crate) filter: Option<LogFilter>,
}

/// How a line looks.
#[derive(Debug)]
pub(crate) enum LogFormat {
    /// Text, with `missing` in the place of what is missing.
    Text(Format, &'static str),
    /// A JSON object; whether what is missing is left out.
    Json(JsonFormat, bool),
}

/// A value of a JSON line.
#[derive(Debug)]
pub(crate) enum JsonFormat {
    /// A format string.
    Text(Format),
    /// The same always.
    Fixed(serde_json::Value),
    /// An object.
    Object(Vec<(String, JsonFormat)>),
    /// A list.
    List(Vec<JsonFormat>),
}

impl AccessLog {
    /// Logs what has ended.
    pub(crate) fn log(&self, context: &Context<'_>) {
        if self.filter.as_ref().is_none_or(|filter| filter.passes(context)) {
            self.sink.write(self.format.line(context));
        }
    }

    /// Whether it needs the request's headers.
    pub(crate) fn asks_for_request_headers(&self) -> bool {
        self.format.asks_for_request_headers() || self.filter.as_ref().is_some_and(LogFilter::asks_for_request_headers)
    }
}

impl LogFormat {
    fn line(&self, context: &Context<'_>) -> String {
        match self {
            LogFormat::Text(format, missing) => format.text(context, missing),
            LogFormat::Json(format, omit) => {
                let mut line = format.value(context, *omit).to_string();
                line.push('\n');
                line
            }
        }
    }

    fn asks_for_request_headers(&self) -> bool {
        match self {
            LogFormat::Text(format, _) => format.asks_for_request_headers(),
            LogFormat::Json(format, _) => format.asks_for_request_headers(),
        }
    }
}

impl JsonFormat {
    fn value(&self, context: &Context<'_>, omit: bool) -> serde_json::Value {
        match self {
            JsonFormat::Text(format) => format.json(context, if omit { "" } else { "-" }),
            JsonFormat::Fixed(value) => value.clone(),
            JsonFormat::Object(fields) => fields
                .iter()
                .map(|(key, value)| (key.clone(), value.value(context, omit)))
                .filter(|(_, value)| !(omit && value.is_null()))
                .collect(),
            JsonFormat::List(values) => values
                .iter()
                .map(|value| value.value(context, omit))
                .filter(|value| !(omit && value.is_null()))
                .collect(),
        }
    }

    fn asks_for_request_headers(&self) -> bool {
        match self {
            JsonFormat::Text(format) => format.asks_for_request_headers(),
            JsonFormat::Fixed(_) => false,
            JsonFormat::Object(fields) => fields.iter().any(|(_, value)| value.asks_for_request_headers()),
            JsonFormat::List(values) => values.iter().any(JsonFormat::asks_for_request_headers),
        }
    }
}
