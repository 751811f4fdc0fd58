//! Paths to values within an object, such as `spec.http[0].match[0].headers["x-a"]`.

use std::fmt;
use std::sync::Arc;

/// A path from an object to one of its values. A persistent linked list: cheap to clone and extend
/// while walking an object.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct FieldPath(Option<Arc<Step>>);

#[derive(PartialEq, Eq, Hash)]
struct Step {
    parent: FieldPath,
    segment: Segment,
}

/// An element of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// A field, by its camelCase name in Istio or Kubernetes.
    Field(Box<str>),
    /// An element of a list.
    Index(usize),
    /// An entry of a map with user-defined keys, such as headers.
    Key(Box<str>),
}

impl FieldPath {
    /// The empty path: the object itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// A field of the value at this path.
    #[must_use]
    pub fn field(&self, name: impl Into<Box<str>>) -> Self {
        self.step(Segment::Field(name.into()))
    }

    /// An element of the list at this path.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.step(Segment::Index(index))
    }

    /// An entry of the map at this path.
    #[must_use]
    pub fn key(&self, key: impl Into<Box<str>>) -> Self {
        self.step(Segment::Key(key.into()))
    }

    /// Appends `rest` to this path.
    #[must_use]
    pub fn join(&self, rest: &FieldPath) -> Self {
        let steps = rest.segments().into_iter();
        steps.fold(self.clone(), |path, segment| path.step(segment.clone()))
    }

    /// The elements, outermost first.
    pub fn segments(&self) -> Vec<&Segment> {
        let mut segments = Vec::new();
        let mut at = self;
        while let Some(step) = &at.0 {
            segments.push(&step.segment);
            at = &step.parent;
        }
        segments.reverse();
        segments
    }

    fn step(&self, segment: Segment) -> Self {
        Self(Some(Arc::new(Step {
            parent: self.clone(),
            segment,
        })))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.segments().into_iter().enumerate() {
            match segment {
                Segment::Field(name) if at == 0 => f.write_str(name)?,
                Segment::Field(name) => write!(f, ".{name}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) => write!(f, "[{key:?}]")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl From<&FieldPath> for FieldPath {
    fn from(path: &FieldPath) -> Self {
        path.clone()
    }
}

impl From<&str> for FieldPath {
    /// Parses the `Display` form. Anything else is taken as a field name.
    fn from(text: &str) -> Self {
        let mut path = Self::root();
        let mut rest = text;
        while !rest.is_empty() {
            let (next, tail) = read_bracket(rest, &path).unwrap_or_else(|| read_field(rest, &path));
            path = next;
            rest = tail;
        }
        path
    }
}

/// `.name` or `name`, up to the next dot or bracket.
fn read_field<'t>(text: &'t str, path: &FieldPath) -> (FieldPath, &'t str) {
    let text = text.strip_prefix('.').unwrap_or(text);
    let end = text
        .char_indices()
        .find(|(at, c)| *at > 0 && matches!(c, '.' | '['))
        .map_or(text.len(), |(at, _)| at);
    (path.field(&text[..end]), &text[end..])
}

/// `[0]` or `["key"]`.
fn read_bracket<'t>(text: &'t str, path: &FieldPath) -> Option<(FieldPath, &'t str)> {
    let inner = text.strip_prefix('[')?;
    let Some(quoted) = inner.strip_prefix('"') else {
        let (index, tail) = inner.split_once(']')?;
        return Some((path.index(index.parse().ok()?), tail));
    };
    let end = quoted.find("\"]")?;
    Some((path.key(&quoted[..end]), &quoted[end + 2..]))
}

/// Whether `key` denotes the field, in camelCase (`httpStatus`) or the original protobuf name
/// (`http_status`), which Istio accepts as well.
pub(super) fn is_field(key: &str, field: &str) -> bool {
    if key == field {
        return true;
    }
    let mut at_word = false;
    let camel_case = key.chars().filter_map(|c| {
        let starts_word = std::mem::replace(&mut at_word, c == '_');
        (c != '_').then(|| if starts_word { c.to_ascii_uppercase() } else { c })
    });
    key.contains('_') && camel_case.eq(field.chars())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_and_parsing_round_trip() {
        let path = FieldPath::root()
            .field("spec")
            .field("http")
            .index(0)
            .field("match")
            .index(12)
            .field("headers")
            .key("x-a.b[0]");
        let text = r#"spec.http[0].match[12].headers["x-a.b[0]"]"#;
        assert_eq!(path.to_string(), text);
        assert_eq!(FieldPath::from(text), path);
        assert_eq!(
            FieldPath::from("items[3]").join(&"spec.http".into()),
            "items[3].spec.http".into()
        );
    }

    #[test]
    fn fields_match_camel_case_and_proto_names() {
        assert!(is_field("httpStatus", "httpStatus") && is_field("http_status", "httpStatus"));
        assert!(is_field("consecutive_5xx_errors", "consecutive5xxErrors"));
        assert!(is_field("mesh_mTLS", "meshMTLS"));
        assert!(!is_field("httpstatus", "httpStatus") && !is_field("http", "https"));
    }

    #[test]
    fn reads_anything() {
        for odd in ["", ".", "..", "[", "[x]", "[\"", "a[", "a[0", "ü.[é", "a..b"] {
            let _ = FieldPath::from(odd).to_string();
        }
    }
}
