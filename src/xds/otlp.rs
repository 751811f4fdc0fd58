//! OTLP trace export (`opentelemetry.proto.collector.trace.v1`).
//!
//! The messages are defined by hand, because the `envoy-types` crate only includes OpenTelemetry's
//! common package.

use bytes::Bytes;
use prost::Message;

/// gRPC method of the collector's trace service.
pub const EXPORT_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// `ExportTraceServiceRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct ExportRequest {
    /// Spans by resource.
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

/// Spans of one resource.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceSpans {
    /// The process that produced them.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// Its spans.
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
}

/// The entity that produces spans, here a process.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// Its attributes.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<Attribute>,
}

/// Spans of one instrumentation scope.
#[derive(Clone, PartialEq, Message)]
pub struct ScopeSpans {
    /// The scope.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    /// Its spans.
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
}

/// Instrumentation scope (`InstrumentationScope`): the library that produces spans.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Scope {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// An attribute (`KeyValue`).
#[derive(Clone, PartialEq, Message)]
pub struct Attribute {
    /// The name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AttributeValue>,
}

/// An attribute value (`AnyValue`); only strings are needed.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AttributeValue {
    /// String value.
    #[prost(string, optional, tag = "1")]
    pub string_value: Option<String>,
}

/// A span.
#[derive(Clone, PartialEq, Message)]
pub struct Span {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub trace_id: Bytes,
    /// 8 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub span_id: Bytes,
    /// W3C `tracestate`.
    #[prost(string, tag = "3")]
    pub trace_state: String,
    /// 8 bytes; empty for a root span.
    #[prost(bytes = "bytes", tag = "4")]
    pub parent_span_id: Bytes,
    /// Name of the operation.
    #[prost(string, tag = "5")]
    pub name: String,
    /// [`Kind`].
    #[prost(enumeration = "Kind", tag = "6")]
    pub kind: i32,
    /// Start time in nanoseconds since the Unix epoch.
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    /// End time in nanoseconds since the Unix epoch.
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    /// Attributes.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<Attribute>,
    /// Status; absent means unset.
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
    /// W3C trace flags, and whether the parent is remote: see [`flags`].
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

/// Status of a span.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Status {
    /// Status code: 1 OK, 2 error.
    #[prost(int32, tag = "3")]
    pub code: i32,
}

/// `STATUS_CODE_ERROR`.
pub const STATUS_ERROR: i32 = 2;

/// Kind of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Kind {
    /// Unspecified.
    Unspecified = 0,
    /// Internal operation.
    Internal = 1,
    /// Server side of a call.
    Server = 2,
    /// Client side of a call.
    Client = 3,
}

/// `SpanFlags` of a sampled span; `remote_parent` tells whether its parent is in another process.
pub fn flags(remote_parent: bool) -> u32 {
    const SAMPLED: u32 = 0x1;
    const HAS_IS_REMOTE: u32 = 0x100;
    const IS_REMOTE: u32 = 0x200;
    SAMPLED | HAS_IS_REMOTE | if remote_parent { IS_REMOTE } else { 0 }
}

/// A string attribute.
pub fn text(key: impl Into<String>, value: impl Into<String>) -> Attribute {
    Attribute {
        key: key.into(),
        value: Some(AttributeValue {
            string_value: Some(value.into()),
        }),
    }
}

/// Encodes an export request with spans of one process.
pub fn encode(resource: &[Attribute], scope: Option<&Scope>, spans: Vec<Span>) -> Vec<u8> {
    let request = ExportRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: resource.to_vec(),
            }),
            scope_spans: vec![ScopeSpans {
                scope: scope.cloned(),
                spans,
            }],
        }],
    };
    request.encode_to_vec()
}
