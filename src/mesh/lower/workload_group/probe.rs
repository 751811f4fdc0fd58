//! Readiness probe of a WorkloadGroup.

use std::net::IpAddr;
use std::sync::Arc;

use crate::api::FieldPath;
use crate::api::workload_group as api;
use crate::diag::Code;
use crate::mesh::lower::report::Report;
use crate::mesh::lower::value::{is_fqdn, is_header_name};
use crate::mesh::workload::{HttpProbe, Probe};

/// Lowers `probe`; `None` only after an error.
pub(super) fn probe(report: &mut Report<'_>, at: &FieldPath, entry: &api::ReadinessProbe) -> Option<Probe> {
    let mut number = |name, value, default| report.limit(&at.field(name), value).unwrap_or(default);
    let probe = Probe {
        initial_delay: number("initialDelaySeconds", entry.initial_delay_seconds, 0),
        timeout: number("timeoutSeconds", entry.timeout_seconds, 1),
        period: number("periodSeconds", entry.period_seconds, 10),
        successes: number("successThreshold", entry.success_threshold, 1),
        // Istio's API reference says 3; its agent uses 1.
        failures: number("failureThreshold", entry.failure_threshold, 3),
        host: None,
        port: 0,
        http: None,
    };
    one_way(report, at, entry)?;
    if let Some(get) = &entry.http_get {
        let at = at.field("httpGet");
        return Some(Probe {
            host: host(report, &at, &get.host),
            port: report.port(&at.field("port"), get.port),
            http: Some(http(report, &at, get)),
            ..probe
        });
    }
    let socket = entry.tcp_socket.as_ref()?;
    let at = at.field("tcpSocket");
    Some(Probe {
        host: host(report, &at, &socket.host),
        port: report.port(&at.field("port"), socket.port),
        ..probe
    })
}

/// Checks that there is exactly one probe type, and that it is supported.
fn one_way(report: &mut Report<'_>, at: &FieldPath, entry: &api::ReadinessProbe) -> Option<()> {
    let ways = [
        ("httpGet", entry.http_get.is_some()),
        ("tcpSocket", entry.tcp_socket.is_some()),
        ("exec", entry.exec.is_some()),
    ];
    let mut written = ways
        .into_iter()
        .filter_map(|(name, is_written)| is_written.then_some(name));
    let Some(first) = written.next() else {
        report.error(at, "a probe must have a handler: `httpGet` or `tcpSocket`");
        return None;
    };
    if let Some(second) = written.next() {
        let message = format!("a probe must have a single handler, but `{first}` is already set");
        report.error(&at.field(second), message);
        return None;
    }
    if let Some(exec) = &entry.exec {
        let at = at.field("exec");
        if exec.command.is_empty() {
            report.error(&at, "a `command` is required");
        }
        let message = "a command is not run by sidecars: whoever can write this file could run programs in the containers \
                       of all members";
        report
            .add(Code::UnsupportedField, &at, message)
            .help("use `httpGet` or `tcpSocket`");
        return None;
    }
    Some(())
}

fn host(report: &mut Report<'_>, at: &FieldPath, host: &str) -> Option<Arc<str>> {
    if host.is_empty() {
        return None;
    }
    if host.parse::<IpAddr>().is_err() && !is_fqdn(host) {
        let message = format!("`{host}` is neither an IP address nor a domain name");
        report.error(&at.field("host"), message);
    }
    Some(host.into())
}

fn http(report: &mut Report<'_>, at: &FieldPath, get: &api::HttpGet) -> HttpProbe {
    if !matches!(get.scheme.as_str(), "" | "HTTP" | "HTTPS") {
        let message = format!("`{}` is not a valid scheme: expected `HTTP` or `HTTPS`", get.scheme);
        report.error(&at.field("scheme"), message);
    }
    let path = match get.path.starts_with('/') {
        true => get.path.clone(),
        false => format!("/{}", get.path),
    };
    if path.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
        report.error(
            &at.field("path"),
            "a path must not contain spaces or `#`, and non-ASCII characters must be percent-encoded",
        );
    }
    let headers_at = at.field("httpHeaders");
    for (index, header) in get.http_headers.iter().enumerate() {
        let at = headers_at.index(index);
        if !is_header_name(&header.name) {
            report.error(
                &at.field("name"),
                format!("`{}` is not a valid header name", header.name),
            );
        }
        if header.value.chars().any(char::is_control) {
            report.error(&at.field("value"), "a header value must be a single line");
        }
    }
    let headers = get.http_headers.iter();
    HttpProbe {
        path: path.into(),
        tls: get.scheme == "HTTPS",
        headers: headers
            .map(|header| (header.name.as_str().into(), header.value.as_str().into()))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use crate::mesh::lower::{Context, Form};
    use crate::mesh::testing::{expect_as_marked, objects};
    use crate::mesh::workload::{HttpProbe, Probe};

    fn probe(text: &str) -> Probe {
        let head = "{apiVersion: networking.istio.io/v1, kind: WorkloadGroup, metadata: {name: a}, spec: {template: {}, probe: ";
        let object = objects("a.yaml", &format!("{head}{text}}}}}\n")).pop().unwrap();
        let lowered = crate::mesh::lower::lower(&object, &Context::default());
        match lowered.value {
            Some(Form::WorkloadGroup(group)) => group.probe.clone().unwrap(),
            _ => panic!("{:?}", lowered.findings),
        }
    }

    #[test]
    fn unset_fields_have_defaults() {
        let expected = Probe {
            initial_delay: 0,
            timeout: 1,
            period: 10,
            successes: 1,
            failures: 3,
            host: None,
            port: 9080,
            http: None,
        };
        assert_eq!(probe("{tcpSocket: {port: 9080}}"), expected);
        let get = HttpProbe {
            path: "/".into(),
            tls: false,
            headers: Vec::new(),
        };
        let expected = Probe {
            http: Some(get),
            ..expected
        };
        assert_eq!(probe("{httpGet: {port: 9080}}"), expected);
    }

    #[test]
    fn set_fields_are_kept() {
        let written = probe(
            "{initialDelaySeconds: 5, timeoutSeconds: 3, periodSeconds: 4, successThreshold: 2, failureThreshold: 6, \
             httpGet: {path: foo/bar, host: 127.0.0.1, port: 3100, scheme: HTTPS, httpHeaders: [{name: A-b, value: c d}]}}",
        );
        let expected = Probe {
            initial_delay: 5,
            timeout: 3,
            period: 4,
            successes: 2,
            failures: 6,
            host: Some("127.0.0.1".into()),
            port: 3100,
            http: Some(HttpProbe {
                path: "/foo/bar".into(),
                tls: true,
                headers: vec![("A-b".into(), "c d".into())],
            }),
        };
        assert_eq!(written, expected);
    }

    #[test]
    fn errors_are_reported_at_their_field() {
        expect_as_marked(
            r#"
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: a}
spec:
  template: {}
  probe: {periodSeconds: 1}             #! IST0106
---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: b}
spec:
  template: {}
  probe:
    initialDelaySeconds: -1             #! IST0106
    timeoutSeconds: -1                  #! IST0106
    periodSeconds: -1                   #! IST0106
    successThreshold: -1                #! IST0106
    failureThreshold: -1                #! IST0106
    tcpSocket:
      port: 0                           #! IST0106
      host: a_b                         #! IST0106
---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: c}
spec:
  template: {}
  probe:
    httpGet:
      port: 70000                       #! IST0106
      path: a b                         #! IST0106
      scheme: http                      #! IST0106
      httpHeaders:
      - name: a b                       #! IST0106
        value: "a\nb"                   #! IST0106
---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: d}
spec:
  template: {}
  probe:
    httpGet: {port: 80}
    tcpSocket: {port: 80}               #! IST0106
---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: e}
spec:
  template: {}
  probe:
    exec: {command: [a]}                #! TS0005
"#,
        );
    }
}
