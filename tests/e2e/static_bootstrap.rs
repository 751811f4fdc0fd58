//! Static bootstraps without a control plane: the same file works for Envoy and for the bundled proxy.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use topsail::clock::Clock;
use topsail::pki::{Ca, IssueOptions, StateDir};

use crate::harness::alone::Alone;
use crate::harness::{Backend, Identity, Load, Plane, answering, eventually, get, run, tls};
use crate::on_each_plane;

on_each_plane! {
    a_bootstrap_as_in_envoys_documentation_works,
    file_based_secrets_are_rotated_without_losing_requests,
    static_secrets_and_certificate_files_work,
    a_bootstrap_as_written_by_istios_agent_works,
}

const BY_HAND: &str = r#"
# What stands in most introductions, and a little more.
admin:
  address:
    socket_address: { address: ADMIN_IP, port_value: 15000 }

node: {id: by-hand, cluster: documentation}

static_resources:
  listeners:
  - name: listener_0
    address:
      socket_address:
        protocol: TCP
        address: LISTENER_0
        port_value: 8080
    enable_reuse_port: false
    per_connection_buffer_limit_bytes: 32768 # 32 KiB
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress_http
          codec_type: AUTO
          use_remote_address: true
          common_http_protocol_options:
            idle_timeout: 3600s
            headers_with_underscores_action: REJECT_REQUEST
          http2_protocol_options:
            max_concurrent_streams: 100
            initial_stream_window_size: 65536 # 64 KiB
            initial_connection_window_size: 1048576 # 1 MiB
          stream_idle_timeout: 300s
          request_timeout: 300s
          access_log:
          - name: envoy.access_loggers.stdout
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            name: local_route
            virtual_hosts:
            - name: local_service
              domains: ["*"]
              routes:
              - match: { prefix: "/app" }
                route:
                  prefix_rewrite: "/"
                  host_rewrite_literal: www.example.com
                  cluster: by_name
                  timeout: 15s
                  retry_policy: { retry_on: "5xx,connect-failure", num_retries: 2 }
              - match: { path: "/hello" }
                direct_response: { status: 200, body: { inline_string: "hello\n" } }
                response_headers_to_add:
                - header: { key: content-language, value: en }
              - match:
                  safe_regex: { regex: "/old/.*" }
                redirect: { https_redirect: true, host_redirect: www.example.com }
  - name: listener_tcp
    address: { socket_address: { address: LISTENER_1, port_value: 8080 } }
    enable_reuse_port: false
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: tcp
  clusters:
  - name: by_name
    type: LOGICAL_DNS
    # Comment out the following line to test on v6 networks
    dns_lookup_family: V4_ONLY
    connect_timeout: 0.25s
    lb_policy: ROUND_ROBIN
    load_assignment:
      cluster_name: by_name
      endpoints:
      - lb_endpoints:
        - endpoint:
            address:
              socket_address: { address: localhost, port_value: HTTP_PORT }
    circuit_breakers:
      thresholds:
      - { priority: DEFAULT, max_connections: 100, max_pending_requests: 100 }
    outlier_detection: { consecutive_5xx: 5, base_ejection_time: 30s }
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config:
          http2_protocol_options:
            max_concurrent_streams: 100
  - name: tcp
    type: STRICT_DNS
    dns_lookup_family: V4_ONLY
    connect_timeout: 1s
    load_assignment:
      cluster_name: tcp
      endpoints:
      - lb_endpoints:
        - endpoint: { address: { socket_address: { address: localhost, port_value: TCP_PORT } } }
"#;

fn by_hand(admin: SocketAddr, listeners: &[SocketAddr], http: SocketAddr, tcp: SocketAddr) -> String {
    BY_HAND
        .replace("ADMIN_IP", &admin.ip().to_string())
        .replace("LISTENER_0", &listeners[0].ip().to_string())
        .replace("LISTENER_1", &listeners[1].ip().to_string())
        .replace("HTTP_PORT", &http.port().to_string())
        .replace("TCP_PORT", &tcp.port().to_string())
}

async fn a_bootstrap_as_in_envoys_documentation_works(which: Plane) {
    let (http, tcp) = (Backend::http("web").await, Backend::tcp("bytes").await);
    let write = |admin: SocketAddr, listeners: &[SocketAddr]| by_hand(admin, listeners, http.address(), tcp.address());
    let mut alone = Alone::written(which, "envoy.yaml", 2, write).await;
    alone.sidecar.ready().await;
    let to = alone.listener(0);
    let seen = get(to, "any", "/app/page?a=b").expect(200).await.seen();
    assert_eq!(
        (seen.authority.as_str(), seen.path.as_str(), seen.protocol.as_str()),
        ("www.example.com", "//page?a=b", "HTTP/2.0")
    );
    assert_eq!(seen.headers["x-envoy-original-path"], "/app/page?a=b");
    let hello = get(to, "any", "/hello").expect(200).await;
    assert_eq!(
        (hello.text().as_str(), hello.header("content-language")),
        ("hello\n", "en")
    );
    let old = get(to, "any", "/old/page").expect(301).await;
    assert_eq!(old.header("location"), "https://www.example.com/old/page");
    get(to, "any", "/app").header("x_a", "1").expect(400).await;
    get(to, "any", "/nowhere").expect(404).await;
    let stream = tokio::net::TcpStream::connect(alone.listener(1)).await.unwrap();
    assert_eq!(answering(stream).await.unwrap(), "bytes");
}

/// A bootstrap as Istio's agent writes it, without the control plane.
const AGENTS: &str = r#"{
  "node": {"id": "sidecar~10.0.0.1~a.default~default.svc.cluster.local", "cluster": "a.default", "metadata": {"NAME": "a"}},
  "layered_runtime": {"layers": [
    {"name": "global config", "static_layer": {"re2.max_program_size.error_level": "32768"}},
    {"name": "admin", "admin_layer": {}}
  ]},
  "bootstrap_extensions": [{
    "name": "envoy.bootstrap.internal_listener",
    "typed_config": {
      "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
      "type_url": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
      "value": {"buffer_size_kb": 64}
    }
  }],
  "stats_config": {
    "use_all_default_tags": false,
    "stats_tags": [
      {"tag_name": "cluster_name", "regex": "^cluster\\.((.+?(\\..+?\\.svc\\.cluster\\.local)?)\\.)"},
      {"tag_name": "listener_prefix", "regex": "^listener(?=\\.).*?\\.http\\.(((?:[_.[:digit:]]*|[_\\[\\]aAbBcCdDeEfF[:digit:]]*))\\.)"}
    ],
    "stats_matcher": {"inclusion_list": {"patterns": [{"prefix": "cluster.agent"}, {"suffix": "rq_total"}]}}
  },
  "admin": {
    "access_log": [{"name": "envoy.access_loggers.file", "typed_config": {
      "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": "/dev/null"
    }}],
    "profile_path": "{dir}/envoy.prof",
    "address": {"socket_address": {"address": "ADMIN_IP", "port_value": 15000}}
  },
  "static_resources": {
    "clusters": [
      {
        "name": "prometheus_stats", "type": "STATIC", "connect_timeout": "0.250s", "lb_policy": "ROUND_ROBIN",
        "load_assignment": {"cluster_name": "prometheus_stats", "endpoints": [{"lb_endpoints": [{"endpoint": {
          "address": {"socket_address": {"protocol": "TCP", "address": "ADMIN_IP", "port_value": 15000}}
        }}]}]}
      },
      {
        "name": "agent", "type": "STATIC", "connect_timeout": "1s", "lb_policy": "ROUND_ROBIN",
        "load_assignment": {"cluster_name": "agent", "endpoints": [{"lb_endpoints": [{"endpoint": {
          "address": {"socket_address": {"address": "127.0.0.1", "port_value": AGENT_PORT}}
        }}]}]},
        "circuit_breakers": {"thresholds": [
          {"priority": "DEFAULT", "max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000},
          {"priority": "HIGH", "max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}
        ]},
        "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 300}},
        "max_requests_per_connection": 1
      }
    ],
    "listeners": [
      {
        "address": {"socket_address": {"protocol": "TCP", "address": "LISTENER_0", "port_value": 8080}},
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": {
          "@type": "HTTP_MANAGER", "codec_type": "AUTO", "stat_prefix": "stats",
          "route_config": {"virtual_hosts": [{"name": "backend", "domains": ["*"], "routes": [
            {"match": {"prefix": "/stats/prometheus"}, "route": {"cluster": "prometheus_stats"}},
            {"match": {"prefix": "/healthz/ready"}, "route": {"cluster": "agent"}}
          ]}]},
          "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": "ROUTER"}}]
        }}]}]
      }
    ]
  }
}"#;

async fn a_bootstrap_as_written_by_istios_agent_works(which: Plane) {
    let agent = Backend::http("agent").await;
    let text = AGENTS
        .replace("AGENT_PORT", &agent.address().port().to_string())
        .replace(
            "HTTP_MANAGER",
            "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        )
        .replace(
            "ROUTER",
            "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        );
    let write = |admin: SocketAddr, listeners: &[SocketAddr]| {
        text.replace("ADMIN_IP", &admin.ip().to_string())
            .replace("LISTENER_0", &listeners[0].ip().to_string())
    };
    let mut alone = Alone::written(which, "envoy.json", 1, write).await;
    alone.sidecar.allow_log("Using deprecated option");
    alone.sidecar.allow_log("runtime layers has no effect");
    alone.sidecar.ready().await;
    for _ in 0..3 {
        get(alone.listener(0), "a", "/healthz/ready").expect(200).await;
    }
    let stats = alone.sidecar.stats("cluster.agent.upstream_cx_total").await;
    assert_eq!(
        stats["cluster.agent.upstream_cx_total"], 3,
        "one request per connection"
    );
    let metrics = get(alone.listener(0), "a", "/stats/prometheus")
        .expect(200)
        .await
        .text();
    assert!(
        metrics.contains("envoy_cluster_upstream_rq_total{cluster_name=\"agent\"} 3"),
        "{metrics}"
    );
}

/// A CA, and a directory in which its certificates are replaced atomically by a symlink, as in Kubernetes volumes.
struct Issuer {
    state: TempDir,
    files: TempDir,
}

const OWN: &str = "spiffe://example.org/ns/default/sa/own";

impl Issuer {
    fn new() -> Self {
        let issuer = Self {
            state: tempfile::tempdir().unwrap(),
            files: tempfile::tempdir().unwrap(),
        };
        issuer.rotate("one");
        let root = fs::read(issuer.state.path().join("ca/root-cert.pem")).unwrap();
        fs::write(issuer.files.path().join("root.pem"), root).unwrap();
        for name in ["cert.pem", "key.pem"] {
            symlink(format!("..data/{name}"), issuer.files.path().join(name)).unwrap();
        }
        issuer
    }

    fn dir(&self) -> &Path {
        self.files.path()
    }

    /// Replaces the certificate and returns the new one.
    fn rotate(&self, name: &str) -> CertificateDer<'static> {
        let state = StateDir::open(self.state.path()).unwrap();
        let ca = Ca::load_or_create(&state, &"example.org".parse().unwrap(), &Clock::system()).unwrap();
        let issued = ca.issue(&OWN.parse().unwrap(), &IssueOptions::default()).unwrap();
        let folder = self.dir().join(format!("..{name}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("cert.pem"), &issued.chain_pem).unwrap();
        fs::write(folder.join("key.pem"), issued.key_pem.expose()).unwrap();
        symlink(format!("..{name}"), self.dir().join("..new")).unwrap();
        fs::rename(self.dir().join("..new"), self.dir().join("..data")).unwrap();
        CertificateDer::from_pem_slice(issued.chain_pem.as_bytes()).unwrap()
    }

    fn identity(&self) -> Identity {
        Identity::issued(self.state.path(), "example.org", OWN)
    }

    /// Replaces the file of a secret by rename. Envoy expects one secret per file.
    fn secret(&self, name: &str, what: &str) {
        let text = format!(
            "resources:\n- \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\n  \
             name: {name}\n  {what}\n"
        );
        fs::write(
            self.dir().join("partial"),
            text.replace("<DIR>", self.dir().to_str().unwrap()),
        )
        .unwrap();
        fs::rename(self.dir().join("partial"), self.dir().join(format!("{name}.yaml"))).unwrap();
    }
}

/// The validation context of both sides.
const TRUSTED: &str = "validation_context: {trusted_ca: {filename: <DIR>/root.pem}, match_typed_subject_alt_names: \
    [{san_type: URI, matcher: {exact: \"spiffe://example.org/ns/default/sa/own\"}}]}";

/// A certificate in watched files.
const IN_FILES: &str = "{certificate_chain: {filename: <DIR>/cert.pem}, private_key: {filename: <DIR>/key.pem}, \
    watched_directory: {path: <DIR>}}";

/// A plain-text listener that forwards to a second listener over mutual TLS, and from there to a host. `OWN` stands for
/// the certificate of both sides, `TRUST` for their validation context.
const THERE_AND_BACK: &str = r#"
admin: {address: {socket_address: {address: ADMIN_IP, port_value: 15000}}}
node: {id: alone, cluster: test}
static_resources:
  SECRETS
  listeners:
  - name: out
    address: {socket_address: {address: LISTENER_0, port_value: 8080}}
    enable_reuse_port: false
    filter_chains:
    - filters: [{name: hcm, typed_config: &hcm {"@type": HCM, stat_prefix: out, http_filters: [&router {name: router, typed_config: {"@type": ROUTER}}],
        route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: in}}]}]}}}]
  - name: in
    address: {socket_address: {address: LISTENER_1, port_value: 8080}}
    enable_reuse_port: false
    filter_chains:
    - filters: [{name: hcm, typed_config: {"@type": HCM, stat_prefix: in, http_filters: [*router],
        route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: app}}]}]}}}]
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context: &tls
            OWN
            TRUST
  clusters:
  - name: in
    type: STATIC
    load_assignment: {cluster_name: in, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: LISTENER_1, port_value: 8080}}}}]}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        common_http_protocol_options: {max_requests_per_connection: 5}
        explicit_http_config: {http_protocol_options: {}}
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: in.example.org
        common_tls_context: *tls
  - name: app
    type: STATIC
    load_assignment: {cluster_name: app, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: APP_PORT}}}}]}]}
"#;

fn there_and_back(
    secrets: &str,
    own: &str,
    trust: &str,
    dir: &Path,
    app: SocketAddr,
) -> impl FnOnce(SocketAddr, &[SocketAddr]) -> String {
    let text = THERE_AND_BACK
        .replace("OWN", own)
        .replace("TRUST", trust)
        .replace("SECRETS", secrets)
        .replace("<DIR>", dir.to_str().unwrap())
        .replace("APP_PORT", &app.port().to_string())
        .replace(
            "HCM",
            "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        )
        .replace(
            "ROUTER",
            "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        );
    move |admin, listeners| {
        text.replace("ADMIN_IP", &admin.ip().to_string())
            .replace("LISTENER_0", &listeners[0].ip().to_string())
            .replace("LISTENER_1", &listeners[1].ip().to_string())
    }
}

/// Waits for an answer through both listeners, which start one after the other.
async fn answers(alone: &Alone) {
    eventually("an answer", async || {
        let answer = get(alone.listener(0), "web", "/").send().await?;
        match answer.status == 200 {
            true => Ok(()),
            false => Err(answer.text()),
        }
    })
    .await;
}

/// Waits until a listener presents this certificate.
async fn shows(alone: &Alone, identity: &Identity, certificate: &CertificateDer<'_>) {
    eventually("the new certificate is presented", async || {
        let stream = tls::connect(alone.listener(1), "in.example.org", Some(identity), &[]).await?;
        match stream
            .get_ref()
            .1
            .peer_certificates()
            .is_some_and(|shown| shown[0] == *certificate)
        {
            true => Ok(()),
            false => Err("another certificate".to_owned()),
        }
    })
    .await;
}

async fn file_based_secrets_are_rotated_without_losing_requests(which: Plane) {
    let (app, issuer) = (Backend::http("app").await, Issuer::new());
    issuer.secret("own", &format!("tls_certificate: {IN_FILES}"));
    issuer.secret("trust", TRUSTED);
    let secret = |name: &str| {
        format!(
            "{{name: {name}, sds_config: {{path_config_source: {{path: <DIR>/{name}.yaml, watched_directory: {{path: <DIR>}}}}, \
             resource_api_version: V3}}}}"
        )
    };
    let own = format!("tls_certificate_sds_secret_configs: [{}]", secret("own"));
    let trust = format!("validation_context_sds_secret_config: {}", secret("trust"));
    let write = there_and_back("", &own, &trust, issuer.dir(), app.address());
    let mut alone = Alone::written(which, "envoy.yaml", 2, write).await;
    alone.sidecar.ready().await;
    answers(&alone).await;
    let load = Load::start(get(alone.listener(0), "web", "/load"), 50);
    let client = issuer.identity();
    // Certificate files replaced by a symlink, as in Kubernetes volumes.
    for name in ["two", "three"] {
        shows(&alone, &client, &issuer.rotate(name)).await;
    }
    // A new file for the secret, with an inline certificate.
    let last = issuer.rotate("four");
    let text = |name| fs::read_to_string(issuer.dir().join(name)).unwrap();
    let inline = serde_json::json!({
        "certificate_chain": {"inline_string": text("cert.pem")},
        "private_key": {"inline_string": text("key.pem")},
    });
    issuer.secret("own", &format!("tls_certificate: {inline}"));
    shows(&alone, &client, &last).await;
    load.stop().await.assert_lossless();
}

async fn static_secrets_and_certificate_files_work(which: Plane) {
    let (app, issuer) = (Backend::http("app").await, Issuer::new());
    let secrets = format!(
        "secrets:\n  - name: own\n    tls_certificate: {}",
        IN_FILES.replace(", watched_directory: {path: <DIR>}", "")
    );
    let own = "tls_certificate_sds_secret_configs: [{name: own}]";
    let trust = "validation_context: {trusted_ca: {filename: <DIR>/root.pem}}";
    let written = [
        (secrets.as_str(), own),
        ("", &*format!("tls_certificates: [{IN_FILES}]")),
    ];
    for (secrets, own) in written {
        let write = there_and_back(secrets, own, trust, issuer.dir(), app.address());
        let mut alone = Alone::written(which, "envoy.yaml", 2, write).await;
        alone.sidecar.ready().await;
        answers(&alone).await;
        let refused = tls::connect(alone.listener(1), "in.example.org", None, &[]).await;
        // With TLS 1.3, a client learns of the rejection only when it reads.
        assert!(refused.is_err() || answering(refused.unwrap()).await.is_err());
        // Every fifth request opens a new connection, which resumes an earlier TLS session.
        for _ in 0..20 {
            get(alone.listener(0), "web", "/").expect(200).await;
        }
        let reused = alone.sidecar.stats("cluster.in.ssl.session_reused").await;
        assert!(reused["cluster.in.ssl.session_reused"] > 0, "{reused:?}");
    }
}

#[tokio::test]
async fn validate_mode_checks_a_bootstrap_without_starting() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("envoy.yaml");
    // An address that cannot be bound.
    let nobody: SocketAddr = "192.0.2.1:1".parse().unwrap();
    let good = by_hand(nobody, &[nobody, nobody], nobody, nobody);
    let validate = async |text: &str| {
        fs::write(&path, text).unwrap();
        run(&["proxy", "-c", path.to_str().unwrap(), "--mode", "validate"]).await
    };
    let output = validate(&good).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(said, format!("configuration '{}' OK\n", path.display()));
    for (from, to) in [
        ("codec_type: AUTO", "codec_type: HTTP3"),
        ("type: STRICT_DNS", "close_connections_on_host_health_failure: true"),
    ] {
        let output = validate(&good.replacen(from, to, 1)).await;
        assert_eq!(output.status.code(), Some(1), "{to}");
        let field = to.split(':').next().unwrap();
        assert!(String::from_utf8_lossy(&output.stderr).contains(field), "{output:?}");
    }
}

#[tokio::test]
async fn bootstrap_errors_are_reported_with_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("envoy.yaml");
    let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let good = by_hand(nobody, &[nobody, nobody], nobody, nobody);
    for (from, to, said) in [
        ("codec_type: AUTO", "codec_typ: AUTO", "unknown field"),
        ("connect_timeout: 0.25s", "connect_timeout: soon", "connect_timeout"),
        ("lb_policy: ROUND_ROBIN", "lb_policy: FAIREST", "FAIREST"),
        (
            "type: STRICT_DNS",
            "close_connections_on_host_health_failure: true",
            "this field is not implemented",
        ),
        (
            "use_remote_address: true",
            "scheme_header_transformation: {scheme_to_overwrite: https}",
            "not implemented",
        ),
        ("http_filters:", "http_filters: []\n          unused:", "unknown field"),
        ("stat_prefix: tcp", "stat_prefix: [", ""),
    ] {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good, "{from}");
        fs::write(&path, &text).unwrap();
        let output = run(&["proxy", "--bootstrap", path.to_str().unwrap()]).await;
        assert_eq!(output.status.code(), Some(1), "{to}");
        let at = text.find(to).unwrap() + to.rfind('\n').map_or(0, |end| end + 1);
        let line = text[..at].matches('\n').count() + 1;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let column = match said {
            // YAML syntax errors are reported where parsing stops.
            "" => String::new(),
            _ => {
                let start = text[..at].rfind('\n').unwrap() + 1;
                let indent = text[start..].len() - text[start..].trim_start().len();
                format!("{line}:{}: ", indent + 1)
            }
        };
        let place = format!("error: {}:{column}", path.display());
        assert!(
            error.starts_with(&place) && error.contains(said),
            "{place} {said}\n{error}"
        );
    }
    let (first, second) = (
        "type: STRICT_DNS\n    close_connections_on_host_health_failure: true",
        "scheme_header_transformation: {scheme_to_overwrite: https}",
    );
    let text = good.replacen("type: STRICT_DNS", first, 1);
    fs::write(&path, text.replacen("use_remote_address: true", second, 1)).unwrap();
    let output = run(&["proxy", "--bootstrap", path.to_str().unwrap()]).await;
    let error = String::from_utf8_lossy(&output.stderr);
    let place = format!("error: {}:", path.display());
    assert_eq!(error.matches(&place).count(), 2, "all errors are reported: {error}");
}
