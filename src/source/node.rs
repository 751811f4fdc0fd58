//! The YAML of a document as a tree that knows where each value stands.

mod build;
mod mistake;
mod scalar;

use std::ops::Range;

use serde_saphyr::granit_parser::{self, Parser};

use crate::diag::Diagnostic;
use crate::source::document::Document;
use build::Builder;

/// The deepest nesting that is read, of block style and of flow style each; Istio's and
/// Kubernetes' kinds need less than 20. Reading does not recurse, but whoever uses the tree does.
const MAX_DEPTH: usize = 64;

/// How many mistakes are stepped back over in search of a readable head.
const MAX_MISTAKES: usize = 8;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What to point at, in bytes of the document. Of a map or list in block style, the place of its
    /// first entry, empty.
    pub span: Range<usize>,
    /// The byte of the document where the whole value has ended.
    pub end: usize,
    /// The value.
    pub value: Value,
}

/// What YAML can say.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing, `null` or `~`.
    Null,
    /// `true`, `false` and YAML 1.1's other words for them, and the word itself.
    Bool(bool, Box<str>),
    /// A number that is not in quotes, as it is written: `1.10` stays `1.10`.
    Number(Box<str>),
    /// Any other scalar.
    String(Box<str>),
    /// A list.
    Seq(Vec<Node>),
    /// A map, in the order written. Keys differ from each other.
    Map(Vec<(Key, Node)>),
}

/// The key of an entry: always text, whatever YAML would make of it (`on`, `8080`).
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The text.
    pub text: Box<str>,
    /// Bytes of the document.
    pub span: Range<usize>,
}

/// What a document's text holds.
#[derive(Debug)]
pub struct Parsed {
    /// The tree, unless the text is no YAML at all.
    pub root: Option<Node>,
    /// What is wrong with the YAML.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads the YAML of a document. Aliases are resolved and merge keys (`<<`) merged, within limits
/// that no real configuration meets.
///
/// The parser is the one of `serde-saphyr`, used by its events: they say more about places than
/// its deserializer does, and a tree is built from them without recursion.
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

/// Reads what stands before the first mistakes in a document that [`parse`] finds no YAML in: the
/// head of a file that is being written, say.
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

/// Reads one value of a document again, by the bytes that it takes from the start of
/// its [`Node::span`] to its [`Node::end`]. Nothing comes of it if it is not complete in itself.
pub fn parse_part(document: &Document, part: Range<usize>) -> Option<Node> {
    let text = document.text();
    let start = part.start;
    let value = text.get(part)?;
    let indent = match value.starts_with(['{', '[']) {
        // What is written in flow style, often all of it in one long line, may stand anywhere.
        true => 0,
        // The first line is indented as it stands in the file, so that the others continue it.
        false => text[..start].bytes().rev().take_while(|byte| *byte != b'\n').count(),
    };
    let mut builder = Builder::new(document, start - indent);
    read(&(" ".repeat(indent) + value), &mut builder).ok()?;
    builder.finish().root
}

/// Feeds a text of the builder's document to it, up to the first mistake.
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
    fn places_are_those_of_the_file() {
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
    fn aliases_stand_where_they_are_used_and_merges_are_merged() {
        let node = root("base: &b {k: 1.10, l: x}\nalias: *b\nmerged:\n  <<: *b\n  l: z\n");
        let alias = get(get(&node, "alias"), "k");
        assert_eq!(alias.value, Value::Number("1.10".into()));
        assert_eq!(alias.span, 32..34);
        assert_eq!(get(get(&node, "merged"), "k").value, Value::Number("1.10".into()));
        assert_eq!(get(get(&node, "merged"), "l").value, Value::String("z".into()));
        assert_eq!(entries(get(&node, "merged")).len(), 2);
    }

    #[test]
    fn every_duplicate_key_is_reported_with_both_places() {
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
                    "`x` is given twice".to_owned(),
                    vec!["f:2:11".to_owned(), "f:2:5".to_owned()]
                ),
                (
                    "`a` is given twice".to_owned(),
                    vec!["f:3:1".to_owned(), "f:1:1".to_owned()]
                ),
            ]
        );
        let many: String = (0..100).map(|i| format!("k{}: 1\n", i % 50)).collect();
        assert_eq!(super::tests::parsed(&many).1.diagnostics.len(), 50);
    }

    #[test]
    fn bombs_are_refused() {
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
    fn parts_can_be_read_again_in_place() {
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
    fn anchors_within_themselves_and_odd_merges_are_refused() {
        for text in ["a: &a [*a]\n", "&a {b: *a}\n"] {
            assert!(parsed(text).1.root.is_none(), "{text}");
        }
        let (_, parsed) = parsed("<<: [{a: 1}, 2]\n\"<<\": 3\n");
        assert_eq!(parsed.diagnostics[0].message, "only maps can be merged by `<<`");
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
