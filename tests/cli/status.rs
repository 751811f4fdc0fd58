//! `topsail status`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use serde_json::Value;
use topsail::envoy::{Finder, Launch, Process, Program};

use crate::run::{fails, path, run, stdout, text};
use crate::serve::{Server, folder};

/// An address that other processes of this user do not use.
fn own_address() -> IpAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 130, high, low | 1).into()
}

#[tokio::test]
async fn proxies_are_shown_with_their_sync_state() {
    let folder = folder();
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{name: http, port: 80}]}\n";
    fs::write(folder.path().join("config/a.yaml"), service).unwrap();
    fs::write(folder.path().join("config/b.yaml"), "kind: Srevice\napiVersion: v1\n").unwrap();
    let server = Server::start(&folder, &[]);
    server.ready().await;
    let (admin, xds, state) = (server.admin.to_string(), server.xds.to_string(), path(&folder, "state"));
    let empty = stdout(&["status", "--admin", &admin]);
    assert!(
        empty.contains("no proxies connected") && empty.contains("config/b.yaml:1:"),
        "{empty}"
    );

    let (ip, bootstrap) = (own_address(), folder.path().join("envoy.yaml"));
    let workload = [
        "bootstrap",
        "--workload",
        "client",
        "--mode",
        "NONE",
        "--state",
        &state,
        "--server",
        &xds,
    ];
    fs::write(
        &bootstrap,
        stdout(&[&workload[..], &["--ip", &ip.to_string()]].concat()),
    )
    .unwrap();
    let launch = Launch {
        program: Program::Envoy(Finder::from_env().find(&|text| eprintln!("{text}")).unwrap()),
        admin: SocketAddr::new(ip, 15000),
        log: folder.path().join("envoy.log"),
        bootstrap,
        reject_unknown_fields: true,
        user: None,
    };
    let mut envoy = Process::start(&launch).unwrap();
    envoy.ready(Duration::from_secs(60)).await.unwrap();

    // The last ACK may still be on its way when Envoy is ready.
    let table = loop {
        let output = run(&["status", "--admin", &admin]);
        if output.status.success() {
            break text(&output.stdout).to_owned();
        }
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), ""));
    };
    let row = table.lines().find(|line| line.starts_with("client.default")).unwrap();
    let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(cells[1..=2], ["SYNCED", "SYNCED"], "{table}");
    assert_eq!(cells[6..=7], ["1", "envoy 1.40.0"], "{table}");

    let all: Value = serde_json::from_str(&stdout(&["status", "--admin", &admin, "-o", "json"])).unwrap();
    assert_eq!(
        (&all["generation"]["number"], &all["proxies"][0]["workload"]),
        (&1.into(), &"client.default".into())
    );
    assert_eq!(all["diagnostics"][0]["code"], "TS0003");
    assert_eq!(stdout(&["status", "--admin", &admin, "--ready"]), "ready\n");
    assert_eq!(
        fs::read_to_string(&launch.log).unwrap(),
        "",
        "Envoy has nothing to complain of"
    );
    envoy.stop(Duration::from_secs(10)).await;
}

#[test]
fn an_unreachable_server_is_reported() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    for arguments in [
        &["status", "--admin", &nobody][..],
        &["status", "--ready", "--admin", &nobody],
    ] {
        let stderr = fails(1, arguments);
        assert!(
            stderr.contains("is `topsail serve` running?") && stderr.contains(&nobody),
            "{stderr}"
        );
    }
}
