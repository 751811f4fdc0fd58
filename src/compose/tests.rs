//! Findings and plans for compose files.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::*;
use crate::diag::Severity;

/// The plan for the files in `named`, for a Compose version without `!reset`.
fn planned(files: &[(&str, &str)], named: &[&str], choice: Choice) -> Plan {
    planned_for(files, named, choice, false)
}

fn planned_for(files: &[(&str, &str)], named: &[&str], choice: Choice, takes_back: bool) -> Plan {
    let texts: BTreeMap<&Path, &str> = files.iter().map(|(name, text)| (Path::new(*name), *text)).collect();
    let paths: Vec<PathBuf> = named.iter().map(PathBuf::from).collect();
    let mut load = |path: &Path| match texts.get(path) {
        Some(text) => Ok((*text).to_owned()),
        None => Err(io::ErrorKind::NotFound.into()),
    };
    plan(read(&paths, &mut load), choice, takes_back, &|image| match image {
        "exposes:1" => Some(vec![8000, 9000]),
        "redis:built-here" => Some(Vec::new()),
        _ => None,
    })
}

fn of(text: &str) -> Plan {
    planned(&[("c.yml", text)], &["c.yml"], Choice::Either)
}

/// The plan for a file without findings.
fn clean(text: &str) -> Plan {
    let plan = of(text);
    let shown: Vec<_> = plan.problems.iter().map(shown).collect();
    assert!(shown.is_empty(), "{text}\n{shown:#?}");
    plan
}

fn shown(problem: &crate::diag::Diagnostic) -> String {
    let place = problem.place().map_or_else(String::new, crate::diag::Place::display);
    let (severity, code) = (problem.severity.as_str(), problem.code);
    let help = problem.help.as_deref().unwrap_or_default();
    format!("{place}: {severity}[{code}]: {} / {help}", problem.message)
}

/// Checks findings by the lines that end with `#! severity CODE`.
fn as_marked(text: &str) {
    let found: Vec<String> = of(text)
        .problems
        .iter()
        .map(|problem| {
            let (line, _) = problem.place().unwrap().position();
            format!("{line} {} {}", problem.severity.as_str(), problem.code)
        })
        .collect();
    let marks = text.lines().enumerate().flat_map(|(at, line)| {
        let marks = line.split_once("#!").map_or("", |(_, marks)| marks);
        let marks = marks.split(',').map(str::trim).filter(|mark| !mark.is_empty());
        marks.map(move |mark| format!("{} {mark}", at + 1)).collect::<Vec<_>>()
    });
    assert_eq!(found, marks.collect::<Vec<_>>(), "{text}");
}

fn ports(plan: &Plan, service: &str) -> Vec<String> {
    let planned = plan.meshed.iter().find(|planned| planned.service == service).unwrap();
    let shown = planned.ports.iter().map(|port| {
        let mark = if port.published { "!" } else { "" };
        format!("{} {}{mark}", port.number, port.protocol)
    });
    shown.collect()
}

/// The services that one depends on.
fn after<'p>(plan: &'p Plan, service: &str) -> Vec<&'p str> {
    let ties = plan.ties.get(service);
    ties.into_iter()
        .flat_map(|ties| &ties.after)
        .map(|after| &*after.service)
        .collect()
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.meshed.iter().map(|planned| &*planned.service).collect()
}

#[test]
fn labels_choose() {
    let text = "
services:
  a: {labels: {topsail.io/inject: \"true\"}, expose: [80]}
  b: {expose: [80]}
  c: {labels: [\"sidecar.istio.io/inject=false\"], expose: [80]}
";
    let chosen = |choice| {
        let plan = planned(&[("c.yml", text)], &["c.yml"], choice);
        assert!(plan.problems.is_empty());
        names(&plan).join(" ")
    };
    assert_eq!(chosen(Choice::Either), "a");
    assert_eq!(chosen(Choice::Labelled), "a");
    assert_eq!(chosen(Choice::All), "a b");
    assert_eq!(
        names(&clean(&text.replace("{topsail.io/inject: \"true\"}", "{}"))),
        ["a", "b"]
    );
}

#[test]
fn ports_come_from_the_label_then_the_file_then_the_image() {
    let plan = clean(
        "
services:
  a: {ports: [\"80\", \"127.0.0.1:8443:443/tcp\", \"${P:-1}:3000-3001\"], expose: [\"5432\", 80]}
  b: {image: exposes:1}
  c: {image: \"postgres:16\"}
  g: {image: redis:built-here}
  d: {image: postgres, labels: {topsail.io/ports: \"grpc:50051, 9000,redis:7000\"}}
  e: {image: postgres, labels: {topsail.io/ports: none}}
  f:
    ports:
    - {target: 8080, published: 80, app_protocol: HTTP2}
    - target: 3306
",
    );
    assert_eq!(
        ports(&plan, "a"),
        ["80 auto!", "443 auto!", "3000 auto!", "3001 auto!", "5432 tcp"]
    );
    assert_eq!(ports(&plan, "b"), ["8000 auto", "9000 auto"]);
    assert_eq!(ports(&plan, "c"), ["5432 tcp"]);
    assert_eq!(
        ports(&plan, "g"),
        ["6379 tcp"],
        "an image may expose nothing and yet be known"
    );
    assert_eq!(ports(&plan, "d"), ["7000 tcp", "9000 auto", "50051 grpc"]);
    assert!(ports(&plan, "e").is_empty());
    assert_eq!(ports(&plan, "f"), ["3306 tcp!", "8080 http2!"]);
}

#[test]
fn a_label_says_what_a_variable_hides() {
    as_marked(
        "
services:
  a:
    ports: [\"80:${PORT:-80}\"] #! error TS0022
  b:
    image: ${IMAGE}
    ports:
    - \"${PORT}:${PORT}\"
    - 53:53/udp #! info TS0022
    labels: {topsail.io/ports: \"8080\"}
  c: {image: \"${IMAGE}\"} #! warning TS0022
",
    );
    let text = "services: {b: {ports: [\"${PORT}\"], labels: {topsail.io/ports: \"8080\"}}}";
    assert_eq!(ports(&clean(text), "b"), ["8080 auto!"]);
}

#[test]
fn what_keeps_a_service_from_having_a_sidecar_is_named_in_its_place() {
    as_marked(
        "
services:
  a: &base
    network_mode: host #! error TS0019
    expose: [80]
  b: {expose: [80], network_mode: none} #! error TS0019
  c: {expose: [80], network_mode: \"service:a\"} #! error TS0019
  d: {expose: [80], network_mode: \"container:x\"} #! error TS0019
  e: {expose: [80], network_mode: bridge} #! error TS0019
  f: {expose: [80], network_mode: \"${MODE}\"} #! error TS0019
  g: {expose: [80], scale: 2} #! error TS0020
  h: {expose: [80], deploy: {replicas: 3}} #! error TS0020
  i: {expose: [80], deploy: {replicas: \"${N:-1}\"}} #! warning TS0020
  j: {expose: [80], deploy: {replicas: 1}, scale: 1}
  k: {expose: [80, 15006]} #! error TS0021
  l: {ports: [\"15000:80\"]}
  m: {expose: [80], user: \"1337\"} #! error TS0024
  n: {expose: [80], user: \"0:1337\"} #! error TS0024
  o: {expose: [80], user: \"1000:1000\", cap_add: [SYS_TIME, cap_net_admin]} #! warning TS0024
  p: {expose: [80], privileged: true} #! warning TS0024
  q: {expose: [80], privileged: false}
  topsail: {expose: [80]} #! error TS0023
  q-sidecar: {expose: [80]} #! error TS0023
  v: {image: redis}
  v-pod: {expose: [80]} #! error TS0023
  q-pod: {expose: [80]}
  r_s: {expose: [80]}
  r.s: {expose: [80]} #! error TS0023
  a-name-that-is-far-too-long: {expose: [80]} #! error TS0006
  t: {expose: [80], depends_on: [q, u]} #! error IST0101
  left: {network_mode: host, scale: 5, user: 1337, labels: {topsail.io/inject: \"false\"}}
",
    );
}

#[test]
fn labels_that_nobody_knows_and_values_that_are_none_are_errors() {
    as_marked(
        "
services:
  a:
    expose: [80]
    labels:
      com.example.anything: \"1\"
      topsail.io/injct: \"true\" #! error TS0002
      topsail.io/mtls: NONE #! error TS0006
      traffic.sidecar.istio.io/excludeOutboundPort: \"1\" #! error TS0002
      traffic.sidecar.istio.io/excludeOutboundPorts: \"1,a\" #! error TS0006
      traffic.sidecar.istio.io/includeOutboundIPRanges: 10.0.0.0/33 #! error TS0006
      sidecar.istio.io/interceptionMode: MAYBE #! error TS0006
      sidecar.istio.io/logLevel: loud #! error TS0006
      sidecar.istio.io/proxyCPU: 100m #! error TS0005
      proxy.istio.io/config: \"{}\" #! error TS0005
  b:
    labels:
    - topsail.io/inject=perhaps #! error TS0006
    - topsail.io/ports=htpp:80 #! error TS0006
    - topsail.io/mtls=${MTLS} #! error TS0006
    expose: [80]
",
    );
    let help = of("services: {a: {expose: [80], labels: {topsail.io/injct: \"true\"}}}");
    assert!(shown(&help.problems[0]).ends_with("did you mean `topsail.io/inject`?"));
}

#[test]
fn wrong_types_are_named_and_unknown_fields_passed_over() {
    as_marked(
        "
services:
  a: [] #! error TS0006
  b: {expose: 80} #! error TS0006
  c: {ports: [x]} #! error TS0006
  d: {ports: [{published: 80}]} #! error TS0007
  e: {expose: [80], labels: 1} #! error TS0006
  f: {expose: [80], depends_on: 1} #! error TS0006
  g: {expose: [80], image: [a]} #! error TS0006
  h: {expose: [80], future_field: {a: [1]}, x-mine: 2}
  i: {expose: [70000]} #! error TS0006
x-anything: [1]
",
    );
    as_marked("services: [a] #! error TS0006\n");
    as_marked("web: {image: a} #! error TS0007\n");
    as_marked("version: \"1\" #! error TS0006\nservices: {}\n");
    as_marked("- a #! error TS0006\n");
    as_marked("services:\n  a:\n\tb: 1 #! error TS0001\n");
}

#[test]
fn files_add_to_one_another() {
    let files = [
        (
            "c.yml",
            "services:\n  a: {expose: [80], networks: [x], user: \"1337\"}\n  b: {expose: [80], ports: [\"1:81\"]}\n",
        ),
        (
            "o.yml",
            "services:\n  a: {user: \"5\", networks: {y: {aliases: [z]}}, depends_on: {b: {condition: service_healthy}}}\n  b: {expose: !override [82], ports: !reset []}\n",
        ),
    ];
    let plan = planned(&files, &["c.yml", "o.yml"], Choice::Either);
    assert_eq!(
        plan.problems.iter().map(shown).collect::<Vec<_>>(),
        Vec::<String>::new()
    );
    assert_eq!(plan.meshed[0].networks, ["x", "y"]);
    assert_eq!(ports(&plan, "b"), ["82 auto"]);
    assert_eq!(after(&plan, "a"), ["b"]);
}

#[test]
fn services_extend_others_and_files_include_others() {
    let files = [
        (
            "d/c.yml",
            "include: [inc.yml, {path: [sub/more.yml]}]\nservices:\n  a: {extends: {file: base.yml, service: base}, expose: [81]}\n  b: {extends: a}\n",
        ),
        (
            "d/base.yml",
            "services:\n  base: {extends: {service: root}, networks: [n]}\n  root: {expose: [80]}\n",
        ),
        ("d/inc.yml", "services: {c: {expose: [1]}}\n"),
        ("d/sub/more.yml", "services: {d: {expose: [2]}}\n"),
    ];
    let plan = planned(&files, &["d/c.yml"], Choice::Either);
    assert_eq!(
        plan.problems.iter().map(shown).collect::<Vec<_>>(),
        Vec::<String>::new()
    );
    assert_eq!(names(&plan), ["c", "d", "a", "b"]);
    assert_eq!(ports(&plan, "a"), ["80 auto", "81 auto"]);
    assert_eq!(ports(&plan, "b"), ["80 auto", "81 auto"]);
    assert_eq!(plan.meshed[3].networks, ["n"]);
    as_marked(
        "
include: [none.yml] #! error TS0009
services:
  a: {extends: {service: bee}, expose: [80]} #! error IST0101
  bees: {extends: {file: \"${F}\", service: a}, expose: [80]} #! error TS0006
  c: {extends: {}, expose: [80]} #! error TS0007
",
    );
    let circle = of("services:\n  a: {extends: b, expose: [80]}\n  b: {extends: a, expose: [80]}\n");
    assert!(
        circle
            .problems
            .iter()
            .all(|problem| problem.message.contains("`extends` is nested"))
    );
}

#[test]
fn what_is_merged_by_yaml_is_there() {
    let plan = clean(
        "
x-web: &web {expose: [80], profiles: [p]}
services:
  a: {<<: *web, links: [\"b:db\"]}
  b: {<<: *web, profiles: [q]}
",
    );
    assert_eq!(
        (&*plan.meshed[0].profiles, &*plan.meshed[1].profiles),
        (&["p".to_owned()][..], &["q".to_owned()][..])
    );
    assert_eq!(after(&plan, "a"), ["b"]);
}

#[test]
fn what_is_missing_or_was_made_here_is_no_project() {
    let plan = planned(&[], &["c.yml"], Choice::Either);
    assert_eq!(
        shown(&plan.problems[0]),
        ": error[TS0009]: cannot read c.yml: entity not found / "
    );
    let ours = Marked::write("c.yml", "services: {}\n");
    assert!(shown(&of(&ours).problems[0]).contains("topsail inject"));
    assert_eq!(of("# nothing\n").problems.len(), 1);
}

#[test]
fn the_objects_are_what_the_control_plane_takes_without_a_word() {
    let plan = clean(
        "
services:
  web: {ports: [\"80:8080\"], expose: [\"5432\"]}
  db: {image: postgres, labels: {topsail.io/mtls: permissive}}
  worker: {labels: {topsail.io/ports: none}}
",
    );
    for (name, text) in objects(&plan) {
        let source = crate::diag::SourceText::new(name, text);
        for document in crate::source::document::split(&source) {
            let read = crate::api::read(&document, &crate::api::ReadOptions::default());
            assert_eq!(
                read.diagnostics.iter().map(shown).collect::<Vec<_>>(),
                Vec::<String>::new()
            );
            assert_eq!(read.objects.len(), 1);
        }
    }
}

#[test]
fn severities_decide_about_writing() {
    assert!(!of("services: {a: {image: \"${I}\"}}").has_errors());
    assert!(of("services: {a: {network_mode: host}}").has_errors());
    assert!(
        of("services: {a: {image: \"${I}\"}}")
            .problems
            .iter()
            .all(|problem| problem.severity == Severity::Warning)
    );
}

/// The pod of a service as JSON, or why there is none.
fn pod(plan: &Plan, service: &str) -> Result<String, String> {
    let planned = plan.meshed.iter().find(|planned| planned.service == service).unwrap();
    let pod = planned.pod.as_ref().map_err(Clone::clone)?;
    Ok(serde_json::to_string(&pod.fields).unwrap())
}

#[test]
fn a_pod_has_what_its_service_says_about_the_network() {
    let files = [
        (
            "c.yml",
            "
services:
  a:
    image: redis
    container_name: cache
    ports: [\"80:80\", 81, {target: 82, published: 8082}]
    networks: [x, y]
    hostname: \"${NAME}\"
    dns: 192.0.2.1
    extra_hosts: {one: 192.0.2.2}
    sysctls: {net.core.somaxconn: 1024, kernel.shmmax: 1}
  b: {expose: [80], networks: {x: {ipv4_address: 192.0.2.9}}}
  c: {image: redis}
  d: {extends: b, networks: {x: {aliases: [dee, d]}}}
",
        ),
        (
            "o.yml",
            "
services:
  a:
    ports: [\"80:80\", \"83:83\"]
    networks: {y: {aliases: [why]}}
    dns: [192.0.2.3]
    extra_hosts: [\"two:192.0.2.4\"]
  b: {networks: !override [z]}
",
        ),
    ];
    let plan = planned_for(&files, &["c.yml", "o.yml"], Choice::Either, true);
    let all = ["a", "b", "c", "d"].map(|name| format!("{name}: {}", pod(&plan, name).unwrap()));
    insta::assert_snapshot!(all.join("\n"), @r#"
    a: {"networks":{"x":{"aliases":["a","cache"]},"y":{"aliases":["a","cache","why"]}},"ports":["80:80",81,{"target":82,"published":8082},"83:83"],"hostname":"${NAME}","dns":["192.0.2.1","192.0.2.3"],"extra_hosts":["one:192.0.2.2","two:192.0.2.4"],"sysctls":{"net.core.somaxconn":"1024"}}
    b: {"networks":{"z":{"aliases":["b"]}},"expose":[80]}
    c: {"networks":{"default":{"aliases":["c"]}}}
    d: {"networks":{"x":{"ipv4_address":"192.0.2.9","aliases":["d","dee"]}},"expose":[80]}
    "#);
    let taken = |name: &str| {
        let planned = plan.meshed.iter().find(|planned| planned.service == name).unwrap();
        planned.pod.as_ref().unwrap().taken.join(" ")
    };
    assert_eq!(taken("a"), "networks ports hostname dns extra_hosts");
    assert_eq!(taken("c"), "");
    let plan = planned(&files, &["c.yml", "o.yml"], Choice::Either);
    assert_eq!(
        pod(&plan, "a").unwrap_err(),
        "it has `networks`, `ports`, `hostname`, `dns`, `extra_hosts`"
    );
    assert_eq!(
        pod(&plan, "c").unwrap(),
        "{\"networks\":{\"default\":{\"aliases\":[\"c\"]}}}"
    );
}

#[test]
fn who_is_not_intercepted_has_no_pod() {
    let text = "services: {a: {image: redis, labels: {sidecar.istio.io/interceptionMode: none}}, b: {image: redis}}";
    let plan = planned_for(&[("c.yml", text)], &["c.yml"], Choice::Either, true);
    assert_eq!(pod(&plan, "a").unwrap_err(), "no traffic is intercepted");
    assert!(pod(&plan, "b").is_ok());
}

#[test]
fn what_takes_part_in_a_service_takes_part_in_its_pod() {
    let text = "
services:
  a: {image: redis}
  b: {image: redis, links: [\"a:cache\"], depends_on: {c: {condition: service_started, required: false}}}
  c: {image: redis, profiles: [p]}
  beside: {network_mode: \"service:a\", labels: {topsail.io/inject: \"false\"}}
  outside: {links: [a, \"other:o\"], depends_on: [a], labels: {topsail.io/inject: \"false\"}}
  other: {labels: {topsail.io/inject: \"false\"}}
";
    let plan = planned_for(&[("c.yml", text)], &["c.yml"], Choice::All, true);
    assert!(plan.problems.is_empty());
    let ties = |name: &str| plan.ties.get(name).unwrap();
    assert_eq!(ties("b").links.as_deref(), Some(&["a-pod:cache".to_owned()][..]));
    assert_eq!(ties("b").started, ["a"]);
    assert_eq!(
        ties("b")
            .after
            .iter()
            .map(|after| (&*after.service, after.required))
            .collect::<Vec<_>>(),
        [("c", false), ("a", true)]
    );
    assert_eq!(ties("beside").network_mode.as_deref(), Some("service:a-pod"));
    assert_eq!(
        (after(&plan, "beside"), &*ties("beside").started),
        (vec!["a"], &["a".to_owned()][..])
    );
    assert_eq!(
        ties("outside").links.as_deref(),
        Some(&["a-pod:a".to_owned(), "other:o".to_owned()][..])
    );
    assert!(ties("outside").started.is_empty(), "it says so itself");
    let plan = planned(&[("c.yml", text)], &["c.yml"], Choice::All);
    assert_eq!(pod(&plan, "a").unwrap_err(), "`b` links to it");
    assert!(!plan.ties.contains_key("beside"));
}

#[test]
fn a_variable_of_an_included_file_stays_there() {
    let files = [
        (
            "c.yml",
            "include: [d/inc.yml]\nservices: {a: {expose: [\"80\"], hostname: \"${A}\"}}\n",
        ),
        (
            "d/inc.yml",
            "services: {b: {ports: [\"${B}:80\"]}, c: {ports: [\"80\"], environment: [\"X=${C}\"], hostname: \"a$$b\"}}\n",
        ),
    ];
    let plan = planned_for(&files, &["c.yml"], Choice::Either, true);
    assert!(pod(&plan, "a").is_ok() && pod(&plan, "c").is_ok());
    assert_eq!(
        pod(&plan, "b").unwrap_err(),
        "`ports` uses a variable in an included file"
    );
}

proptest::proptest! {
    #[test]
    fn nothing_panics(
        text in "(services: |a: |\\{|\\}|\\[|\\]|ports: |expose: |labels: |extends: |networks: |links: |network_mode: |include: |80|:|-|,|\\$\\{|\n|  |topsail.io/ports|\"|=|<<: |&a|\\*a|!reset |ü){0,40}",
        takes_back: bool,
    ) {
        let plan = planned_for(&[("c.yml", &text)], &["c.yml"], Choice::Either, takes_back);
        for problem in &plan.problems {
            let Some(place) = problem.place() else { continue };
            assert!(place.source.text.get(place.span.clone()).is_some(), "{problem:?}");
            assert!(!crate::diag::render::text(problem, false).is_empty());
        }
        if !plan.has_errors() {
            let settings = Override {
                image: String::new(),
                sidecar_image: String::new(),
                dataplane: String::new(),
                config: String::new(),
            };
            let written = crate::diag::SourceText::new("o.yml".to_owned(), additions(&plan, &settings).unwrap());
            let parsed = crate::source::node::parse(&crate::source::document::Document::whole(&written));
            assert!(parsed.root.is_some() && parsed.diagnostics.is_empty(), "{}", written.text);
        }
    }
}
