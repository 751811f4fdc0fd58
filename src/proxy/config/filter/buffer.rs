//! `envoy.filters.http.buffer`.

use crate::proxy::config::{Compiled, Refusal};
use crate::proxy::http::filter::buffer::BufferLimit;
use crate::xds::pb::http_filter::buffer::buffer_per_route::Override;
use crate::xds::pb::http_filter::buffer::{Buffer, BufferPerRoute};

/// Compiles a `Buffer`.
pub(super) fn limit(message: &Buffer) -> Compiled<BufferLimit> {
    let max = message.max_request_bytes.as_ref();
    let max = max.ok_or_else(|| Refusal::new("max_request_bytes is required"))?;
    Ok(BufferLimit {
        max_bytes: max.value as usize,
    })
}

/// Compiles a `BufferPerRoute`: another limit, or `None` if disabled.
pub(super) fn per_route(message: &BufferPerRoute) -> Compiled<Option<BufferLimit>> {
    match message.r#override.as_ref() {
        Some(Override::Disabled(true)) => Ok(None),
        Some(Override::Buffer(buffer)) => limit(buffer).map(Some),
        Some(Override::Disabled(false)) | None => Err(Refusal::new("a limit, or `disabled: true`, is required")),
    }
}
