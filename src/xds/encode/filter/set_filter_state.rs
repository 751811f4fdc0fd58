//! `envoy.filters.http.set_filter_state`, in place of Istio's `istio.alpn` filter.

use crate::xds::pb::core::SubstitutionFormatString;
use crate::xds::pb::core::data_source::Specifier;
use crate::xds::pb::core::{DataSource, substitution_format_string::Format};
use crate::xds::pb::filter_state::FilterStateValue;
use crate::xds::pb::filter_state::filter_state_value::{Key, Value};
use crate::xds::pb::http_filter::set_filter_state::Config;

pub(super) const NAME: &str = "envoy.filters.http.set_filter_state";

/// Filter state that overrides the ALPN of Envoy's upstream TLS; connection pools are separate per
/// value. The object factory has the same key.
const UPSTREAM_ALPN: &str = "envoy.network.application_protocols";

/// Overrides the ALPN protocols offered upstream.
pub(super) fn upstream_alpn(protocols: &[&str]) -> Config {
    let source = DataSource {
        specifier: Some(Specifier::InlineString(protocols.join(","))),
        ..Default::default()
    };
    let format = SubstitutionFormatString {
        format: Some(Format::TextFormatSource(source)),
        ..Default::default()
    };
    Config {
        on_request_headers: vec![FilterStateValue {
            key: Some(Key::ObjectKey(UPSTREAM_ALPN.to_owned())),
            value: Some(Value::FormatString(format)),
            ..Default::default()
        }],
        ..Default::default()
    }
}
