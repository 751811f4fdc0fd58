//! Changes to headers that configuration asks for.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::proxy::format::{Context, Format};

/// Additions and removals, compiled once.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderOps {
    /// Additions, in order.
    pub(crate) add: Vec<HeaderAddition>,
    /// Removals, before the additions.
    pub(crate) remove: Vec<HeaderName>,
    /// Whether an addition draws on the headers of the request.
    pub(crate) of_request: bool,
}

/// Whose headers are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
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
    /// What happens if it is there already.
    pub(crate) action: AppendAction,
    /// Adds it even if the value turns out empty.
    pub(crate) keep_empty: bool,
}

/// The value of an addition.
#[derive(Clone, Debug)]
pub(crate) enum HeaderText {
    /// The same for every request.
    Fixed(HeaderValue),
    /// Made of what is known of the request.
    Format(Format),
}

/// What happens to a header that is there already (`HeaderAppendAction`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AppendAction {
    /// One more value.
    Append,
    /// Nothing is added.
    IfAbsent,
    /// It is replaced; added if it is not there.
    Overwrite,
    /// It is replaced only if it is there.
    OverwriteIfExists,
}

impl HeaderOps {
    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }

    /// Carries them out.
    pub(crate) fn apply(&self, headers: &mut HeaderMap, of: Of, context: &Context<'_>) {
        for name in &self.remove {
            headers.remove(name);
        }
        for addition in &self.add {
            addition.apply(headers, of, context);
        }
    }
}

impl HeaderAddition {
    fn apply(&self, headers: &mut HeaderMap, of: Of, context: &Context<'_>) {
        let value = match &self.value {
            HeaderText::Fixed(value) => value.clone(),
            HeaderText::Format(format) => {
                let mut context = *context;
                match of {
                    Of::Request => context.request_headers = Some(headers),
                    Of::Response => context.response_headers = Some(headers),
                }
                let text = format.header_value(&context);
                // What a peer sent cannot hold what a header may not: it came in one.
                match HeaderValue::from_bytes(text.as_bytes()) {
                    Ok(value) => value,
                    Err(_) => return,
                }
            }
        };
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
