//! iptables rules, generated per IP version.

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{Family, Mode, OWN_PORTS, Plan, Which};

/// Prefix of our chains. Any rule that jumps to such a chain is ours.
const OURS: &str = "ISTIO_";

/// A table and our rules in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: &'static str,
    chains: Vec<&'static str>,
    rules: Vec<String>,
}

/// The tables that may have our rules.
const TABLES: [&str; 3] = ["nat", "mangle", "raw"];

impl Table {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            chains: Vec::new(),
            rules: Vec::new(),
        }
    }

    /// Appends a rule to one of our chains.
    fn rule(&mut self, chain: &'static str, rule: impl Display) {
        self.chain(chain);
        self.rules.push(format!("-A {chain} {rule}"));
    }

    fn chain(&mut self, chain: &'static str) {
        if !self.chains.contains(&chain) {
            self.chains.push(chain);
        }
    }

    /// Jumps from a built-in chain to one of ours.
    fn hook(&mut self, chain: &str, condition: &str, ours: &'static str) {
        self.chain(ours);
        self.rules.push(format!("-A {chain} {condition} -j {ours}"));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Input of `iptables-restore --noflush` that replaces our existing rules by these.
    pub(super) fn replacing(&self, present: &Present) -> String {
        let mut lines = vec![format!("*{}", self.name)];
        // Naming a chain creates or flushes it.
        lines.extend(self.chains.iter().map(|chain| format!(":{chain} - [0:0]")));
        let stale = present
            .chains
            .iter()
            .filter(|chain| !self.chains.contains(&chain.as_str()));
        lines.extend(stale.clone().map(|chain| format!("-F {chain}")));
        lines.extend(present.hooks.iter().map(|hook| format!("-D {hook}")));
        lines.extend(stale.map(|chain| format!("-X {chain}")));
        lines.extend(self.rules.iter().cloned());
        lines.push("COMMIT\n".to_owned());
        lines.join("\n")
    }
}

impl fmt::Display for Table {
    /// The rules for a table without any of ours.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.replacing(&Present::default()))
    }
}

/// Our existing rules in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Present {
    chains: Vec<String>,
    /// Rules in built-in chains that jump to ours, each with its chain.
    hooks: Vec<String>,
}

impl Present {
    /// Parses the output of `iptables-save -t TABLE`.
    pub(super) fn read(saved: &str) -> Self {
        let mut present = Self::default();
        for line in saved.lines() {
            if let Some(rule) = line.strip_prefix("-A ") {
                let target = rule.rsplit_once(" -j ").map_or("", |(_, target)| target);
                if target.starts_with(OURS) && !rule.starts_with(OURS) {
                    present.hooks.push(rule.to_owned());
                }
            } else if let Some(chain) = line.strip_prefix(':').and_then(|rest| rest.split(' ').next())
                && chain.starts_with(OURS)
            {
                present.chains.push(chain.to_owned());
            }
        }
        present
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.chains.is_empty() && self.hooks.is_empty()
    }
}

/// All rules of a plan. Includes empty tables, from which existing rules may have to be removed.
pub(super) fn tables(plan: &Plan, family: Family) -> [Table; 3] {
    let [nat, mangle, raw] = TABLES;
    let mut tables = Tables {
        plan,
        family,
        nat: Table::new(nat),
        mangle: Table::new(mangle),
        raw: Table::new(raw),
    };
    tables.outbound();
    match plan.mode {
        Mode::Redirect => tables.redirect_inbound(),
        Mode::Tproxy => tables.tproxy_inbound(),
    }
    tables.dns();
    [tables.nat, tables.mangle, tables.raw]
}

/// Tables without rules.
pub(super) fn nothing() -> [Table; 3] {
    TABLES.map(Table::new)
}

/// Source address of connections from the proxy to its application (Envoy's
/// `InboundPassthroughCluster`), not used by anything else.
pub fn own_source(family: Family) -> IpNet {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6)),
    }
    .into()
}

fn loopback(family: Family) -> &'static str {
    match family {
        Family::V4 => "127.0.0.1/32",
        Family::V6 => "::1/128",
    }
}

struct Tables<'a> {
    plan: &'a Plan,
    family: Family,
    nat: Table,
    mangle: Table,
    raw: Table,
}

impl Tables<'_> {
    /// Owner matches that recognise the proxy, for each user and group.
    fn owners(&self) -> impl Iterator<Item = (&'static str, u32)> + use<> {
        let users = self.plan.proxy_uids.clone().into_iter().map(|uid| ("--uid-owner", uid));
        let groups = self.plan.proxy_gids.clone().into_iter().map(|gid| ("--gid-owner", gid));
        users.chain(groups)
    }

    fn ranges(&self, ranges: &[IpNet]) -> Vec<IpNet> {
        let wanted = |range: &&IpNet| match self.family {
            Family::V4 => range.addr().is_ipv4(),
            Family::V6 => range.addr().is_ipv6(),
        };
        ranges.iter().filter(wanted).copied().collect()
    }

    /// Redirects outbound traffic of applications, but not of the proxy.
    fn outbound(&mut self) {
        const OUTPUT: &str = "ISTIO_OUTPUT";
        const REDIRECT: &str = "ISTIO_REDIRECT";
        let (plan, family) = (self.plan, self.family);
        let loopback = loopback(family);
        self.nat.rule(
            REDIRECT,
            format!("-p tcp -j REDIRECT --to-ports {}", plan.outbound_port),
        );
        self.nat.hook("OUTPUT", "-p tcp", OUTPUT);
        for interface in &plan.interfaces_not {
            self.nat.rule(OUTPUT, format!("-o {interface} -j RETURN"));
        }
        for port in &plan.outbound_ports_not {
            self.nat.rule(OUTPUT, format!("-p tcp --dport {port} -j RETURN"));
        }
        // From the proxy to the application.
        self.nat
            .rule(OUTPUT, format!("-s {} -o lo -j RETURN", own_source(family)));
        let dns = if plan.dns.is_some() { "! --dport 53 " } else { "" };
        for (owner, id) in self.owners() {
            if plan.mode == Mode::Redirect {
                // The proxy calls its own workload by the service address: treat it as inbound.
                self.nat.rule(
                    OUTPUT,
                    format!("! -d {loopback} -o lo -p tcp -m owner {owner} {id} -j ISTIO_IN_REDIRECT"),
                );
            }
            // Between applications in the same network namespace.
            self.nat
                .rule(OUTPUT, format!("-o lo -p tcp {dns}-m owner ! {owner} {id} -j RETURN"));
            self.nat.rule(OUTPUT, format!("-m owner {owner} {id} -j RETURN"));
        }
        for uid in &plan.outbound_uids_not {
            self.nat.rule(OUTPUT, format!("-m owner --uid-owner {uid} -j RETURN"));
        }
        for gid in &plan.outbound_gids_not {
            self.nat.rule(OUTPUT, format!("-m owner --gid-owner {gid} -j RETURN"));
        }
        if let Some(dns) = &plan.dns {
            for server in self.servers(&dns.servers) {
                let rule = format!("-p tcp {server}--dport 53 -j REDIRECT --to-ports {}", dns.port);
                self.nat.rule(OUTPUT, rule);
            }
        }
        self.nat.rule(OUTPUT, format!("-d {loopback} -j RETURN"));
        for range in self.ranges(&plan.outbound_ranges_not) {
            self.nat.rule(OUTPUT, format!("-d {range} -j RETURN"));
        }
        for port in &plan.outbound_ports {
            self.nat.rule(OUTPUT, format!("-p tcp --dport {port} -j {REDIRECT}"));
        }
        match &plan.outbound_ranges {
            Which::All => self.nat.rule(OUTPUT, format!("-j {REDIRECT}")),
            Which::These(ranges) => {
                for range in self.ranges(ranges) {
                    self.nat.rule(OUTPUT, format!("-d {range} -j {REDIRECT}"));
                }
            }
        }
    }

    /// Sends intercepted inbound traffic to `target`.
    fn inbound(table: &mut Table, plan: &Plan, target: &str) {
        const INBOUND: &str = "ISTIO_INBOUND";
        for interface in &plan.interfaces_not {
            table.rule(INBOUND, format!("-i {interface} -j RETURN"));
        }
        for port in OWN_PORTS.iter().chain(&plan.inbound_ports_not) {
            table.rule(INBOUND, format!("-p tcp --dport {port} -j RETURN"));
        }
        if table.name == "mangle" {
            table.rule(
                INBOUND,
                "-p tcp -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT",
            );
        }
        match &plan.inbound_ports {
            Which::All => table.rule(INBOUND, format!("-p tcp -j {target}")),
            Which::These(ports) => {
                for port in ports {
                    table.rule(INBOUND, format!("-p tcp --dport {port} -j {target}"));
                }
            }
        }
    }

    fn redirect_inbound(&mut self) {
        let plan = self.plan;
        // Traffic from the proxy to its own workload is redirected even if no inbound ports are
        // intercepted.
        self.nat.rule(
            "ISTIO_IN_REDIRECT",
            format!("-p tcp -j REDIRECT --to-ports {}", plan.inbound_port),
        );
        if plan.inbound_ports != Which::These(Vec::new()) {
            self.nat.hook("PREROUTING", "-p tcp", "ISTIO_INBOUND");
            Self::inbound(&mut self.nat, plan, "ISTIO_IN_REDIRECT");
        }
    }

    /// The mark distinguishes the proxy's connections to the application, which have the client's
    /// address as source, from the client's own. Response packets are routed to the proxy by the
    /// connection mark and a routing table.
    fn tproxy_inbound(&mut self) {
        let plan = self.plan;
        let mark = plan.tproxy.mark;
        if plan.inbound_ports == Which::These(Vec::new()) {
            return;
        }
        let (table, loopback) = (&mut self.mangle, loopback(self.family));
        table.rule("ISTIO_DIVERT", format!("-j MARK --set-mark {mark}"));
        table.rule("ISTIO_DIVERT", "-j ACCEPT");
        table.rule(
            "ISTIO_TPROXY",
            format!(
                "! -d {loopback} -p tcp -j TPROXY --on-port {} --tproxy-mark {mark}/0xffffffff",
                plan.inbound_port
            ),
        );
        table.hook("PREROUTING", "-p tcp", "ISTIO_INBOUND");
        table.rule(
            "ISTIO_INBOUND",
            format!("-p tcp -m mark --mark {mark} -j CONNMARK --save-mark"),
        );
        table.rule("ISTIO_INBOUND", format!("-p tcp -m mark --mark {mark} -j RETURN"));
        table.rule("ISTIO_INBOUND", "-p tcp -i lo -j RETURN");
        Self::inbound(table, plan, "ISTIO_TPROXY");
        table.hook("OUTPUT", "-p tcp", "ISTIO_OUTPUT");
        table.rule(
            "ISTIO_OUTPUT",
            format!("-p tcp -m connmark --mark {mark} -j CONNMARK --restore-mark"),
        );
    }

    /// `-d SERVER ` for each server of this IP version, or an empty match for all.
    fn servers(&self, servers: &Which<IpAddr>) -> Vec<String> {
        match servers {
            Which::All => vec![String::new()],
            Which::These(servers) => servers
                .iter()
                .filter(|server| server.is_ipv4() == (self.family == Family::V4))
                .map(|server| format!("-d {server} "))
                .collect(),
        }
    }

    /// Redirects DNS queries of applications to the proxy, but not the proxy's own. Both may use
    /// the same source ports, so each gets its own conntrack zone.
    fn dns(&mut self) {
        const DNS: &str = "ISTIO_OUTPUT_DNS";
        let Some(dns) = &self.plan.dns else {
            return;
        };
        let servers = self.servers(&dns.servers);
        self.nat.hook("OUTPUT", "-p udp --dport 53", DNS);
        self.raw.hook("OUTPUT", "-p udp", DNS);
        self.raw.hook("PREROUTING", "-p udp --sport 53", "ISTIO_INBOUND_DNS");
        for (owner, id) in self.owners() {
            self.nat.rule(DNS, format!("-m owner {owner} {id} -j RETURN"));
            let own = format!("-m owner {owner} {id}");
            self.raw.rule(DNS, format!("-p udp --dport 53 {own} -j CT --zone 1"));
            self.raw
                .rule(DNS, format!("-p udp --sport {} {own} -j CT --zone 2", dns.port));
        }
        for server in servers {
            self.nat.rule(
                DNS,
                format!("{server}-p udp --dport 53 -j REDIRECT --to-ports {}", dns.port),
            );
            self.raw.rule(DNS, format!("{server}-p udp --dport 53 -j CT --zone 2"));
            let from = server.replace("-d", "-s");
            self.raw
                .rule("ISTIO_INBOUND_DNS", format!("{from}-p udp --sport 53 -j CT --zone 1"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Dns, Interface, Tproxy};
    use super::*;

    fn plan(mode: Mode) -> Plan {
        Plan {
            mode,
            outbound_port: 15001,
            inbound_port: 15006,
            proxy_uids: Vec::new(),
            proxy_gids: vec![1337],
            inbound_ports: Which::All,
            inbound_ports_not: Vec::new(),
            outbound_ports: Vec::new(),
            outbound_ports_not: Vec::new(),
            outbound_ranges: Which::All,
            outbound_ranges_not: Vec::new(),
            outbound_uids_not: Vec::new(),
            outbound_gids_not: Vec::new(),
            interfaces_not: Vec::new(),
            dns: None,
            tproxy: Tproxy { mark: 1337, table: 133 },
        }
    }

    fn text(plan: &Plan, family: Family) -> String {
        let tables = tables(plan, family);
        tables
            .iter()
            .filter(|table| !table.is_empty())
            .map(Table::to_string)
            .collect()
    }

    #[test]
    fn redirect_intercepts_all_but_the_proxy_and_its_ports() {
        insta::assert_snapshot!(text(&plan(Mode::Redirect), Family::V4), @r"
        *nat
        :ISTIO_REDIRECT - [0:0]
        :ISTIO_OUTPUT - [0:0]
        :ISTIO_IN_REDIRECT - [0:0]
        :ISTIO_INBOUND - [0:0]
        -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
        -A OUTPUT -p tcp -j ISTIO_OUTPUT
        -A ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN
        -A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT
        -A ISTIO_OUTPUT -o lo -p tcp -m owner ! --gid-owner 1337 -j RETURN
        -A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN
        -A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
        -A ISTIO_OUTPUT -j ISTIO_REDIRECT
        -A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
        -A PREROUTING -p tcp -j ISTIO_INBOUND
        -A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
        -A ISTIO_INBOUND -p tcp --dport 15020 -j RETURN
        -A ISTIO_INBOUND -p tcp --dport 15021 -j RETURN
        -A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN
        -A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
        COMMIT
        ");
    }

    #[test]
    fn tproxy_marks_intercepted_packets() {
        insta::assert_snapshot!(text(&plan(Mode::Tproxy), Family::V6), @r"
        *nat
        :ISTIO_REDIRECT - [0:0]
        :ISTIO_OUTPUT - [0:0]
        -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
        -A OUTPUT -p tcp -j ISTIO_OUTPUT
        -A ISTIO_OUTPUT -s ::6/128 -o lo -j RETURN
        -A ISTIO_OUTPUT -o lo -p tcp -m owner ! --gid-owner 1337 -j RETURN
        -A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN
        -A ISTIO_OUTPUT -d ::1/128 -j RETURN
        -A ISTIO_OUTPUT -j ISTIO_REDIRECT
        COMMIT
        *mangle
        :ISTIO_DIVERT - [0:0]
        :ISTIO_TPROXY - [0:0]
        :ISTIO_INBOUND - [0:0]
        :ISTIO_OUTPUT - [0:0]
        -A ISTIO_DIVERT -j MARK --set-mark 1337
        -A ISTIO_DIVERT -j ACCEPT
        -A ISTIO_TPROXY ! -d ::1/128 -p tcp -j TPROXY --on-port 15006 --tproxy-mark 1337/0xffffffff
        -A PREROUTING -p tcp -j ISTIO_INBOUND
        -A ISTIO_INBOUND -p tcp -m mark --mark 1337 -j CONNMARK --save-mark
        -A ISTIO_INBOUND -p tcp -m mark --mark 1337 -j RETURN
        -A ISTIO_INBOUND -p tcp -i lo -j RETURN
        -A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
        -A ISTIO_INBOUND -p tcp --dport 15020 -j RETURN
        -A ISTIO_INBOUND -p tcp --dport 15021 -j RETURN
        -A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN
        -A ISTIO_INBOUND -p tcp -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT
        -A ISTIO_INBOUND -p tcp -j ISTIO_TPROXY
        -A OUTPUT -p tcp -j ISTIO_OUTPUT
        -A ISTIO_OUTPUT -p tcp -m connmark --mark 1337 -j CONNMARK --restore-mark
        COMMIT
        ");
    }

    #[test]
    fn exclusions_precede_redirection() {
        let range = |text: &str| text.parse::<IpNet>().unwrap();
        let plan = Plan {
            proxy_uids: vec![1000],
            inbound_ports: Which::These(vec![80, 443]),
            inbound_ports_not: vec![22],
            outbound_ports: vec![9999],
            outbound_ports_not: vec![3306],
            outbound_ranges: Which::These(vec![range("10.0.0.0/8"), range("fd00::/8")]),
            outbound_ranges_not: vec![range("10.1.0.0/16")],
            outbound_uids_not: vec![7],
            outbound_gids_not: vec![8],
            interfaces_not: vec![Interface::parse("docker+").unwrap()],
            ..plan(Mode::Redirect)
        };
        insta::assert_snapshot!(text(&plan, Family::V4), @r"
        *nat
        :ISTIO_REDIRECT - [0:0]
        :ISTIO_OUTPUT - [0:0]
        :ISTIO_IN_REDIRECT - [0:0]
        :ISTIO_INBOUND - [0:0]
        -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
        -A OUTPUT -p tcp -j ISTIO_OUTPUT
        -A ISTIO_OUTPUT -o docker+ -j RETURN
        -A ISTIO_OUTPUT -p tcp --dport 3306 -j RETURN
        -A ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN
        -A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m owner --uid-owner 1000 -j ISTIO_IN_REDIRECT
        -A ISTIO_OUTPUT -o lo -p tcp -m owner ! --uid-owner 1000 -j RETURN
        -A ISTIO_OUTPUT -m owner --uid-owner 1000 -j RETURN
        -A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT
        -A ISTIO_OUTPUT -o lo -p tcp -m owner ! --gid-owner 1337 -j RETURN
        -A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN
        -A ISTIO_OUTPUT -m owner --uid-owner 7 -j RETURN
        -A ISTIO_OUTPUT -m owner --gid-owner 8 -j RETURN
        -A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
        -A ISTIO_OUTPUT -d 10.1.0.0/16 -j RETURN
        -A ISTIO_OUTPUT -p tcp --dport 9999 -j ISTIO_REDIRECT
        -A ISTIO_OUTPUT -d 10.0.0.0/8 -j ISTIO_REDIRECT
        -A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
        -A PREROUTING -p tcp -j ISTIO_INBOUND
        -A ISTIO_INBOUND -i docker+ -j RETURN
        -A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
        -A ISTIO_INBOUND -p tcp --dport 15020 -j RETURN
        -A ISTIO_INBOUND -p tcp --dport 15021 -j RETURN
        -A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN
        -A ISTIO_INBOUND -p tcp --dport 22 -j RETURN
        -A ISTIO_INBOUND -p tcp --dport 80 -j ISTIO_IN_REDIRECT
        -A ISTIO_INBOUND -p tcp --dport 443 -j ISTIO_IN_REDIRECT
        COMMIT
        ");
    }

    #[test]
    fn dns_queries_have_separate_conntrack_zones() {
        let servers = vec!["10.0.0.53".parse().unwrap(), "fd00::53".parse().unwrap()];
        let plan = Plan {
            dns: Some(Dns {
                port: 15053,
                servers: Which::These(servers),
            }),
            ..plan(Mode::Redirect)
        };
        insta::assert_snapshot!(text(&plan, Family::V6), @r"
        *nat
        :ISTIO_REDIRECT - [0:0]
        :ISTIO_OUTPUT - [0:0]
        :ISTIO_IN_REDIRECT - [0:0]
        :ISTIO_INBOUND - [0:0]
        :ISTIO_OUTPUT_DNS - [0:0]
        -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
        -A OUTPUT -p tcp -j ISTIO_OUTPUT
        -A ISTIO_OUTPUT -s ::6/128 -o lo -j RETURN
        -A ISTIO_OUTPUT ! -d ::1/128 -o lo -p tcp -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT
        -A ISTIO_OUTPUT -o lo -p tcp ! --dport 53 -m owner ! --gid-owner 1337 -j RETURN
        -A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN
        -A ISTIO_OUTPUT -p tcp -d fd00::53 --dport 53 -j REDIRECT --to-ports 15053
        -A ISTIO_OUTPUT -d ::1/128 -j RETURN
        -A ISTIO_OUTPUT -j ISTIO_REDIRECT
        -A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
        -A PREROUTING -p tcp -j ISTIO_INBOUND
        -A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
        -A ISTIO_INBOUND -p tcp --dport 15020 -j RETURN
        -A ISTIO_INBOUND -p tcp --dport 15021 -j RETURN
        -A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN
        -A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
        -A OUTPUT -p udp --dport 53 -j ISTIO_OUTPUT_DNS
        -A ISTIO_OUTPUT_DNS -m owner --gid-owner 1337 -j RETURN
        -A ISTIO_OUTPUT_DNS -d fd00::53 -p udp --dport 53 -j REDIRECT --to-ports 15053
        COMMIT
        *raw
        :ISTIO_OUTPUT_DNS - [0:0]
        :ISTIO_INBOUND_DNS - [0:0]
        -A OUTPUT -p udp -j ISTIO_OUTPUT_DNS
        -A PREROUTING -p udp --sport 53 -j ISTIO_INBOUND_DNS
        -A ISTIO_OUTPUT_DNS -p udp --dport 53 -m owner --gid-owner 1337 -j CT --zone 1
        -A ISTIO_OUTPUT_DNS -p udp --sport 15053 -m owner --gid-owner 1337 -j CT --zone 2
        -A ISTIO_OUTPUT_DNS -d fd00::53 -p udp --dport 53 -j CT --zone 2
        -A ISTIO_INBOUND_DNS -s fd00::53 -p udp --sport 53 -j CT --zone 1
        COMMIT
        ");
    }

    #[test]
    fn only_our_existing_rules_are_removed() {
        let saved = "\
# Generated by iptables-save
*nat
:PREROUTING ACCEPT [0:0]
:DOCKER_OUTPUT - [0:0]
:ISTIO_INBOUND - [0:0]
:ISTIO_OUTPUT - [0:0]
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT
-A OUTPUT -p tcp -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
COMMIT
";
        let present = Present::read(saved);
        assert_eq!(present.chains, ["ISTIO_INBOUND", "ISTIO_OUTPUT"]);
        assert_eq!(
            present.hooks,
            ["PREROUTING -p tcp -j ISTIO_INBOUND", "OUTPUT -p tcp -j ISTIO_OUTPUT"]
        );
        let [nat, ..] = nothing();
        insta::assert_snapshot!(nat.replacing(&present), @r"
        *nat
        -F ISTIO_INBOUND
        -F ISTIO_OUTPUT
        -D PREROUTING -p tcp -j ISTIO_INBOUND
        -D OUTPUT -p tcp -j ISTIO_OUTPUT
        -X ISTIO_INBOUND
        -X ISTIO_OUTPUT
        COMMIT
        ");
        assert!(Present::read("*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n").is_nothing());
    }
}
