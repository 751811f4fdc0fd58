//! `envoy.filters.http.set_filter_state`, for `envoy.network.application_protocols` only.

use std::sync::Arc;

use crate::proxy::config::{At, Compiled, Refusal};
use crate::xds::pb::core::data_source::Specifier;
use crate::xds::pb::core::substitution_format_string::Format;
use crate::xds::pb::filter_state::FilterStateValue;
use crate::xds::pb::filter_state::filter_state_value;
use crate::xds::pb::http_filter::set_filter_state::Config;

const UPSTREAM_ALPN: &str = "envoy.network.application_protocols";

/// The protocols, set under the one supported key.
pub(super) fn upstream_alpn(message: &Config) -> Compiled<Arc<[Vec<u8>]>> {
    let [value] = &message.on_request_headers[..] else {
        return Err(Refusal::not_implemented("other than one value").within("on_request_headers"));
    };
    let text = protocols(value).at("on_request_headers[0]")?;
    Ok(text
        .split(',')
        .map(|protocol| protocol.trim().as_bytes().to_vec())
        .collect())
}

fn protocols(value: &FilterStateValue) -> Compiled<&str> {
    match &value.key {
        Some(filter_state_value::Key::ObjectKey(key)) if key == UPSTREAM_ALPN => {}
        Some(_) | None => {
            return Err(Refusal::not_implemented(
                "another key than `envoy.network.application_protocols`",
            ));
        }
    }
    let Some(filter_state_value::Value::FormatString(format)) = &value.value else {
        return Err(Refusal::new("a format string is required"));
    };
    match &format.format {
        Some(Format::TextFormatSource(source)) => match &source.specifier {
            Some(Specifier::InlineString(text)) if !text.contains('%') => Ok(text),
            Some(_) | None => Err(Refusal::not_implemented("other than a plain text")),
        },
        Some(_) | None => Err(Refusal::not_implemented("other than text_format_source")),
    }
}
