use super::*;
use crate::api::destination_rule::{ClientTlsMode, DestinationRule};
use crate::api::peer_authentication::PeerAuthentication;
use crate::api::service::Service;
use crate::api::service_entry::ServiceEntry;
use crate::api::value::{Bytes, Duration, IntOrString};
use crate::api::virtual_service::{HttpBody, StringMatch, VirtualService};
use crate::diag::SourceText;
use crate::source::document::Document;
use crate::source::node::parse;

/// The deserialized value, and `line:column severity message / help` of each problem.
fn read_as<T: for<'n> Deserialize<'n>>(text: &str, lenient: bool) -> (Option<T>, Vec<String>) {
    let document = Document::whole(&SourceText::new("f", text));
    let parsed = parse(&document);
    assert_eq!(parsed.diagnostics, [], "{text}");
    let report = Report::new(&document, lenient);
    let value = read(&parsed.root.unwrap(), &report, &[]);
    let diagnostics = report.finish();
    let shown = diagnostics.iter().map(|problem| {
        let place = problem.place().unwrap().display();
        let help = problem
            .help
            .as_ref()
            .map(|help| format!(" / {help}"))
            .unwrap_or_default();
        format!(
            "{} {} {}{help}",
            &place[2..],
            problem.severity.as_str(),
            problem.message
        )
    });
    (value, shown.collect())
}

fn good<T: for<'n> Deserialize<'n>>(text: &str) -> T {
    let (value, problems) = read_as(text, false);
    assert!(problems.is_empty(), "{text}: {problems:?}");
    value.unwrap()
}

fn problems<T: for<'n> Deserialize<'n>>(text: &str) -> Vec<String> {
    read_as::<T>(text, false).1
}

#[test]
fn all_problems_are_found_at_once() {
    let text = "
hosts: reviews
http:
- match:
  - uri: {prefx: /a}
    port: http
  route:
  - destination:
      host: [a]
    weight: 1.5
  timeout: 5
- delegate: {name: x}
  retries: {attempts: 99999999999}
exportTo: [a, , {}]
expertTo: b
";
    assert_eq!(
        problems::<VirtualService>(&text.replace(", ,", ", ~,")),
        [
            "2:8 error expected a list, found `reviews`",
            "5:11 error unknown field `prefx` / did you mean `prefix`?",
            "6:11 error expected a whole number from 0 to 4294967295, found `http`",
            "9:13 error expected a string, found a list",
            "10:13 error expected a whole number from -2147483648 to 2147483647, found `1.5`",
            "11:12 error expected a duration such as `1.5s`, `100ms` or `1m30s`, found `5`",
            "12:3 error `delegate` is not supported yet / remove it; ignoring it would change traffic",
            "13:23 error expected a whole number from -2147483648 to 2147483647, found `99999999999`",
            "14:15 error this element of the list is empty",
            "14:18 error expected a string, found a map",
            "15:1 error unknown field `expertTo` / did you mean `exportTo`?",
        ]
    );
}

#[test]
fn fields_have_camel_case_and_proto_names() {
    let rule: VirtualService = good(
        "http:\n- fault: {abort: {http_status: 503, percentage: {value: 0.1}}}\n  direct_response: {status: 200}\n",
    );
    assert_eq!(
        rule.http[0].fault.as_ref().unwrap().abort.as_ref().unwrap().http_status,
        Some(503)
    );
    assert_eq!(rule.http[0].direct_response.as_ref().unwrap().status, 200);
    assert_eq!(
        problems::<VirtualService>("exportTo: [a]\nexport_to: [b]\n"),
        ["2:1 error `exportTo` and `export_to` are the same field"]
    );
}

#[test]
fn lenient_unknown_fields_are_warnings_except_in_oneofs() {
    let (rule, problems) = read_as::<VirtualService>("hots: [a]\nhttp:\n- match: [{uri: {prefx: /a}}]\n", true);
    assert!(rule.is_some());
    assert_eq!(
        problems,
        [
            "1:1 warning unknown field `hots` / did you mean `hosts`?",
            "3:18 error unknown field `prefx` / did you mean `prefix`?",
        ]
    );
}

#[test]
fn null_counts_as_absent() {
    let rule: VirtualService = good("hosts:\nhttp: ~\ntls: [{match: , route: []}]\nexportTo: null\n");
    assert_eq!(rule.hosts, Vec::<String>::new());
    assert_eq!(rule.tls.len(), 1);
    let rule: DestinationRule = good("workloadSelector:\ntrafficPolicy: {loadBalancer: {warmup: }}\n");
    assert!(rule.traffic_policy.unwrap().load_balancer.is_some());
    let service: Service = good("selector: {app: , version: v1}\n");
    assert_eq!(service.selector["app"], "");
}

#[test]
fn strings_keep_their_text() {
    let rule: DestinationRule = good("host: 8080\nsubsets: [{name: 007, labels: {version: 1.10, on: yes, 1: 1e3}}]\n");
    assert_eq!(rule.host, "8080");
    assert_eq!(rule.subsets[0].name, "007");
    let labels: Vec<_> = rule.subsets[0]
        .labels
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(labels, [("1", "1e3"), ("on", "yes"), ("version", "1.10")]);
}

#[test]
fn oneofs_accept_a_single_field() {
    let uris = |text: &str| good::<VirtualService>(&format!("http: [{{match: [{{uri: {text}}}]}}]"));
    let uri = |text: &str| uris(text).http[0].matches[0].uri.clone();
    assert_eq!(uri("{exact: 1}"), Some(StringMatch::Exact("1".into())));
    assert_eq!(uri("{regex: a, prefix: }"), Some(StringMatch::Regex("a".into())));
    assert_eq!(uri("{}"), Some(StringMatch::Present));
    assert_eq!(uri(""), None);
    let wrong = |text: &str| problems::<VirtualService>(&format!("http: [{{match: [{{uri: {text}}}]}}]"));
    assert_eq!(
        wrong("{exact: a, prefix: b}"),
        ["1:34 error only one of `exact`, `prefix`, `regex` may be set"]
    );
    assert_eq!(
        wrong("/a"),
        ["1:23 error expected a map with one of `exact`, `prefix`, `regex`, found `/a`"]
    );
    assert_eq!(wrong("{exact: []}"), ["1:31 error expected a string, found a list"]);
    let rule: VirtualService = good("http: [{directResponse: {body: {bytes: aGk=}}}, {directResponse: {body: {}}}]");
    let body = |at: usize| rule.http[at].direct_response.as_ref().unwrap().body.clone();
    assert_eq!(body(0), Some(HttpBody::Bytes(Bytes(b"hi".to_vec()))));
    assert_eq!(body(1), Some(HttpBody::Empty));
    let wrong = problems::<VirtualService>("http: [{match: [{headers: {x: }}]}]");
    assert_eq!(
        wrong,
        ["1:28 error expected a map with one of `exact`, `prefix`, `regex`, found nothing"]
    );
}

#[test]
fn enum_values_are_checked() {
    let tls = |word: &str| format!("trafficPolicy: {{tls: {{mode: {word}}}}}");
    let rule: DestinationRule = good(&tls("ISTIO_MUTUAL"));
    assert_eq!(
        rule.traffic_policy.unwrap().tls.unwrap().mode,
        ClientTlsMode::IstioMutual
    );
    assert_eq!(
        problems::<DestinationRule>(&tls("ISTIO_MUTAL")),
        ["1:29 error `ISTIO_MUTAL` is not a valid value for this field / did you mean `ISTIO_MUTUAL`?"]
    );
    assert_eq!(
        problems::<DestinationRule>(&tls("1")),
        ["1:29 error expected one of `DISABLE`, `SIMPLE`, `MUTUAL`, `ISTIO_MUTUAL`, found `1`"]
    );
    assert_eq!(
        problems::<ServiceEntry>("resolution: DYNAMIC_DNS\n"),
        ["1:13 error `DYNAMIC_DNS` is not supported yet / remove it; ignoring it would change traffic"]
    );
}

#[test]
fn keys_can_be_numbers() {
    let policy: PeerAuthentication = good("portLevelMtls: {8080: {mode: STRICT}, \"9\": {}}");
    assert_eq!(policy.port_level_mtls.keys().copied().collect::<Vec<_>>(), [9, 8080]);
    assert_eq!(
        problems::<PeerAuthentication>("portLevelMtls: {http: {mode: STRICT}, 1: , 2: {mod: x}}"),
        [
            "1:17 error expected a whole number from 0 to 4294967295, found `http`",
            "1:39 error expected a map, found nothing",
            "1:48 error unknown field `mod` / did you mean `mode`?",
        ]
    );
}

#[test]
fn kubernetes_value_types() {
    let service: Service = good(
        "ports: [{port: \"80\", targetPort: 8080}, {port: 1, targetPort: \"8080\"}, {port: 1, targetPort: web, nodePort: 30000}]\nipFamilies: [IPv4]\nclusterIP: None\ntype: ClusterIP\n",
    );
    let targets: Vec<_> = service
        .ports
        .iter()
        .filter_map(|port| port.target_port.clone())
        .collect();
    assert_eq!(service.ports[0].port, 80);
    assert_eq!(
        targets,
        [
            IntOrString::Int(8080),
            IntOrString::String("8080".into()),
            IntOrString::String("web".into())
        ]
    );
    assert_eq!(service.cluster_ip, "None");
}

#[test]
fn durations_and_booleans() {
    let rule: VirtualService = good("http: [{timeout: 1m30s, match: [{ignoreUriCase: yes}]}]");
    assert_eq!(rule.http[0].timeout, Some(Duration(std::time::Duration::from_secs(90))));
    assert!(rule.http[0].matches[0].ignore_uri_case);
    assert_eq!(
        problems::<VirtualService>("http: [{timeout: -1s, match: [{ignoreUriCase: \"true\"}]}]"),
        [
            "1:18 error expected a duration such as `1.5s`, `100ms` or `1m30s`, found `-1s`",
            "1:47 error expected `true` or `false`, without quotes, found `true`",
        ]
    );
}

#[test]
fn too_many_problems_are_cut_off() {
    let text = format!("hosts: [{}]", "[], ".repeat(1000));
    let (rule, problems) = read_as::<VirtualService>(&text, false);
    assert!(rule.is_none());
    assert_eq!(problems.len(), MAX_ROUNDS);
}
