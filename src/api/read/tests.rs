use super::*;
use crate::api::virtual_service::StringMatch;
use crate::diag::SourceText;
use crate::source::document::split;

const REVIEWS: &str = "# the first rule of everyone
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: reviews
  labels: {app: reviews, version: 1.10}
  annotations:
    note: |
      text
  creationTimestamp: 2026-01-01T00:00:00Z
  managedFields: [{manager: kubectl}]
spec:
  hosts:
  - reviews
  http:
  - match:
    - uri:
        prefix: /v2
      headers:
        x-a: {exact: b}
    route:
    - destination:
        host: reviews
        subset: v2
  - direct_response: {status: 503}
status: {}
";

fn read_all(text: &str, lenient: bool) -> Read {
    let mut all = Read::default();
    for document in split(&SourceText::new("f", text)) {
        let read = read(&document, &ReadOptions { lenient });
        all.objects.extend(read.objects);
        all.diagnostics.extend(read.diagnostics);
        all.ids_in_error.extend(read.ids_in_error);
    }
    all
}

/// `CODE line:column message / help` of each problem.
fn shown(read: &Read) -> Vec<String> {
    let show = |problem: &Diagnostic| {
        let place = problem.place().unwrap().display();
        let help = problem
            .help
            .as_ref()
            .map(|help| format!(" / {help}"))
            .unwrap_or_default();
        format!("{} {} {}{help}", problem.code, &place[2..], problem.message)
    };
    read.diagnostics.iter().map(show).collect()
}

fn ids(read: &Read) -> Vec<String> {
    read.ids_in_error.iter().map(ToString::to_string).collect()
}

fn only(text: &str) -> Object {
    let mut read = read_all(text, false);
    assert_eq!(shown(&read), Vec::<String>::new());
    assert_eq!(read.objects.len(), 1);
    read.objects.remove(0)
}

#[test]
fn an_object_is_read_whole() {
    let object = only(REVIEWS);
    assert_eq!(object.id.to_string(), "VirtualService default/reviews");
    assert_eq!(object.labels["version"], "1.10");
    assert_eq!(object.annotations["note"], "text\n");
    let Spec::VirtualService(rule) = &object.spec else {
        panic!()
    };
    assert_eq!(rule.hosts, ["reviews"]);
    assert_eq!(rule.http[0].matches[0].uri, Some(StringMatch::Prefix("/v2".into())));
    assert_eq!(rule.http[0].route[0].destination.as_ref().unwrap().subset, "v2");
}

#[test]
fn every_field_is_known_by_its_name() {
    let read = read_all(include_str!("tests/every_field.yaml"), false);
    assert_eq!(shown(&read), Vec::<String>::new());
    let kinds: std::collections::BTreeSet<Kind> = read.objects.iter().map(|object| object.spec.kind()).collect();
    assert_eq!(kinds.len(), read.objects.len());
    assert_eq!(kinds.len(), 11);
    for object in &read.objects {
        assert_eq!(object.id.kind, object.spec.kind());
    }
    let mesh = read
        .objects
        .iter()
        .find_map(crate::api::mesh_config::MeshConfigText::in_config_map)
        .unwrap();
    let (config, problems) = mesh.read(&ReadOptions::default());
    assert_eq!(problems, []);
    assert_eq!(config.unwrap().dns_refresh_rate.unwrap().0.as_secs(), 60);
}

#[test]
fn places_of_fields_are_found() {
    for prefix in ["", "# ü\n---\n"] {
        let object = only(&format!("{prefix}{REVIEWS}"));
        let skipped = prefix.lines().count();
        let place = |path: &str| {
            let (line, column) = object.place(path).position();
            format!("{}:{column}", line - skipped)
        };
        assert_eq!(place("spec.http[0].route[0].destination.subset"), "24:17");
        assert_eq!(place("spec.http[0].match[0].headers[\"x-a\"]"), "20:14");
        assert_eq!(place("spec.http[1].directResponse.status"), "25:31");
        assert_eq!(place("spec.http[1].directResponse.body"), "25:22");
        assert_eq!(place("spec.http[0].retries.attempts"), "16:5");
        assert_eq!(place("spec.http[0].route"), "21:5");
        assert_eq!(place("spec.tls"), "12:1");
        assert_eq!(place("nope"), "2:1");
        assert_eq!(place(""), "5:9");
        let key = object
            .place_of_name("spec.http[0].match[0].headers[\"x-a\"]")
            .position();
        assert_eq!((key.0 - skipped, key.1), (20, 9));
    }
}

#[test]
fn equality_ignores_layout_and_comments() {
    let object = only(REVIEWS);
    assert_eq!(
        only(&format!("\n\n{}", REVIEWS.replace("/v2\n", "\"/v2\" # here\n\n"))),
        object
    );
    assert_ne!(only(&REVIEWS.replace("/v2", "/v3")), object);
    assert_ne!(only(&REVIEWS.replace("app: reviews", "app: other")), object);
}

#[test]
fn lists_are_expanded_and_their_items_have_places() {
    let list = "
apiVersion: v1
kind: List
metadata: {resourceVersion: \"1\"}
items:
- apiVersion: v1
  kind: Service
  metadata: {name: a}
  spec:
    ports:
    - port: 80
- {apiVersion: v1, kind: Service, metadata: {name: b, namespace: c}, spec: {ports: [{port: 81}]}}
";
    let read = read_all(list, false);
    assert_eq!(shown(&read), Vec::<String>::new());
    let [first, second] = &read.objects[..] else { panic!() };
    assert_eq!(
        (first.id.to_string(), second.id.to_string()),
        ("Service default/a".into(), "Service c/b".into())
    );
    assert_eq!(first.at.to_string(), "items[0]");
    assert!(first.order < second.order);
    assert_eq!(first.place("spec.ports[0].port").display(), "f:11:13");
    assert_eq!(second.place("spec.ports[0].port").display(), "f:12:92");

    let typed = "kind: VirtualServiceList\napiVersion: networking.istio.io/v1\nitems:\n- metadata: {name: a}\n- metadata: {name: b}\n  spec: {hots: [x]}\n";
    let read = read_all(typed, false);
    assert_eq!(read.objects.len(), 1);
    assert_eq!(ids(&read), ["VirtualService default/b"]);
    assert!(
        read_all("kind: List\napiVersion: v1\nitems:\n", false)
            .diagnostics
            .is_empty()
    );
    assert_eq!(
        shown(&read_all(
            "kind: List\napiVersion: v1\nitems:\n- kind: Service\n- 1\n- null\n",
            false
        )),
        [
            "TS0007 4:3 `apiVersion` is missing",
            "TS0006 5:3 expected an object with `apiVersion` and `kind`",
            "TS0006 6:3 this element of the list is empty",
        ]
    );
    for (kind, version) in [("List", "v1"), ("ServiceEntryList", "networking.istio.io/v1")] {
        let text = format!("kind: {kind}\napiVersion: {version}\n");
        assert_eq!(
            shown(&read_all(&text, false)),
            ["TS0007 1:7 a List object must have `items`"]
        );
    }
    assert_eq!(
        shown(&read_all("apiversion: v1\nkind: Service\n", false)),
        ["TS0007 1:1 `apiVersion` is missing / did you mean `apiVersion` instead of `apiversion`?"]
    );
}

#[test]
fn aliases_in_lists_have_places_too() {
    let list = "kind: List\napiVersion: v1\nports: &p [{port: 80}]\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: *p}}\n";
    assert_eq!(only(list).place("spec.ports[0].port").display(), "f:5:70");
}

#[test]
fn kinds_without_spec_and_with_ignored_fields() {
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a, labels: {kubernetes.io/service-name: a}}\naddressType: IPv4\nendpoints: [{addresses: [10.0.0.1], conditions: {ready: true}, targetRef: {kind: Pod}}]\nports: [{name: \"\", port: 80, protocol: TCP}]\n";
    let Spec::EndpointSlice(slice) = only(slice).spec else {
        panic!()
    };
    assert_eq!(slice.endpoints[0].addresses, ["10.0.0.1"]);
    let read = read_all(
        "apiVersion: v1\nkind: Endpoints\nmetadata: {name: a}\nsubset: []\n",
        false,
    );
    assert_eq!(
        shown(&read),
        ["TS0002 4:1 unknown field `subset` / did you mean `subsets`?"]
    );
    assert_eq!(ids(&read), ["Endpoints default/a"]);
}

#[test]
fn unsupported_irrelevant_and_unknown_kinds_are_distinguished() {
    let read = read_all(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\n---\napiVersion: apps/v1\nkind: Deployment\nanything: 1\n---\napiVersion: networking.istio.io/v1\nkind: VirtualServce\nmetadata: {name: a}\n---\napiVersion: v1\nkind: VirtualService\nmetadata: {name: b}\n---\napiVersion: x/v1\nkind: Frobnicator\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}\nwhatever: 1\n",
        false,
    );
    assert_eq!(
        shown(&read),
        [
            "TS0004 2:7 Gateway is not supported yet / the object has no effect",
            "TS0012 5:7 Deployment is ignored: it is not relevant to a mesh without Kubernetes",
            "TS0003 9:7 unknown kind `VirtualServce` / did you mean `VirtualService`?",
            "TS0003 12:13 `v1` has no kind VirtualService / its `apiVersion` is `networking.istio.io/v1`",
            "TS0003 17:7 unknown kind `Frobnicator`",
            "TS0012 20:7 this ConfigMap is ignored: only `istio` is relevant to the mesh",
        ]
    );
    assert_eq!(ids(&read), ["VirtualService default/a", "VirtualService default/b"]);
    let lenient = read_all("apiVersion: x/v1\nkind: Frobnicator\n", true);
    assert_eq!(lenient.diagnostics[0].severity, Severity::Warning);
}

#[test]
fn envelopes_are_checked() {
    let message = |text: &str| shown(&read_all(text, false)).join("; ");
    assert_eq!(
        message("a: 1\n"),
        "TS0007 1:1 `kind` is missing / an object starts with `apiVersion` and `kind`"
    );
    assert_eq!(message("kind: Service\n"), "TS0007 1:1 `apiVersion` is missing");
    assert_eq!(
        message("kind: Service\napiVersion: v1\n"),
        "TS0007 1:1 `metadata.name` is missing"
    );
    assert_eq!(
        message("kind: []\napiVersion: v1\n"),
        "TS0007 1:1 `kind` is missing / an object starts with `apiVersion` and `kind`"
    );
    assert_eq!(
        message("kind: Service\napiVersion: v1\nmetadata: {generateName: a-}\n"),
        "TS0007 3:1 `metadata.name` is missing / `generateName` is only supported by the Kubernetes API; set `name`"
    );
    let service = "kind: Service\napiVersion: v1\nmetadata: ";
    assert_eq!(
        message(&format!("{service}{{nmae: a}}\n")),
        "TS0002 3:12 unknown field `nmae` / did you mean `name`?"
    );
    assert_eq!(
        message(&format!("{service}{{name: [a]}}\n")),
        "TS0006 3:18 expected a string, found a list"
    );
    assert_eq!(
        message(&format!("{service}{{name: a.b}}\n")),
        "TS0006 3:18 `a.b` is not a valid name for a Service: expected a lowercase DNS label of at most 63 characters"
    );
    assert_eq!(
        message(&format!("{service}{{name: a, namespace: B}}\n")),
        "TS0006 3:32 `B` is not a valid namespace: expected a lowercase DNS label of at most 63 characters"
    );
    assert_eq!(
        message(&format!("{service}{{name: a}}\nsepc: {{}}\n")),
        "TS0002 4:1 unknown field `sepc` / did you mean `spec`?"
    );
    assert_eq!(
        message("- kind: Service\n"),
        "TS0006 1:3 expected an object with `apiVersion` and `kind`"
    );
    assert_eq!(message("null\n"), "");
}

#[test]
fn objects_of_invalid_documents_are_identified() {
    let read = read_all(&format!("{REVIEWS}spec2: b: c\n"), false);
    assert_eq!(
        (read.objects.len(), ids(&read)),
        (0, vec!["VirtualService default/reviews".to_owned()])
    );
    assert_eq!(read.diagnostics.len(), 1);
    let read = read_all(&REVIEWS.replace("subset: v2", "host: x"), false);
    assert_eq!(
        shown(&read),
        ["TS0001 24:9 duplicate key `host` / remove one of the two"]
    );
    assert_eq!(
        (read.objects.len(), ids(&read)),
        (0, vec!["VirtualService default/reviews".to_owned()])
    );
}

#[test]
fn oversized_documents_are_rejected() {
    let read = read_all(&format!("{REVIEWS}# {}\n", "x".repeat(MAX_BYTES)), false);
    assert_eq!(read.diagnostics[0].code, Code::DocumentTooLarge);
    assert!(read.objects.is_empty());
}

proptest::proptest! {
    #[test]
    fn mutated_documents_do_not_panic(cuts in proptest::collection::vec((0_usize..REVIEWS.len(), 0_usize..8, "[a-z:\\[\\]{}'\"|>&*#~ \\n\\t-]{0,4}"), 1..6)) {
        let mut text = REVIEWS.to_owned();
        for (at, length, insert) in cuts {
            let at = at.min(text.len());
            let end = (at + length).min(text.len());
            text.replace_range(at..end, &insert);
        }
        let read = read_all(&text, false);
        for object in &read.objects {
            for path in ["", "spec.http[0].match[0].uri", "metadata.labels[\"app\"]", "spec.http[9]"] {
                let _ = object.place(path).display();
            }
        }
        for problem in &read.diagnostics {
            let _ = problem.place().map(crate::diag::Place::display);
        }
    }
}
