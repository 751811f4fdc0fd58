//! Applies the rules with the system's iptables tools, and the routing settings.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::{fs, iter, thread};

use super::routing::{RoutingError, Setting};
use super::rules::{self, Present, Table};
use super::{Family, Mode, Plan, Tproxy};

/// Why the rules could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// The process lacks `CAP_NET_ADMIN`.
    #[error(
        "changing iptables rules requires the capability NET_ADMIN, which this process does not have: run it as root, in \
         Docker with `--cap-add NET_ADMIN`, in a Compose file with `cap_add: [NET_ADMIN]`"
    )]
    NotPermitted,
    /// A tool is not installed.
    #[error("`{0}` is not installed: install the package iptables (Debian: `apt-get install iptables`)")]
    Missing(&'static str),
    /// A tool failed.
    #[error("`{command}` failed: {why}{hint}")]
    Failed {
        /// The command.
        command: String,
        /// Its error output.
        why: String,
        /// A hint preceded by a newline; empty if there is none.
        hint: String,
    },
    /// A tool could not be executed.
    #[error("failed to run `{0}`: {1}")]
    NotCalled(String, #[source] io::Error),
    /// The kernel rejected a routing setting.
    #[error(transparent)]
    Routing(#[from] RoutingError),
}

/// Bit of `CAP_NET_ADMIN` (`capabilities(7)`).
const NET_ADMIN: u64 = 1 << 12;

/// Applies a plan, replacing existing rules of ours. Idempotent. On failure all our rules are
/// removed.
///
/// # Errors
///
/// If it fails, with what is missing.
pub fn apply(plan: &Plan, families: &[Family]) -> Result<(), SystemError> {
    permitted()?;
    let applied = families.iter().try_for_each(|family| apply_one(plan, *family));
    if applied.is_err() {
        // Partial interception would cut off applications from the network.
        let cleaned = clean(plan.tproxy, families);
        if let Err(error) = cleaned {
            tracing::warn!(%error, "failed to remove the remaining rules");
        }
    }
    applied
}

/// Removes all our rules. Idempotent.
///
/// # Errors
///
/// If it fails, with what is missing.
pub fn clean(tproxy: Tproxy, families: &[Family]) -> Result<(), SystemError> {
    permitted()?;
    families.iter().try_for_each(|family| {
        Tools::of(*family).replace(&rules::nothing())?;
        unroute(tproxy, *family)?;
        own_source(*family).map_or(Ok(()), |source| source.take(*family))?;
        Ok(())
    })
}

/// What [`apply`] does on a system without our rules, as a shell script.
#[must_use]
pub fn script(plan: &Plan, families: &[Family]) -> String {
    let mut script = String::from("#!/bin/sh\nset -e\n");
    for family in families {
        let tools = Tools::of(*family);
        let tables = rules::tables(plan, *family).into_iter();
        let input: String = tables
            .filter(|table| !table.is_empty())
            .map(|table| table.to_string())
            .collect();
        // Writing to a `String` cannot fail.
        let _ = write!(script, "{} --noflush <<'EOF'\n{input}EOF\n", tools.restore);
        for setting in routing(plan, *family) {
            let _ = writeln!(script, "ip {} {setting}", family.version());
        }
    }
    script
}

fn apply_one(plan: &Plan, family: Family) -> Result<(), SystemError> {
    Tools::of(family).replace(&rules::tables(plan, family))?;
    unroute(plan.tproxy, family)?;
    for setting in routing(plan, family) {
        setting.put(family)?;
    }
    Ok(())
}

/// The routing settings of a plan.
fn routing(plan: &Plan, family: Family) -> Vec<Setting> {
    let mut settings = Vec::from_iter(own_source(family));
    if plan.mode == Mode::Tproxy {
        settings.extend(to_the_proxy(plan.tproxy));
    }
    settings
}

/// Routes marked packets to the proxy.
fn to_the_proxy(tproxy: Tproxy) -> [Setting; 2] {
    [Setting::Rule(tproxy), Setting::Route(tproxy.table)]
}

/// Removes the routing of marked packets.
fn unroute(tproxy: Tproxy, family: Family) -> Result<(), RoutingError> {
    to_the_proxy(tproxy)
        .into_iter()
        .try_for_each(|setting| setting.take(family))
}

/// The proxy's source address towards applications, if it must be added; 127.0.0.6 is local anyway.
fn own_source(family: Family) -> Option<Setting> {
    (family == Family::V6).then(|| Setting::Address(rules::own_source(family)))
}

fn permitted() -> Result<(), SystemError> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    match held.and_then(|held| u64::from_str_radix(held.trim(), 16).ok()) {
        Some(held) if held & NET_ADMIN == 0 => Err(SystemError::NotPermitted),
        // If unknown, leave it to the tools to fail.
        Some(_) | None => Ok(()),
    }
}

/// The tools of an IP version.
struct Tools {
    restore: &'static str,
    save: &'static str,
}

impl Tools {
    fn of(family: Family) -> Self {
        let (restore, save) = match family {
            Family::V4 => ("iptables-restore", "iptables-save"),
            Family::V6 => ("ip6tables-restore", "ip6tables-save"),
        };
        Self { restore, save }
    }

    /// Replaces our rules in these tables, each table atomically.
    fn replace(&self, tables: &[Table]) -> Result<(), SystemError> {
        for table in tables {
            let present = match run(self.save, &["-t", table.name], "") {
                Ok(saved) => Present::read(&saved),
                // A table that does not exist has no rules.
                Err(SystemError::Failed { .. }) => Present::default(),
                Err(error) => return Err(error),
            };
            if !table.is_empty() || !present.is_nothing() {
                run(self.restore, &["--noflush", "-w"], &table.replacing(&present))?;
            }
        }
        Ok(())
    }
}

/// Runs a tool and returns its output.
fn run(tool: &'static str, arguments: &[&str], input: &str) -> Result<String, SystemError> {
    let command = || {
        iter::once(tool)
            .chain(arguments.iter().copied())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut process = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SystemError::Missing(tool),
            _ => SystemError::NotCalled(command(), error),
        })?;
    let stdin = process.stdin.take();
    let output = thread::scope(|scope| {
        // A tool that does not read all of its input reports why.
        scope.spawn(|| drop(stdin.map(|mut stdin| stdin.write_all(input.as_bytes()))));
        process.wait_with_output()
    });
    let output = output.map_err(|error| SystemError::NotCalled(command(), error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(SystemError::Failed {
        command: command(),
        hint: hint(&why, input),
        why,
    })
}

/// Kernel modules by the rule feature that needs them.
const MODULES: [(&str, &str); 8] = [
    ("-j REDIRECT", "xt_REDIRECT"),
    ("-m owner", "xt_owner"),
    ("-j TPROXY", "xt_TPROXY"),
    ("-m conntrack", "xt_conntrack"),
    ("-m connmark", "xt_connmark"),
    ("-m mark", "xt_mark"),
    ("-j CT", "xt_CT"),
    ("*nat", "nf_nat"),
];

/// A hint for an error of a tool.
fn hint(why: &str, input: &str) -> String {
    if why.contains("Permission denied") || why.contains("Operation not permitted") {
        return "\nThis requires the capabilities NET_ADMIN and, with legacy iptables, NET_RAW".to_owned();
    }
    let module = [
        "No chain/target/match",
        "missing kernel module",
        "can't initialize",
        "insmod",
        "not supported",
    ];
    if input.is_empty() || !module.iter().any(|text| why.contains(text)) {
        return String::new();
    }
    let used = MODULES.iter().filter(|(text, _)| input.contains(text));
    let names: Vec<&str> = used.map(|(_, module)| *module).collect();
    format!(
        "\nA kernel module may be missing: on the host, as root, run `modprobe -a {}`",
        names.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_tool_and_a_hint() {
        let missing = run("topsail-no-such-tool", &["-t", "nat"], "").unwrap_err();
        assert_eq!(
            missing.to_string(),
            "`topsail-no-such-tool` is not installed: install the package iptables (Debian: `apt-get install iptables`)"
        );
        let failed = run(
            "sh",
            &["-c", "cat >&2; exit 2"],
            "*nat -m owner: No chain/target/match by that name\n",
        )
        .unwrap_err();
        assert_eq!(
            failed.to_string(),
            "`sh -c cat >&2; exit 2` failed: *nat -m owner: No chain/target/match by that name\n\
             A kernel module may be missing: on the host, as root, run `modprobe -a xt_owner nf_nat`"
        );
        assert!(hint("Permission denied (you must be root)", "").contains("NET_RAW"));
        assert_eq!(hint("line 3 failed", "*nat"), "");
    }

    #[test]
    fn a_tool_that_prints_before_reading_does_not_deadlock() {
        let much = "x".repeat(1 << 20);
        let back = run("sh", &["-c", "head -c 1000000 /dev/zero | tr '\\0' y; cat"], &much).unwrap();
        assert_eq!(back.len(), 1_000_000 + much.len());
    }
}
