//! Compiles Envoy's messages into what workers use: one file for each resource and each filter.
//!
//! Everything is validated and compiled here, once: regular expressions, header names, format strings, indexes. A
//! message that Envoy would reject, or that needs something not implemented, is refused with the name of the field.

pub(crate) mod access_log;
pub(crate) mod bootstrap;
pub(crate) mod chain;
pub(crate) mod check;
pub(crate) mod cluster;
mod coverage;
pub(crate) mod credential;
pub(crate) mod endpoints;
pub(crate) mod filter;
pub(crate) mod headers;
pub(crate) mod http;
pub(crate) mod listener;
pub(crate) mod matcher;
pub(crate) mod names;
pub(crate) mod route;
pub(crate) mod server;
pub(crate) mod source;
pub(crate) mod stats;
pub(crate) mod tcp;
pub(crate) mod tls;
pub(crate) mod trace;
pub(crate) mod value;

use std::fmt;

use prost::Message;

use crate::xds::ResourceType;

pub(crate) use names::Names;

/// Decodes a resource, after checking it against Envoy's validation rules and for fields that would be ignored.
fn read<M: Message + Default>(kind: ResourceType, bytes: &[u8]) -> Compiled<M> {
    check::resource(kind, bytes)?;
    Ok(M::decode(bytes)?)
}

/// Checks that a resource has the name it was sent under.
pub(crate) fn same_name(called: &str, own: &str) -> Compiled<()> {
    if called == own {
        return Ok(());
    }
    Err(Refusal::new(format!("`{own}` is sent under the name `{called}`")))
}

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// At least one.
    mistakes: Vec<Mistake>,
}

/// A field, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mistake {
    /// The path of the field, innermost last.
    path: Vec<String>,
    why: String,
}

/// The result of compiling a message.
pub(crate) type Compiled<T> = Result<T, Refusal>;

impl Refusal {
    /// For the message itself.
    pub(crate) fn new(why: impl Into<String>) -> Self {
        let mistake = Mistake {
            path: Vec::new(),
            why: why.into(),
        };
        Self {
            mistakes: vec![mistake],
        }
    }

    /// Combines refusals.
    ///
    /// # Errors
    /// All of them as one, if there are any.
    pub(crate) fn none_of(refusals: impl IntoIterator<Item = Refusal>) -> Compiled<()> {
        let mistakes: Vec<_> = refusals.into_iter().flat_map(|refusal| refusal.mistakes).collect();
        match mistakes.is_empty() {
            true => Ok(()),
            false => Err(Self { mistakes }),
        }
    }

    /// For a value that is not implemented.
    pub(crate) fn not_implemented(what: impl fmt::Display) -> Self {
        Self::new(format!("{what} is not implemented"))
    }

    /// The fields at fault.
    fn paths(&self) -> impl Iterator<Item = String> {
        self.mistakes.iter().map(|mistake| mistake.path.join("."))
    }

    /// The fields at fault, and why.
    pub(crate) fn into_parts(self) -> impl Iterator<Item = (String, String)> {
        let parts = |mistake: Mistake| (mistake.path.join("."), mistake.why);
        self.mistakes.into_iter().map(parts)
    }

    /// Prefixes the paths with the name of the enclosing field.
    pub(crate) fn within(mut self, field: impl Into<String>) -> Self {
        let field = field.into();
        for mistake in &mut self.mistakes {
            mistake.path.insert(0, field.clone());
        }
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.mistakes.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            if !mistake.path.is_empty() {
                write!(f, "{}: ", mistake.path.join("."))?;
            }
            f.write_str(&mistake.why)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// Collects results.
///
/// # Errors
/// All refusals as one, if there are any.
fn all<T, A: FromIterator<T>>(compiled: impl IntoIterator<Item = Compiled<T>>) -> Compiled<A> {
    let mut refused = Vec::new();
    let fine = compiled
        .into_iter()
        .filter_map(|one| one.map_err(|refusal| refused.push(refusal)).ok())
        .collect();
    Refusal::none_of(refused)?;
    Ok(fine)
}

/// Compiles a resource only to see whether it is accepted.
pub(crate) fn try_out(kind: ResourceType, bytes: &[u8]) -> Compiled<()> {
    check::resource(kind, bytes)?;
    let mut names = Names::default();
    match kind {
        ResourceType::Cluster => drop(cluster::cluster(&Message::decode(bytes)?, &mut names)?),
        ResourceType::Endpoints => drop(endpoints::endpoints(&Message::decode(bytes)?)?),
        ResourceType::Listener => drop(listener::listener(&Message::decode(bytes)?, &mut names)?),
        ResourceType::Route => drop(route::table(&Message::decode(bytes)?, &mut names)?),
        // A secret is checked when its content arrives.
        ResourceType::Secret => {}
    }
    Ok(())
}

/// Adds the field's name to a refusal.
pub(crate) trait At<T> {
    /// See [`Refusal::within`].
    fn at(self, field: &str) -> Compiled<T>;
    /// The same for an element of a list.
    fn at_index(self, field: &str, index: usize) -> Compiled<T>;
}

impl<T, E: Into<Refusal>> At<T> for Result<T, E> {
    fn at(self, field: &str) -> Compiled<T> {
        self.map_err(|error| error.into().within(field))
    }

    fn at_index(self, field: &str, index: usize) -> Compiled<T> {
        self.map_err(|error| error.into().within(format!("{field}[{index}]")))
    }
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self::new(why)
    }
}

impl From<regex::Error> for Refusal {
    fn from(error: regex::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<prost::DecodeError> for Refusal {
    fn from(error: prost::DecodeError) -> Self {
        Self::new(format!("it cannot be decoded: {error}"))
    }
}
