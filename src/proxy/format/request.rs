//! Parts of the request path and durations in format strings.

use std::borrow::Cow;
use std::time::Duration;

use super::{Context, Value};
use crate::proxy::connection::Timing;

/// `%PATH(…)%`.
#[derive(Clone, Copy, Debug)]
pub(super) struct PathSource {
    with_query: bool,
    original: Original,
}

/// Which path is meant.
#[derive(Clone, Copy, Debug)]
enum Original {
    /// `ORIG`: the client's, if it was rewritten.
    Only,
    /// `PATH`: the upstream request's.
    Never,
    /// `ORIG_OR_PATH`: the client's.
    IfRewritten,
}

impl PathSource {
    /// Parses `WQ` or `NQ`, followed by `:ORIG`, `:PATH` or `:ORIG_OR_PATH`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (query, path) = text.split_once(':').unwrap_or((text, ""));
        Ok(Self {
            with_query: match query {
                "" | "WQ" => true,
                "NQ" => false,
                other => return Err(format!("`{other}` is neither `WQ` nor `NQ`")),
            },
            original: match path {
                "ORIG" => Original::Only,
                "PATH" => Original::Never,
                "" | "ORIG_OR_PATH" => Original::IfRewritten,
                other => return Err(format!("`{other}` is not one of `ORIG`, `PATH` and `ORIG_OR_PATH`")),
            },
        })
    }

    pub(super) fn of<'a>(self, context: &Context<'a>) -> Value<'a> {
        let Some(request) = context.request else {
            return Value::None;
        };
        let original = original_path(context);
        let path = match self.original {
            Original::Only => original,
            Original::Never => Some(request.path),
            Original::IfRewritten => original.or(Some(request.path)),
        };
        match path {
            Some(path) if self.with_query => Value::Text(path.into()),
            Some(path) => Value::Text(path.split_once('?').map_or(path, |(path, _)| path).into()),
            None => Value::None,
        }
    }
}

fn original_path<'a>(context: &Context<'a>) -> Option<&'a str> {
    let value = context.request_headers?.get("x-envoy-original-path")?;
    value.to_str().ok()
}

/// A decoded query parameter of the upstream request; the first of several.
pub(super) fn query_parameter<'a>(context: &Context<'a>, name: &str) -> Value<'a> {
    let found = query(context).and_then(|query| {
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut named = pairs.filter(|(key, _)| decoded(key) == name);
        named.next().map(|(_, value)| decoded(value))
    });
    found.map_or(Value::None, Value::Text)
}

/// The query of the upstream request.
pub(super) fn query<'a>(context: &Context<'a>) -> Option<&'a str> {
    context.request?.path.split_once('?').map(|(_, query)| query)
}

/// Percent-decodes; invalid escapes stay.
fn decoded(text: &str) -> Cow<'_, str> {
    let mut parts = text.split('%');
    let Some(first) = parts.next().filter(|first| first.len() < text.len()) else {
        return text.into();
    };
    let mut bytes = first.as_bytes().to_vec();
    for part in parts {
        let escaped = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let rest = match escaped {
            Some(byte) => {
                bytes.push(byte);
                &part[2..]
            }
            None => {
                bytes.push(b'%');
                part
            }
        };
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// `%COMMON_DURATION(…)%`.
#[derive(Clone, Copy, Debug)]
pub(super) struct DurationSource {
    begin: TimePoint,
    end: TimePoint,
    /// The unit in nanoseconds.
    unit: u128,
}

/// An event of a stream.
#[derive(Clone, Copy, Debug)]
enum TimePoint {
    /// The first byte of the request was received.
    Start,
    /// The last byte of the request was received.
    RequestReceived,
    /// The first byte of the response was received.
    Answered,
    /// The first byte was sent to the client.
    FirstSent,
    /// The last byte was sent to the client.
    LastSent,
}

impl DurationSource {
    /// Parses `BEGIN:END` followed by `:ms`, `:us` or `:ns`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split(':').collect();
        let (begin, end, unit) = match parts[..] {
            [begin, end] => (begin, end, "ms"),
            [begin, end, unit] => (begin, end, unit),
            _ => return Err(format!("`{text}` is not `BEGIN:END:UNIT`")),
        };
        Ok(Self {
            begin: TimePoint::parse(begin)?,
            end: TimePoint::parse(end)?,
            unit: match unit {
                "ms" => 1_000_000,
                "us" => 1_000,
                "ns" => 1,
                other => return Err(format!("`{other}` is not a time unit: expected `ms`, `us` or `ns`")),
            },
        })
    }

    pub(super) fn of(self, context: &Context<'_>) -> Value<'static> {
        let timing = &context.stream.timing;
        let took = self
            .end
            .of(timing)
            .zip(self.begin.of(timing))
            .and_then(|(end, begin)| end.checked_sub(begin));
        took.map_or(Value::None, |took| {
            Value::Number(u64::try_from(took.as_nanos() / self.unit).unwrap_or(u64::MAX))
        })
    }
}

impl TimePoint {
    fn parse(name: &str) -> Result<Self, String> {
        Ok(match name {
            "DS_RX_BEG" => TimePoint::Start,
            "DS_RX_END" => TimePoint::RequestReceived,
            "US_RX_BEG" => TimePoint::Answered,
            "DS_TX_BEG" => TimePoint::FirstSent,
            "DS_TX_END" => TimePoint::LastSent,
            "US_CX_BEG" | "US_CX_END" | "US_HS_END" | "US_TX_BEG" | "US_TX_END" | "US_RX_BODY_BEG" | "US_RX_END" => {
                return Err(format!("`{name}` is not implemented"));
            }
            other => return Err(format!("unknown time point `{other}`")),
        })
    }

    fn of(self, timing: &Timing) -> Option<Duration> {
        match self {
            TimePoint::Start => Some(Duration::ZERO),
            TimePoint::RequestReceived => timing.request_received,
            TimePoint::Answered => timing.upstream_first_rx,
            TimePoint::FirstSent => timing.downstream_first_tx,
            TimePoint::LastSent => timing.downstream_last_tx,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_what_they_stand_for() {
        for (text, wanted) in [
            ("plain", "plain"),
            ("a%20b%2fc", "a b/c"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("%C3%A4", "\u{e4}"),
            ("%\u{e4}", "%\u{e4}"),
        ] {
            assert_eq!(decoded(text), wanted);
        }
    }
}
