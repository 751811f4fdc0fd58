//! W3C trace context: `traceparent` and `tracestate`.

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header with trace, span and flags.
pub(crate) const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header with vendor-specific data.
pub(crate) const TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");

/// The position of a request in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceContext {
    /// The trace id.
    pub(crate) trace: u128,
    /// The span id.
    pub(crate) span: u64,
    /// The sampled flag.
    pub(crate) sampled: bool,
}

impl TraceContext {
    /// Parses a `traceparent`; `None` if it is malformed. As in Envoy, later versions are parsed as version 00.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut part = |len| parts.next().filter(|part| part.len() == len && is_hex(part));
        let (_version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        if parts.next().is_some() {
            return None;
        }
        let context = Self {
            trace: u128::from_str_radix(trace, 16).ok()?,
            span: u64::from_str_radix(span, 16).ok()?,
            sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        };
        (context.trace != 0 && context.span != 0).then_some(context)
    }

    /// Writes it into headers.
    pub(crate) fn inject(&self, state: &str, headers: &mut HeaderMap) {
        let mut text = String::with_capacity(55);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace,
            self.span,
            u8::from(self.sampled)
        );
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(TRACE_PARENT, value);
        }
        if let Ok(value) = HeaderValue::from_str(state) {
            headers.insert(TRACE_STATE, value);
        }
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// All lines of `tracestate`, joined.
pub(crate) fn trace_state(headers: &HeaderMap) -> String {
    let lines = headers.get_all(TRACE_STATE).iter();
    let lines: Vec<_> = lines.filter_map(|line| line.to_str().ok()).collect();
    lines.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_read_is_written_again() {
        let context = TraceContext::parse(GOOD).unwrap();
        assert!(context.sampled);
        let mut headers = HeaderMap::new();
        context.inject("a=b", &mut headers);
        assert_eq!(headers[TRACE_PARENT], GOOD);
        assert_eq!(headers[TRACE_STATE], "a=b");
        let unsampled = TraceContext {
            sampled: false,
            ..context
        };
        unsampled.inject("", &mut headers);
        assert!(headers[TRACE_PARENT].to_str().unwrap().ends_with("-00"));
        assert_eq!(headers[TRACE_STATE], "");
    }

    #[test]
    fn what_is_malformed_is_none() {
        for bad in [
            "",
            "junk",
            &GOOD[..54],
            &format!("{GOOD}-00"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
        assert!(!TraceContext::parse(&GOOD.replace("-01", "-02")).unwrap().sampled);
    }

    #[test]
    fn several_lines_of_state_are_one() {
        let mut headers = HeaderMap::new();
        headers.append(TRACE_STATE, HeaderValue::from_static("a=b"));
        headers.append(TRACE_STATE, HeaderValue::from_static("c=d"));
        assert_eq!(trace_state(&headers), "a=b,c=d");
    }

    proptest::proptest! {
        #[test]
        fn nothing_does_harm(text in ".{0,60}") {
            TraceContext::parse(&text);
        }
    }
}
