//! `topsail iptables` on isolated hosts.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt, symlink};

use topsail::envoy::User;

use crate::harness::{Plane, get};
use crate::hosts::{Family, Host, Lan};
use crate::stage::Stage;

/// User and group ID of Istio's sidecar.
const PROXY: u32 = 1337;

/// Interception rules of a host.
pub struct Rules {
    /// Interception mode, for `topsail bootstrap --mode` and `topsail iptables apply --mode`.
    pub mode: &'static str,
    /// The sidecar's user. With TPROXY it is root, recognised by its group, because transparent sockets and
    /// packet marks require a capability.
    pub proxy: User,
    /// Additional flags of `topsail iptables apply`.
    flags: &'static [&'static str],
}

impl Rules {
    /// REDIRECT for both directions.
    pub fn redirect() -> Self {
        Self {
            mode: "REDIRECT",
            proxy: User { uid: PROXY, gid: PROXY },
            flags: &[],
        }
    }

    /// TPROXY for inbound traffic, REDIRECT for outbound.
    pub fn tproxy() -> Self {
        Self {
            mode: "TPROXY",
            proxy: User { uid: 0, gid: PROXY },
            flags: &[],
        }
    }

    /// Adds flags.
    fn with(self, flags: &'static [&'static str]) -> Self {
        Self { flags, ..self }
    }

    /// Applies the rules to a host.
    pub fn apply(&self, host: &Host) {
        host.topsail(&[&["iptables", "apply", "--mode", self.mode], self.flags].concat());
    }
}

/// The complete packet filter and routing state of a host.
fn state(host: &Host) -> String {
    let tables = ["nat", "mangle", "raw"].map(|table| {
        ["iptables-save", "ip6tables-save"].map(|save| {
            let saved = host.ran(&[save, "-t", table]);
            let lines = saved.lines().filter(|line| !line.starts_with('#'));
            // Without packet counters.
            lines
                .map(|line| format!("{}\n", line.split(" [").next().unwrap()))
                .collect::<String>()
        })
    });
    let words = |line: &str| host.output(&line.split(' ').collect::<Vec<_>>()).stdout;
    // A routing table without routes does not exist.
    let routing = [
        "ip rule show",
        "ip -6 rule show",
        "ip route show table 133",
        "ip -6 route show table 133",
    ];
    let routing = routing.map(|line| String::from_utf8(words(line)).unwrap());
    let shown = host.ran(&["ip", "-6", "address", "show", "dev", "lo"]);
    let addresses = shown
        .lines()
        .filter_map(|line| line.trim().strip_prefix("inet6 ")?.split(' ').next());
    tables.concat().concat() + &routing.concat() + &addresses.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn applying_twice_changes_nothing_and_clean_keeps_other_rules() {
    let lan = Lan::new(Family::V6);
    let host = lan.host();
    // Rules of others in the same tables.
    host.ran(&["iptables", "-t", "nat", "-N", "DOCKER_OUTPUT"]);
    host.ran(&[
        "iptables",
        "-t",
        "nat",
        "-A",
        "OUTPUT",
        "-d",
        "127.0.0.11/32",
        "-j",
        "DOCKER_OUTPUT",
    ]);
    host.topsail(&["iptables", "clean"]);
    let before = state(&host);
    let dns: &[&str] = &["--redirect-dns", "--redirect-all-dns"];
    let modes: [&[&str]; 4] = [&[], &["--mode", "tproxy"], dns, &["--include-inbound-ports", ""]];
    for flags in modes {
        let apply = [&["iptables", "apply"], flags].concat();
        host.topsail(&apply);
        let applied = state(&host);
        assert!(applied.contains("-A OUTPUT -p tcp -j ISTIO_OUTPUT"), "{applied}");
        assert!(
            applied.contains("-A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT"),
            "{applied}"
        );
        host.topsail(&apply);
        assert_eq!(state(&host), applied, "{flags:?} twice");
        // On top of the rules of another mode.
        host.topsail(&["iptables", "apply", "--mode", "TPROXY", "--redirect-dns"]);
        host.topsail(&apply);
        assert_eq!(state(&host), applied, "{flags:?} over another mode");
        host.topsail(&["iptables", "clean"]);
        assert_eq!(state(&host), before, "{flags:?} cleaned");
        // The script has the same effect.
        let script = host.topsail(&[&apply[..], &["--dry-run"]].concat());
        assert_eq!(state(&host), before, "a dry run changes nothing");
        host.ran(&["sh", "-c", &script]);
        assert_eq!(state(&host), applied, "{flags:?} by its script");
        host.topsail(&["iptables", "clean"]);
    }
    host.topsail(&["iptables", "clean"]);
    assert_eq!(state(&host), before, "cleaned twice");
}

#[tokio::test]
async fn missing_requirements_are_reported_and_leave_no_rules() {
    let lan = Lan::new(Family::V4);
    let host = lan.host();
    let topsail = env!("CARGO_BIN_EXE_topsail");
    let before = state(&host);
    let plain = host.output(&[
        "setpriv",
        "--bounding-set",
        "-net_admin",
        "--inh-caps",
        "-all",
        topsail,
        "iptables",
        "apply",
    ]);
    let said = String::from_utf8_lossy(&plain.stderr);
    assert_eq!(plain.status.code(), Some(1), "{said}");
    assert!(said.contains("NET_ADMIN") && said.contains("cap_add"), "{said}");
    let without = host.output(&["env", "PATH=/nowhere", topsail, "iptables", "apply"]);
    let said = String::from_utf8_lossy(&without.stderr);
    assert!(said.contains("apt-get install iptables"), "{said}");

    // IPv4 rules are applied, IPv6 rules fail because of a tool that always fails.
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("ip6tables-restore");
    fs::write(
        &broken,
        "#!/bin/sh\necho 'No chain/target/match by that name' >&2\nexit 1\n",
    )
    .unwrap();
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("PATH={}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let half = host.output(&["env", &path, topsail, "iptables", "apply", "--ip-family", "both"]);
    let said = String::from_utf8_lossy(&half.stderr);
    assert_eq!(half.status.code(), Some(1), "{said}");
    assert!(said.contains("modprobe -a"), "{said}");
    assert_eq!(state(&host), before);
}

#[tokio::test]
async fn interception_needs_only_iptables_tools() {
    let lan = Lan::new(Family::V6);
    let host = lan.host();
    let folder = tempfile::tempdir().unwrap();
    for version in ["iptables", "ip6tables"] {
        for form in ["-save", "-restore"] {
            let tool = format!("{version}{form}");
            let there = host.ran(&["which", &tool]);
            symlink(there.trim(), folder.path().join(tool)).unwrap();
        }
    }
    let path = format!("PATH={}", folder.path().display());
    let call = |more: &[&str]| {
        let topsail = ["env", &path, env!("CARGO_BIN_EXE_topsail"), "iptables"];
        host.ran(&[&topsail[..], more].concat());
    };
    let before = state(&host);
    call(&["apply", "--mode", "TPROXY"]);
    let applied = state(&host);
    for wanted in ["fwmark 0x539 lookup 133", "local default dev lo", "::6/128"] {
        assert!(applied.contains(wanted), "{applied}");
    }
    call(&["clean"]);
    assert_eq!(state(&host), before);
}

#[tokio::test]
async fn excluded_traffic_bypasses_the_sidecar() {
    let service = "{apiVersion: v1, kind: Service, metadata: {name: web}, \
        spec: {clusterIP: 10.96.0.10, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 9080}]}}";
    let rules = Rules::redirect().with(&["--exclude-inbound-ports", "9999", "--exclude-outbound-ports", "7777"]);
    let stage = Stage::start(Plane::Topsail, Family::V4, rules, &[service]).await;
    let web = stage
        .machine("web-v1")
        .await
        .serves(9080, "web-v1")
        .await
        .serves(9999, "odd")
        .await;
    let outside = stage
        .stranger()
        .serves(7777, "outside")
        .await
        .serves(7778, "other")
        .await;
    let stranger = stage.stranger();
    let peer = async |answer: crate::harness::Answer| answer.seen().peer.parse::<IpAddr>().unwrap();

    let caught = stranger.reaches(&get(web.host.port(9080), "web", "/")).await;
    assert_eq!(peer(caught).await.to_string(), "127.0.0.6");
    let excluded = stranger.reaches(&get(web.host.port(9999), "odd", "/")).await;
    assert_eq!(
        peer(excluded).await,
        stranger.host.address,
        "straight to the application"
    );

    let (caught, excluded) = (outside.host.port(7778), outside.host.port(7777));
    web.reaches(&get(caught, "other", "/")).await;
    stage.write(
        "policy.yaml",
        "{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: default}, \
        spec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}}",
    );
    web.is_refused(&get(caught, "other", "/")).await;
    web.reaches(&get(excluded, "outside", "/")).await;
}
