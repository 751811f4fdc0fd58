//! The packet filter's rules beside a sidecar, as `istio-iptables` sets them up.

use std::net::IpAddr;

use topsail::envoy::User;

/// The user and the group of a sidecar in Istio.
const PROXY: u32 = 1337;

/// Ports that the proxy itself answers: HBONE, metrics, readiness and the agent's health.
const OWN_PORTS: [u16; 4] = [15008, 15090, 15021, 15020];

/// What the filter does with a machine's traffic.
pub struct Rules {
    /// The flag for `topsail bootstrap --mode`.
    pub mode: &'static str,
    /// Whom the sidecar runs as. Sockets with another host's address and packet marks (TPROXY) take a
    /// capability, so there it is root, and known by its group.
    pub proxy: User,
    inbound: fn() -> Vec<String>,
    /// What the proxy sends to its own machine.
    to_itself: Option<String>,
}

impl Rules {
    /// Both directions by changing the destination address.
    pub fn redirect() -> Self {
        Self {
            mode: "REDIRECT",
            proxy: User { uid: PROXY, gid: PROXY },
            inbound: redirect_inbound,
            to_itself: Some(format!(
                "nat -A ISTIO_OUTPUT -o lo ! -d LOOPBACK -p tcp -m owner --gid-owner {PROXY} -j ISTIO_IN_REDIRECT"
            )),
        }
    }

    /// What arrives keeps both its addresses; what leaves is redirected.
    pub fn tproxy() -> Self {
        Self {
            mode: "TPROXY",
            proxy: User { uid: 0, gid: PROXY },
            inbound: tproxy_inbound,
            to_itself: None,
        }
    }

    /// The command lines for a machine with this address.
    pub(crate) fn commands(&self, address: IpAddr) -> Vec<String> {
        let (iptables, ip, own_source, loopback) = match address {
            IpAddr::V4(_) => ("iptables", "ip", "127.0.0.6/32", "127.0.0.1/32"),
            IpAddr::V6(_) => ("ip6tables", "ip -6", "::6/128", "::1/128"),
        };
        let mut rules = (self.inbound)();
        rules.extend(outbound(self.to_itself.clone()));
        let place = |rule: &String| rule.replace("LOOPBACK", loopback).replace("OWN_SOURCE", own_source);
        let mut commands: Vec<String> = rules
            .iter()
            .map(|rule| format!("{iptables} -w -t {}", place(rule)))
            .collect();
        if self.mode == "TPROXY" {
            commands.push(format!("{ip} rule add fwmark {PROXY} lookup 133"));
            commands.push(format!("{ip} route add local default dev lo table 133"));
        }
        if address.is_ipv6() {
            // 127.0.0.6 is the machine's own anyway.
            commands.push(format!("{ip} address add {own_source} dev lo"));
        }
        commands
    }
}

/// What the machine sends: all but the proxy's own goes to the proxy.
fn outbound(to_itself: Option<String>) -> Vec<String> {
    let mut rules = vec![
        "nat -N ISTIO_REDIRECT".into(),
        "nat -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001".into(),
        "nat -N ISTIO_OUTPUT".into(),
        "nat -A OUTPUT -p tcp -j ISTIO_OUTPUT".into(),
        "nat -A ISTIO_OUTPUT -o lo -s OWN_SOURCE -j RETURN".into(),
    ];
    rules.extend(to_itself);
    rules.extend([
        format!("nat -A ISTIO_OUTPUT -o lo -m owner ! --gid-owner {PROXY} -j RETURN"),
        format!("nat -A ISTIO_OUTPUT -m owner --gid-owner {PROXY} -j RETURN"),
        "nat -A ISTIO_OUTPUT -d LOOPBACK -j RETURN".into(),
        "nat -A ISTIO_OUTPUT -j ISTIO_REDIRECT".into(),
    ]);
    rules
}

fn redirect_inbound() -> Vec<String> {
    let mut rules = vec![
        "nat -N ISTIO_INBOUND".into(),
        "nat -N ISTIO_IN_REDIRECT".into(),
        "nat -A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006".into(),
        "nat -A PREROUTING -p tcp -j ISTIO_INBOUND".into(),
    ];
    rules.extend(OWN_PORTS.map(|port| format!("nat -A ISTIO_INBOUND -p tcp --dport {port} -j RETURN")));
    rules.push("nat -A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT".into());
    rules
}

/// The mark tells the proxy's connections to the application, which come from the client's address, from the
/// client's own; their answers find back to the proxy by the connection's mark and the table 133.
fn tproxy_inbound() -> Vec<String> {
    let mut rules = vec![
        "mangle -N ISTIO_DIVERT".into(),
        format!("mangle -A ISTIO_DIVERT -j MARK --set-mark {PROXY}"),
        "mangle -A ISTIO_DIVERT -j ACCEPT".into(),
        "mangle -N ISTIO_TPROXY".into(),
        format!(
            "mangle -A ISTIO_TPROXY ! -d LOOPBACK -p tcp -j TPROXY --tproxy-mark {PROXY}/0xffffffff --on-port 15006"
        ),
        "mangle -N ISTIO_INBOUND".into(),
        "mangle -A PREROUTING -p tcp -j ISTIO_INBOUND".into(),
        format!("mangle -A ISTIO_INBOUND -p tcp -m mark --mark {PROXY} -j RETURN"),
        "mangle -A ISTIO_INBOUND -p tcp -i lo -j RETURN".into(),
    ];
    rules.extend(OWN_PORTS.map(|port| format!("mangle -A ISTIO_INBOUND -p tcp --dport {port} -j RETURN")));
    rules.extend([
        "mangle -A ISTIO_INBOUND -p tcp -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT".into(),
        "mangle -A ISTIO_INBOUND -p tcp -j ISTIO_TPROXY".into(),
        format!("mangle -A PREROUTING -p tcp -m mark --mark {PROXY} -j CONNMARK --save-mark"),
        format!("mangle -A OUTPUT -p tcp -m connmark --mark {PROXY} -j CONNMARK --restore-mark"),
    ]);
    rules
}
