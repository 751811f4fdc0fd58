//! Access logs: a line for each request or TCP connection, made by Envoy's format strings.
//!
//! Workers append lines to the buffer of their file, which one thread writes. Lines that do not fit are dropped and
//! counted, so that a slow disk delays no request.

pub(crate) mod filter;
mod sink;
mod writer;

use std::cell::Cell;
use std::fmt::Write;

use super::format::{Context, Escaped, Format, Need};
use filter::LogFilter;

pub(crate) use sink::{Sink, Target};

/// Envoy's default format.
pub(crate) const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// A compiled `AccessLog`.
#[derive(Debug)]
pub(crate) struct AccessLog {
    /// Where lines are written.
    pub(crate) sink: Sink,
    /// The format of a line.
    pub(crate) format: LogFormat,
    /// Which requests are logged; `None`: all.
    pub(crate) filter: Option<LogFilter>,
}

/// The format of a line.
#[derive(Debug)]
pub(crate) enum LogFormat {
    /// Text, with `missing` for missing values.
    Text(Format, &'static str),
    /// A JSON object; and whether missing values are omitted (`omit_empty_values`).
    Json(JsonFormat, bool),
}

/// A value of a JSON line.
#[derive(Debug)]
pub(crate) enum JsonFormat {
    /// A format string.
    Text(Format),
    /// A constant.
    Fixed(serde_json::Value),
    /// An object.
    Object(Vec<(String, JsonFormat)>),
    /// A list.
    List(Vec<JsonFormat>),
}

thread_local! {
    /// This thread's line buffer.
    static LINE: Cell<String> = const { Cell::new(String::new()) };
}

impl AccessLog {
    /// Logs a finished request or connection.
    pub(crate) fn log(&self, context: &Context<'_>) {
        if self.filter.as_ref().is_none_or(|filter| filter.passes(context)) {
            let mut line = LINE.take();
            line.clear();
            self.format.write(&mut line, context);
            self.sink.write(&line);
            LINE.set(line);
        }
    }

    /// Whether the format or filter needs this.
    pub(crate) fn asks_for(&self, need: Need) -> bool {
        let filter = self.filter.as_ref().filter(|_| need == Need::RequestHeaders);
        self.format.asks_for(need) || filter.is_some_and(LogFilter::asks_for_request_headers)
    }
}

impl LogFormat {
    fn write(&self, line: &mut String, context: &Context<'_>) {
        match self {
            LogFormat::Text(format, missing) => {
                // Writing to a string cannot fail.
                let _ = format.write(line, context, missing);
            }
            LogFormat::Json(format, omit) => {
                format.write(line, context, *omit);
                line.push('\n');
            }
        }
    }

    fn asks_for(&self, need: Need) -> bool {
        match self {
            LogFormat::Text(format, _) => format.asks_for(need),
            LogFormat::Json(format, _) => format.asks_for(need),
        }
    }
}

impl JsonFormat {
    /// Writes the value; returns whether it is other than `null`.
    fn write(&self, out: &mut String, context: &Context<'_>, omit: bool) -> bool {
        let is_some = match self {
            JsonFormat::Text(format) => format.write_json(out, context, if omit { "" } else { "-" }),
            JsonFormat::Fixed(serde_json::Value::Null) => false,
            JsonFormat::Fixed(value) => {
                out.push_str(&value.to_string());
                true
            }
            JsonFormat::Object(fields) => {
                out.push('{');
                let mut elements = Elements::new(out, omit);
                for (key, value) in fields {
                    elements.add(|out| {
                        // Writing to a string cannot fail.
                        let _ = Escaped::quoted(out, |out| out.write_str(key));
                        out.push(':');
                        value.write(out, context, omit)
                    });
                }
                out.push('}');
                true
            }
            JsonFormat::List(values) => {
                out.push('[');
                let mut elements = Elements::new(out, omit);
                values
                    .iter()
                    .for_each(|value| elements.add(|out| value.write(out, context, omit)));
                out.push(']');
                true
            }
        };
        if !is_some {
            out.push_str("null");
        }
        is_some
    }

    fn asks_for(&self, need: Need) -> bool {
        match self {
            JsonFormat::Text(format) => format.asks_for(need),
            JsonFormat::Fixed(_) => false,
            JsonFormat::Object(fields) => fields.iter().any(|(_, value)| value.asks_for(need)),
            JsonFormat::List(values) => values.iter().any(|value| value.asks_for(need)),
        }
    }
}

/// The elements of an object or array, separated by commas.
struct Elements<'a> {
    out: &'a mut String,
    omit: bool,
    first: bool,
}

impl<'a> Elements<'a> {
    fn new(out: &'a mut String, omit: bool) -> Self {
        Self { out, omit, first: true }
    }

    /// Adds an element; `write` returns whether it is other than `null`.
    fn add(&mut self, write: impl FnOnce(&mut String) -> bool) {
        let before = self.out.len();
        if !self.first {
            self.out.push(',');
        }
        match write(self.out) || !self.omit {
            true => self.first = false,
            false => self.out.truncate(before),
        }
    }
}
