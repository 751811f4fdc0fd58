//! Header additions and removals of the configuration (`request_headers_to_add` and the like).

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::proxy::format::{Context, Format};

/// Additions and removals of one level, compiled.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderOps {
    /// Additions, in order.
    pub(crate) add: Vec<HeaderAddition>,
    /// Removals, applied before the additions.
    pub(crate) remove: Vec<HeaderName>,
    /// Whether an addition refers to request headers.
    pub(crate) of_request: bool,
}

/// Which headers are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageKind {
    /// A request's.
    Request,
    /// Those of its response.
    Response,
}

/// One addition (`core.v3.HeaderValueOption`).
#[derive(Clone, Debug)]
pub(crate) struct HeaderAddition {
    /// The header.
    pub(crate) name: HeaderName,
    /// Its value.
    pub(crate) value: HeaderText,
    /// What happens if the header is present.
    pub(crate) action: AppendAction,
    /// `keep_empty_value`: whether it is added even if the value is empty.
    pub(crate) keep_empty: bool,
}

/// The value of an addition.
#[derive(Clone, Debug)]
pub(crate) enum HeaderText {
    /// Without substitutions.
    Fixed(HeaderValue),
    /// With substitutions.
    Format(Format),
}

/// What happens to a header that is present (`HeaderAppendAction`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AppendAction {
    /// Another value is added.
    Append,
    /// Nothing is added.
    IfAbsent,
    /// The value is replaced, or added.
    Overwrite,
    /// The value is replaced; nothing is added if there was none.
    OverwriteIfExists,
}

impl HeaderOps {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }

    /// The first header whose value has substitutions.
    pub(crate) fn first_format(&self) -> Option<usize> {
        let is_format = |addition: &HeaderAddition| matches!(addition.value, HeaderText::Format(_));
        self.add.iter().position(is_format)
    }

    /// Applies those without substitutions.
    pub(crate) fn apply_fixed(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for addition in &self.add {
            if let HeaderText::Fixed(value) = &addition.value {
                addition.put(headers, value.clone());
            }
        }
    }

    /// Applies them.
    pub(crate) fn apply(&self, headers: &mut HeaderMap, of: MessageKind, context: &Context<'_>) {
        for name in &self.remove {
            headers.remove(name);
        }
        for addition in &self.add {
            addition.apply(headers, of, context);
        }
    }
}

impl HeaderAddition {
    fn apply(&self, headers: &mut HeaderMap, of: MessageKind, context: &Context<'_>) {
        let value = match &self.value {
            HeaderText::Fixed(value) => value.clone(),
            HeaderText::Format(format) => {
                let mut context = *context;
                match of {
                    MessageKind::Request => context.request_headers = Some(headers),
                    MessageKind::Response => context.response_headers = Some(headers),
                }
                let text = format.header_value(&context);
                // Values substituted from headers are valid; anything else that is not is left out.
                match HeaderValue::from_bytes(text.as_bytes()) {
                    Ok(value) => value,
                    Err(_) => return,
                }
            }
        };
        self.put(headers, value);
    }

    fn put(&self, headers: &mut HeaderMap, value: HeaderValue) {
        if value.is_empty() && !self.keep_empty {
            return;
        }
        match self.action {
            AppendAction::Append => drop(headers.append(&self.name, value)),
            AppendAction::IfAbsent => drop(headers.entry(&self.name).or_insert(value)),
            AppendAction::Overwrite => drop(headers.insert(&self.name, value)),
            AppendAction::OverwriteIfExists => {
                if headers.contains_key(&self.name) {
                    headers.insert(&self.name, value);
                }
            }
        }
    }
}
