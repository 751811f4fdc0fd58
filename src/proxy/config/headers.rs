//! Compiling header changes.

use http::header::{HeaderName, HeaderValue};

use super::{At, Compiled, Refusal};
use crate::proxy::format::{Format, Need};
use crate::proxy::http::header_ops::{AppendAction, HeaderAddition, HeaderOps, HeaderText};
use crate::xds::pb::core::HeaderValueOption;
use crate::xds::pb::core::header_value_option::HeaderAppendAction;

/// Compiles the fields `<which>_headers_to_add` and `<which>_headers_to_remove`.
pub(crate) fn ops(which: &str, add: &[HeaderValueOption], remove: &[String]) -> Compiled<HeaderOps> {
    let add = add
        .iter()
        .enumerate()
        .map(|(index, option)| addition(option).at_index(&format!("{which}_headers_to_add"), index));
    let remove = remove
        .iter()
        .enumerate()
        .map(|(index, name)| changeable(name).at_index(&format!("{which}_headers_to_remove"), index));
    let add: Vec<HeaderAddition> = add.collect::<Compiled<_>>()?;
    Ok(HeaderOps {
        of_request: add.iter().any(asks_for_request_headers),
        add,
        remove: remove.collect::<Compiled<_>>()?,
    })
}

fn addition(option: &HeaderValueOption) -> Compiled<HeaderAddition> {
    let header = option
        .header
        .as_ref()
        .ok_or_else(|| Refusal::new("a header is required"))?;
    let action = match option.append_action() {
        HeaderAppendAction::AppendIfExistsOrAdd => AppendAction::Append,
        HeaderAppendAction::AddIfAbsent => AppendAction::IfAbsent,
        HeaderAppendAction::OverwriteIfExistsOrAdd => AppendAction::Overwrite,
        HeaderAppendAction::OverwriteIfExists => AppendAction::OverwriteIfExists,
    };
    Ok(HeaderAddition {
        name: changeable(&header.key).at("header.key")?,
        value: text(&header.value).at("header.value")?,
        action,
        keep_empty: option.keep_empty_value,
    })
}

fn asks_for_request_headers(addition: &HeaderAddition) -> bool {
    match &addition.value {
        HeaderText::Fixed(_) => false,
        HeaderText::Format(format) => format.asks_for(Need::RequestHeaders),
    }
}

/// The name of a header that may be changed, which pseudo-headers and `host` are not.
fn changeable(name: &str) -> Compiled<HeaderName> {
    name_of(name).and_then(|header| match header == http::header::HOST {
        true => Err(Refusal::new("`host` can only be changed by the route's host rewrite")),
        false => Ok(header),
    })
}

/// A header name.
pub(crate) fn name_of(name: &str) -> Compiled<HeaderName> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Refusal::new(format!("`{name}` is not allowed as a header here")))
}

/// A constant header.
pub(crate) fn fixed(name: &str, value: &str) -> Compiled<(HeaderName, HeaderValue)> {
    if value.contains('%') {
        return Err(Refusal::not_implemented("a format string here"));
    }
    let text = HeaderValue::from_str(value);
    let text = text.map_err(|_| Refusal::new(format!("`{value}` is not a valid header value")))?;
    Ok((name_of(name)?, text))
}

fn text(value: &str) -> Compiled<HeaderText> {
    if value.contains('%') {
        return Ok(HeaderText::Format(Format::parse(value)?));
    }
    let value =
        HeaderValue::from_str(value).map_err(|_| Refusal::new(format!("`{value}` is not a valid header value")))?;
    Ok(HeaderText::Fixed(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::pb::core::HeaderValue;

    #[test]
    fn the_host_is_not_changed_like_a_header() {
        let add = |name: &str| HeaderValueOption {
            header: Some(HeaderValue {
                key: name.into(),
                value: "a".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let refused =
            |add: &[HeaderValueOption], remove: &[String]| ops("request", add, remove).unwrap_err().to_string();
        for name in ["host", "Host", "HOST"] {
            let why = "`host` can only be changed by the route's host rewrite";
            let added = refused(&[add("x-a"), add(name)], &[]);
            assert_eq!(added, format!("request_headers_to_add[1].header.key: {why}"));
            let removed = refused(&[], &[name.into()]);
            assert_eq!(removed, format!("request_headers_to_remove[0]: {why}"));
        }
        assert!(refused(&[add(":authority")], &[]).contains("is not allowed as a header here"));
        assert!(ops("request", &[add("x-host")], &["hosts".into()]).is_ok());
    }
}
