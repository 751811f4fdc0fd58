use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::*;
use crate::control::{Admission, Grant, MemberId, State as Served};
use crate::diag::{Code, Diagnostic, Place, SourceText};
use crate::ir::NodeView;
use crate::mesh::service::Locality;
use crate::xds::node::NodeClaim;
use crate::xds::pb::core::Node;
use crate::xds::resource::{Resource, ResourceType};
use crate::xds::server::Progress;
use crate::xds::session::{Refused, SyncState};
use crate::xds::snapshot::Snapshot;

const NODE: &str = "sidecar~127.0.0.5~reviews-v1.shop~shop.svc.cluster.local";

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn admin() -> Admin {
    Admin {
        published: Arc::default(),
        roster: Arc::default(),
        clock: Clock::fixed(now()),
    }
}

fn load(admin: &Admin) {
    let source = SourceText::new("mesh/a.yaml", "hosts:\n- reviews\n");
    let place = Place { source, span: 9..16 };
    admin.published.set(Served {
        generation: Some(Generation {
            number: 7,
            hash: "abc".to_owned(),
            objects: 12,
            accepted_at: 1_700_000_000_500,
        }),
        diagnostics: [Diagnostic::new(Code::ReferencedResourceNotFound, "no such host").at(place)].into(),
        ..Served::default()
    });
}

fn connect(admin: &Admin) -> MemberId {
    let node = Node {
        id: NODE.to_owned(),
        ..Node::default()
    };
    let claim = NodeClaim::read(&node).unwrap();
    let grant = Grant {
        identity: "spiffe://cluster.local/ns/shop/sa/reviews".parse().unwrap(),
        workload: claim.workload.clone(),
        stated: None,
        member: None,
        token_expires: Some(now() - Duration::from_secs(1)),
    };
    let view = NodeView {
        namespace: "shop".parse().unwrap(),
        labels: Arc::default(),
        addresses: Vec::new(),
        locality: Locality::default(),
        mode: claim.mode,
    };
    let admission = Admission {
        claim,
        grant,
        view,
        since: now(),
    };
    let (id, ..) = admin.roster.enter(admission);
    let mut snapshot = Snapshot::new(7);
    for kind in ResourceType::ALL {
        let resource = Resource::new(kind, "a".into(), vec![], [].into());
        snapshot.set_mut(kind).insert("a".into(), Arc::new(resource));
    }
    admin.roster.set_base(id, &Arc::new(snapshot));
    id
}

/// The response to a request, including status line and headers.
async fn answer(admin: &Admin, ip: IpAddr, request: &str) -> String {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, admin.clone(), async move { drop(stopped.await) }));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    answer
}

async fn get(admin: &Admin, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answer = answer(admin, Ipv4Addr::LOCALHOST.into(), &request).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

async fn json(admin: &Admin, path: &str) -> (u16, Value) {
    let (status, body) = get(admin, path).await;
    (
        status,
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}")),
    )
}

#[tokio::test]
async fn ready_once_a_generation_is_served() {
    let admin = admin();
    assert_eq!(get(&admin, "/healthz").await.0, 200);
    assert_eq!(get(&admin, "/ready").await, (503, "loading\n".to_owned()));
    let (status, body) = json(&admin, "/api/v1/generation").await;
    assert_eq!((status, body["error"].is_string()), (503, true));
    load(&admin);
    assert_eq!(get(&admin, "/ready").await, (200, "ready\n".to_owned()));
    let (status, body) = json(&admin, "/api/v1/generation").await;
    assert_eq!(
        (status, &body["number"], &body["hash"]),
        (200, &7.into(), &"abc".into())
    );
}

#[tokio::test]
async fn generation_reports_convergence() {
    let admin = admin();
    load(&admin);
    let id = connect(&admin);
    assert_eq!(json(&admin, "/api/v1/generation").await.1["converged"], Value::Null);
    let progress = Progress {
        states: ResourceType::ALL.map(|kind| (kind, SyncState::Synced)),
        generation: Some(7),
        up_to_date: true,
        refusals: &[],
        refused: &Refused::new(),
    };
    admin.roster.progress(id, &progress, now());
    assert_eq!(
        json(&admin, "/api/v1/generation").await.1["converged"],
        serde_json::json!({"generation": 7, "at": 1_800_000_000_000_000_u64})
    );
}

#[tokio::test]
async fn diagnostics_are_listed_with_their_location() {
    let admin = admin();
    assert_eq!(json(&admin, "/api/v1/diagnostics").await.1, serde_json::json!([]));
    load(&admin);
    let (_, body) = json(&admin, "/api/v1/diagnostics").await;
    assert_eq!(
        (&body[0]["code"], &body[0]["line"], &body[0]["column"]),
        (&"IST0101".into(), &2.into(), &3.into())
    );
}

#[tokio::test]
async fn connected_proxies_are_listed() {
    let admin = admin();
    assert_eq!(json(&admin, "/api/v1/proxies").await.1, serde_json::json!([]));
    connect(&admin);
    let (_, body) = json(&admin, "/api/v1/proxies").await;
    assert_eq!(
        (&body[0]["id"], &body[0]["workload"]),
        (&NODE.into(), &"reviews-v1.shop".into())
    );
    assert_eq!(
        (&body[0]["types"]["CDS"], &body[0]["token_expired"]),
        (&"NOT_SENT".into(), &true.into())
    );
}

#[tokio::test]
async fn config_dump_has_envoys_format() {
    let admin = admin();
    connect(&admin);
    for proxy in ["reviews-v1.shop", NODE] {
        let (status, body) = json(&admin, &format!("/debug/config_dump?proxy={proxy}")).await;
        assert_eq!(status, 200);
        let parts: Vec<&str> = body["configs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|part| part["@type"].as_str().unwrap())
            .collect();
        let names = ["Clusters", "Endpoints", "Listeners", "Routes", "Secrets"];
        assert_eq!(
            parts,
            names.map(|name| format!("type.googleapis.com/envoy.admin.v3.{name}ConfigDump"))
        );
        let listener = &body["configs"][2]["dynamic_listeners"][0];
        assert_eq!(
            (&listener["name"], &listener["active_state"]["listener"]["name"]),
            (&"a".into(), &"a".into())
        );
    }
    for path in ["/debug/config_dump", "/debug/config_dump?proxy=ratings-v1.shop"] {
        let (status, body) = json(&admin, path).await;
        assert!(
            (400..500).contains(&status) && body["error"].as_str().unwrap().contains("prox"),
            "{body}"
        );
    }
}

#[tokio::test]
async fn metrics_count_what_the_api_lists() {
    let admin = admin();
    load(&admin);
    connect(&admin);
    let (status, body) = get(&admin, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "topsail_generation 7",
        "topsail_objects 12",
        "topsail_generation_accepted_timestamp_seconds 1700000000.5",
        "topsail_diagnostics{severity=\"error\"} 1",
        "topsail_diagnostics{severity=\"info\"} 0",
        "topsail_proxies 1",
        "topsail_proxy_types{type=\"CDS\",state=\"NOT_SENT\"} 1",
        "topsail_proxy_types{type=\"CDS\",state=\"SYNCED\"} 0",
        "topsail_refused_resources 0",
        "topsail_expired_tokens 1",
        "# EOF",
    ] {
        assert!(body.lines().any(|found| found == line), "{line}:\n{body}");
    }
    for start in [
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
        "topsail_build_info{version=",
    ] {
        assert!(body.lines().any(|line| line.starts_with(start)), "{start}:\n{body}");
    }
}

#[tokio::test]
async fn unknown_paths_and_proxies_are_json_errors() {
    let admin = admin();
    let (status, body) = json(&admin, "/api/v2").await;
    assert!(
        status == 404 && body["error"].as_str().unwrap().contains("/api/v1/proxies"),
        "{body}"
    );
    let request = "POST /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let answer = answer(&admin, Ipv4Addr::LOCALHOST.into(), request).await;
    assert!(
        answer.starts_with("HTTP/1.1 405") && answer.ends_with("{\"error\":\"only GET is answered\"}"),
        "{answer}"
    );
}

#[tokio::test]
async fn requests_for_other_hosts_are_rejected() {
    let admin = admin();
    let request = "GET /api/v1/diagnostics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    let refused = answer(&admin, Ipv4Addr::LOCALHOST.into(), request).await;
    assert!(refused.starts_with("HTTP/1.1 421"), "{refused}");
    let open = answer(&admin, Ipv4Addr::UNSPECIFIED.into(), request).await;
    assert!(open.starts_with("HTTP/1.1 200"), "{open}");
}
