//! YAML as a tree of nodes with locations.

mod build;
mod mistake;
mod scalar;

use std::ops::Range;

use serde_saphyr::granit_parser::{self, Parser};

use crate::diag::Diagnostic;
use crate::source::document::Document;
use build::Builder;

/// Maximum nesting depth, separately for block and flow style; Istio and Kubernetes objects need
/// less than 20. Parsing is not recursive, but processing the tree is.
const MAX_DEPTH: usize = 64;

/// Maximum number of attempts to find a parsable head of a document.
const MAX_MISTAKES: usize = 8;

/// A value and its location.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The span for diagnostics, in bytes of the document. For a block sequence or mapping, an
    /// empty span at its first entry.
    pub span: Range<usize>,
    /// End of the value, in bytes of the document.
    pub end: usize,
    /// The value.
    pub value: Value,
}

/// A YAML value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Empty, `null` or `~`.
    Null,
    /// `true`, `false` or another boolean of YAML 1.1, and its text.
    Bool(bool, Box<str>),
    /// An unquoted number, as written: `1.10` stays `1.10`.
    Number(Box<str>),
    /// Any other scalar.
    String(Box<str>),
    /// A sequence.
    Seq(Vec<Node>),
    /// A mapping, in the order written. Keys are unique.
    Map(Vec<(Key, Node)>),
}

/// The key of an entry: always a string, whatever its YAML type (`on`, `8080`).
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The text.
    pub text: Box<str>,
    /// Its span in bytes of the document.
    pub span: Range<usize>,
}

/// The result of parsing a document.
#[derive(Debug)]
pub struct Parsed {
    /// The tree, unless the text is not valid YAML.
    pub root: Option<Node>,
    /// Problems of the YAML.
    pub diagnostics: Vec<Diagnostic>,
}

/// Parses a document. Resolves aliases and merge keys (`<<`), within limits far above real
/// configurations.
///
/// Uses the event API of `serde-saphyr`'s parser, which has more location information than its
/// deserializer and lets the tree be built without recursion.
pub fn parse(document: &Document) -> Parsed {
    let mut builder = Builder::new(document, 0);
    match read(document.text(), &mut builder) {
        Ok(()) => builder.finish(),
        Err(diagnostic) => {
            let mut diagnostics = builder.finish().diagnostics;
            diagnostics.push(*diagnostic);
            Parsed {
                root: None,
                diagnostics,
            }
        }
    }
}

/// Parses the text before the first error in a document that is not valid YAML, e.g. of a partially
/// written file.
pub fn parse_before_mistake(document: &Document) -> Option<Node> {
    let mut text = document.text();
    for _ in 0..MAX_MISTAKES {
        let mut builder = Builder::new(document, 0);
        let Err(mistake) = read(text, &mut builder) else {
            return builder.finish().root;
        };
        let at = mistake.place()?.span.start;
        let line_start = text[..at.min(text.len())].rfind('\n')?;
        text = &text[..line_start];
    }
    None
}

/// Parses a single value of a document, given its bytes from the start of [`Node::span`] to
/// [`Node::end`]. `None` if it is not complete by itself.
pub fn parse_part(document: &Document, part: Range<usize>) -> Option<Node> {
    let text = document.text();
    let start = part.start;
    let value = text.get(part)?;
    let indent = match value.starts_with(['{', '[']) {
        // Flow style, often one long line, is independent of indentation.
        true => 0,
        // Indents the first line as in the file, so that the others match it.
        false => text[..start].bytes().rev().take_while(|byte| *byte != b'\n').count(),
    };
    let mut builder = Builder::new(document, start - indent);
    read(&(" ".repeat(indent) + value), &mut builder).ok()?;
    builder.finish().root
}

/// Feeds a text of the builder's document to it, up to the first error.
fn read(text: &str, builder: &mut Builder<'_>) -> Result<(), Box<Diagnostic>> {
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => builder.take(event, &span)?,
            Err(error) => return Err(Box::new(mistake::describe(builder.document(), &error))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::{Code, SourceText};
    use crate::source::document::split;

    fn parsed(text: &str) -> (Document, Parsed) {
        let document = split(&SourceText::new("f", text)).pop().unwrap();
        let parsed = parse(&document);
        (document, parsed)
    }

    fn root(text: &str) -> Node {
        let (_, parsed) = parsed(text);
        assert_eq!(parsed.diagnostics, [], "{text}");
        parsed.root.unwrap()
    }

    fn entries(node: &Node) -> &[(Key, Node)] {
        match &node.value {
            Value::Map(entries) => entries,
            other => panic!("{other:?}"),
        }
    }

    fn get<'n>(node: &'n Node, key: &str) -> &'n Node {
        &entries(node).iter().find(|(k, _)| &*k.text == key).unwrap().1
    }

    #[test]
    fn scalars_keep_their_text() {
        let node =
            root("a: 1.10\nb: 0x1F\nc: yes\nd: 007\ne: 1e999\nf: \"1\"\ng: ~\nh:\ni: 1_000\nj: !!str 1\nk: .inf\n");
        let value = |key| get(&node, key).value.clone();
        assert_eq!(value("a"), Value::Number("1.10".into()));
        assert_eq!(value("b"), Value::Number("0x1F".into()));
        assert_eq!(value("c"), Value::Bool(true, "yes".into()));
        assert_eq!(value("d"), Value::Number("007".into()));
        assert_eq!(value("e"), Value::Number("1e999".into()));
        assert_eq!(value("f"), Value::String("1".into()));
        assert_eq!(value("g"), Value::Null);
        assert_eq!(value("h"), Value::Null);
        assert_eq!(value("i"), Value::Number("1_000".into()));
        assert_eq!(value("j"), Value::String("1".into()));
        assert_eq!(value("k"), Value::Number(".inf".into()));
    }

    #[test]
    fn keys_are_text() {
        let node = root("on: 1\nn: 2\n8080: 3\n1.10: 4\n2020-01-01: 5\n\"q\": 6\n~: 7\n");
        let keys: Vec<&str> = entries(&node).iter().map(|(key, _)| &*key.text).collect();
        assert_eq!(keys, ["on", "n", "8080", "1.10", "2020-01-01", "q", "~"]);
    }

    #[test]
    fn locations_refer_to_the_file() {
        let (document, parsed) = parsed("a: ü\n--- # é\nünder: [ä, b]\nc:\n  - d\n");
        let node = parsed.root.unwrap();
        let text = |span: &Range<usize>| document.source.text[span.clone()].to_owned();
        let (key, list) = &entries(&node)[0];
        assert_eq!(
            (text(&key.span), document.place(key.span.clone()).display()),
            ("ünder".into(), "f:3:1".into())
        );
        let Value::Seq(items) = &list.value else { panic!() };
        assert_eq!(
            (text(&items[1].span), document.place(items[1].span.clone()).display()),
            ("b".into(), "f:3:12".into())
        );
        let Value::Seq(items) = &get(&node, "c").value else {
            panic!()
        };
        assert_eq!(document.place(items[0].span.clone()).display(), "f:5:5");
    }

    #[test]
    fn aliases_and_merge_keys_are_resolved() {
        let node = root("base: &b {k: 1.10, l: x}\nalias: *b\nmerged:\n  <<: *b\n  l: z\n");
        let alias = get(get(&node, "alias"), "k");
        assert_eq!(alias.value, Value::Number("1.10".into()));
        assert_eq!(alias.span, 32..34);
        assert_eq!(get(get(&node, "merged"), "k").value, Value::Number("1.10".into()));
        assert_eq!(get(get(&node, "merged"), "l").value, Value::String("z".into()));
        assert_eq!(entries(get(&node, "merged")).len(), 2);
    }

    #[test]
    fn duplicate_keys_are_reported_with_both_locations() {
        let (_, parsed) = parsed("a: 1\nb: {x: 1, x: 2}\na: 2\n");
        let shown: Vec<_> = parsed
            .diagnostics
            .iter()
            .map(|d| {
                (
                    d.message.clone(),
                    d.labels.iter().map(|l| l.place.display()).collect::<Vec<_>>(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                (
                    "duplicate key `x`".to_owned(),
                    vec!["f:2:11".to_owned(), "f:2:5".to_owned()]
                ),
                (
                    "duplicate key `a`".to_owned(),
                    vec!["f:3:1".to_owned(), "f:1:1".to_owned()]
                ),
            ]
        );
        let many: String = (0..100).map(|i| format!("k{}: 1\n", i % 50)).collect();
        assert_eq!(super::tests::parsed(&many).1.diagnostics.len(), 50);
    }

    #[test]
    fn alias_expansion_is_limited() {
        let aliases: String = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, i| {
            format!("{text}a{i}: &a{i} [*a{0}, *a{0}]\n", i - 1)
        });
        let deep_flow = "[".repeat(100_000);
        let deep_block = "- ".repeat(100_000);
        let deep_map: String = (0..1000).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
        for bomb in [aliases, deep_flow, deep_block, deep_map] {
            let (_, parsed) = parsed(&bomb);
            assert!(parsed.root.is_none());
            assert_eq!(parsed.diagnostics.len(), 1);
            assert_eq!(parsed.diagnostics[0].code, Code::InvalidYaml);
        }
    }

    #[test]
    fn json_is_yaml() {
        let node = root("{\n\t\"a\": \"\\u00fc\\/\",\n\t\"b\": [true, null, -1.5e3]\n}\n");
        assert_eq!(get(&node, "a").value, Value::String("ü/".into()));
        let Value::Seq(items) = &get(&node, "b").value else {
            panic!()
        };
        assert_eq!(items[2].value, Value::Number("-1.5e3".into()));
    }

    #[test]
    fn the_head_of_a_broken_document_can_be_read() {
        for rest in [
            "spec:\n  a: [1\n  b: \"\n",
            "spec:\n  a: b: c\n",
            "spec:\n\ta: 1\n",
            "spec: \"x\n",
        ] {
            let (document, parsed) = parsed(&format!("kind: A\nmetadata:\n  name: x\n{rest}"));
            assert!(parsed.root.is_none());
            let head = parse_before_mistake(&document).unwrap();
            assert_eq!(get(get(&head, "metadata"), "name").value, Value::String("x".into()));
        }
    }

    #[test]
    fn parts_can_be_parsed_again_in_place() {
        for text in [
            "l:\n- a: 1\n  b:\n  - ü\n# c\n\n-  c: 2\n",
            "l: [ {a: 1, b: [ü]},\n {c: 2}]",
            "é: 1\nl:\n    -\n      x\n",
        ] {
            let (document, parsed) = parsed(text);
            let root = parsed.root.unwrap();
            let Value::Seq(items) = &get(&root, "l").value else {
                panic!()
            };
            for item in items {
                assert_eq!(
                    parse_part(&document, item.span.start..item.end).unwrap().value,
                    item.value,
                    "{text}"
                );
            }
        }
        let (document, _) = parsed("a: &a 1\nb: [*a]\n");
        assert_eq!(parse_part(&document, 11..15), None);
        assert_eq!(parse_part(&document, 99..100), None);
    }

    #[test]
    fn recursive_anchors_and_invalid_merges_are_rejected() {
        for text in ["a: &a [*a]\n", "&a {b: *a}\n"] {
            assert!(parsed(text).1.root.is_none(), "{text}");
        }
        let (_, parsed) = parsed("<<: [{a: 1}, 2]\n\"<<\": 3\n");
        assert_eq!(parsed.diagnostics[0].message, "only maps can be merged with `<<`");
        let root = parsed.root.unwrap();
        assert_eq!(get(&root, "a").value, Value::Number("1".into()));
        assert_eq!(get(&root, "<<").value, Value::Number("3".into()));
    }

    #[test]
    fn flow_style_knows_its_end() {
        let node = root("a: {b: [1, 2]}\nc:\n  d: 1\n");
        assert_eq!(get(&node, "a").span, 3..14);
        assert_eq!(get(get(&node, "a"), "b").span, 7..13);
        assert_eq!(get(&node, "c").span, 20..20);
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in "[ a-c:{}\\[\\],&*!|>'\"%#@\n\t\r?é<~0-9.-]{0,60}") {
            for document in split(&SourceText::new("f", text)) {
                let _ = parse(&document);
                let _ = parse_before_mistake(&document);
            }
        }
    }
}
