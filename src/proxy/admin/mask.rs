//! Field masks (`google.protobuf.FieldMask`): which fields of a message are shown.

use serde_json::{Map, Value};

/// Field paths, each from the outermost field inwards.
#[derive(Clone, Debug)]
pub(super) struct Mask(Vec<Vec<String>>);

impl Mask {
    /// Parses `a.b,c`.
    pub(super) fn parse(text: &str) -> Self {
        let paths = text.split(',').filter(|path| !path.is_empty());
        Self(paths.map(|path| path.split('.').map(str::to_owned).collect()).collect())
    }

    /// Reduces a message to these fields. `@type` stays.
    pub(super) fn apply(&self, message: &Value) -> Value {
        let paths: Vec<&[String]> = self.0.iter().map(Vec::as_slice).collect();
        trimmed(message, &paths)
    }
}

fn trimmed(value: &Value, paths: &[&[String]]) -> Value {
    if paths.iter().any(|path| path.is_empty()) {
        return value.clone();
    }
    let Value::Object(fields) = value else {
        // As in protobuf, a path does not descend into repeated fields.
        return value.clone();
    };
    let mut kept = Map::new();
    for (name, value) in fields {
        let inner: Vec<&[String]> = paths
            .iter()
            .filter(|path| path.first().is_some_and(|first| first == name))
            .map(|path| &path[1..])
            .collect();
        if name == "@type" {
            kept.insert(name.clone(), value.clone());
        } else if !inner.is_empty() {
            kept.insert(name.clone(), trimmed(value, &inner));
        }
    }
    kept.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_named_remains() {
        let message = json!({"@type": "t", "a": {"@type": "u", "b": 1, "c": [1, 2]}, "d": 3, "e": 4});
        let of = |mask: &str| Mask::parse(mask).apply(&message);
        assert_eq!(of("a.b,d"), json!({"@type": "t", "a": {"@type": "u", "b": 1}, "d": 3}));
        assert_eq!(of("a"), json!({"@type": "t", "a": {"@type": "u", "b": 1, "c": [1, 2]}}));
        assert_eq!(of("x,a.x"), json!({"@type": "t", "a": {"@type": "u"}}));
    }
}
