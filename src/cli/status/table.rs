//! The status as text.

use std::collections::BTreeMap;

use super::answer::{Answer, Finding, Proxy, Refusal, Registered, Sync};
use crate::control::reason;
use crate::diag::Severity;
use crate::xds::resource::ResourceType;

/// Green, yellow, red and none.
const COLORS: [&str; 4] = ["\u{1b}[32m", "\u{1b}[33m", "\u{1b}[31m", ""];

/// The table, followed by problems.
pub(super) fn text(answer: &Answer, color: bool) -> String {
    let mut text = match &answer.generation {
        Some(generation) => format!("generation {}, {} objects\n", generation.number, generation.objects),
        None => "no configuration served yet: the server is reading the directory\n".to_owned(),
    };
    match &answer.proxies[..] {
        [] => text.push_str("no proxies connected\n"),
        proxies => {
            text.push('\n');
            text.push_str(&table(proxies, color));
        }
    }
    paragraph(&mut text, groups(&answer.registered).into_iter());
    let refusals = answer
        .proxies
        .iter()
        .flat_map(|proxy| proxy.refusals.iter().map(move |refusal| refused(proxy, refusal)));
    let expired = answer.proxies.iter().filter(|proxy| proxy.token_expired).map(expired);
    paragraph(&mut text, refusals.chain(expired));
    let shown = answer
        .diagnostics
        .iter()
        .filter(|finding| finding.severity > Severity::Info);
    paragraph(&mut text, shown.map(finding));
    text
}

fn paragraph(text: &mut String, lines: impl Iterator<Item = String>) {
    let lines: String = lines.map(|line| line + "\n").collect();
    if !lines.is_empty() {
        text.push('\n');
        text.push_str(&lines);
    }
}

/// Aligned columns; a cell is its text and its colour.
fn table(proxies: &[Proxy], color: bool) -> String {
    let plain = |text: &str| (text.to_owned(), "");
    let types = ["CDS", "EDS", "SDS", "LDS", "RDS"];
    let mut rows = vec![
        ["PROXY"]
            .into_iter()
            .chain(types)
            .chain(["GENERATION", "VERSION"])
            .map(plain)
            .collect::<Vec<_>>(),
    ];
    rows.extend(proxies.iter().map(|proxy| {
        let states = ResourceType::ALL.map(|kind| state(proxy.types.get(kind.as_str()).copied()));
        let mut row = vec![plain(&proxy.workload)];
        row.extend(states.map(|(text, color)| (text.to_owned(), color)));
        row.extend([plain(&generation(proxy)), plain(&proxy.user_agent)]);
        row
    }));
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| Some(row.get(column)?.0.chars().count()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    rows.iter().map(|row| line(row, &widths, color)).collect()
}

fn line(row: &[(String, &str)], widths: &[usize], color: bool) -> String {
    let cells = row
        .iter()
        .zip(widths)
        .map(|((text, style), width)| match color && !style.is_empty() {
            true => format!("{style}{text:width$}\u{1b}[0m"),
            false => format!("{text:width$}"),
        });
    let line = cells.collect::<Vec<_>>().join("  ");
    line.trim_end().to_owned() + "\n"
}

fn state(state: Option<Sync>) -> (&'static str, &'static str) {
    let [green, yellow, red, none] = COLORS;
    match state {
        Some(Sync::Synced) => ("SYNCED", green),
        Some(Sync::Stale) => ("STALE", yellow),
        Some(Sync::Nacked) => ("NACKED", red),
        Some(Sync::NotSent) | None => ("NOT SENT", none),
    }
}

/// `7`, or `6 of 7` while the proxy has not ACKed everything.
fn generation(proxy: &Proxy) -> String {
    match (proxy.acked_generation, proxy.generation) {
        (Some(acked), Some(target)) if acked == target => acked.to_string(),
        (Some(acked), Some(target)) => format!("{acked} of {target}"),
        (None, Some(target)) => format!("0 of {target}"),
        (_, None) => "-".to_owned(),
    }
}

/// Member count of each group, with members that receive no traffic or have no stream.
fn groups(registered: &[Registered]) -> Vec<String> {
    let mut groups: BTreeMap<&str, Vec<&Registered>> = BTreeMap::new();
    for member in registered {
        groups.entry(&member.group).or_default().push(member);
    }
    let line = |(group, members): (&str, Vec<&Registered>)| {
        let ready = members.iter().filter(|member| member.ready).count();
        let mut text = format!(
            "group {group}: {ready} of {} registered members are ready",
            members.len()
        );
        for member in members.iter().filter(|member| !member.ready || !member.connected) {
            let state = match (member.connected, member.ready) {
                (true, _) => "has not ACKed its first configuration",
                (false, true) => "is not connected",
                (false, false) => "has ended",
            };
            text.push_str(&format!("; {} {state}", member.workload));
        }
        text
    };
    groups.into_iter().map(line).collect()
}

fn refused(proxy: &Proxy, refusal: &Refusal) -> String {
    let Refusal {
        kind,
        name,
        message,
        objects,
    } = refusal;
    let from = if objects.is_empty() {
        String::new()
    } else {
        format!(", generated from {}", objects.join(", "))
    };
    format!("{} rejected {kind} `{name}`{from}: {}", proxy.workload, reason(message))
}

fn expired(proxy: &Proxy) -> String {
    let workload = &proxy.workload;
    format!("{workload}: its join token has expired; it cannot reconnect until its token file is renewed")
}

fn finding(finding: &Finding) -> String {
    let place = match (&finding.file, finding.line, finding.column) {
        (Some(file), Some(line), Some(column)) => format!("{file}:{line}:{column}: "),
        _ => String::new(),
    };
    format!(
        "{place}{}[{}]: {}",
        finding.severity.as_str(),
        finding.code,
        finding.message
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer() -> Answer {
        let row = |workload: &str, acked: u64, cds: &str, refusals: serde_json::Value| {
            json!({
                "workload": workload, "user_agent": "envoy 1.40.0", "generation": 7, "acked_generation": acked,
                "token_expired": acked == 6, "types": {"CDS": cds, "EDS": "SYNCED", "SDS": "NOT_SENT"}, "refusals": refusals,
            })
        };
        let refusal = json!({
            "type": "CDS", "name": "outbound|80||a", "objects": ["DestinationRule default/a"],
            "message": "goo.gle/debugstr key: secret: Proto constraint validation failed (X)",
        });
        serde_json::from_value(json!({
            "generation": {"number": 7, "objects": 12},
            "proxies": [row("reviews-v1.default", 7, "SYNCED", json!([])), row("a.b", 6, "NACKED", json!([refusal]))],
            "registered": [
                {"workload": "a-10-0-0-1.b", "group": "a.b", "address": "10.0.0.1", "ready": true, "connected": true},
                {"workload": "a-10-0-0-2.b", "group": "a.b", "address": "10.0.0.2", "ready": false, "connected": false},
            ],
            "diagnostics": [
                {"code": "IST0101", "severity": "error", "message": "no", "file": "m/a.yaml", "line": 3, "column": 5},
                {"code": "TS0012", "severity": "info", "message": "irrelevant", "file": "m/a.yaml", "line": 1, "column": 1},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn table_is_aligned_and_followed_by_problems() {
        let expected = "\
generation 7, 12 objects

PROXY               CDS     EDS     SDS       LDS       RDS       GENERATION  VERSION
reviews-v1.default  SYNCED  SYNCED  NOT SENT  NOT SENT  NOT SENT  7           envoy 1.40.0
a.b                 NACKED  SYNCED  NOT SENT  NOT SENT  NOT SENT  6 of 7      envoy 1.40.0

group a.b: 1 of 2 registered members are ready; a-10-0-0-2.b has ended

a.b rejected CDS `outbound|80||a`, generated from DestinationRule default/a: Proto constraint validation failed (X)
a.b: its join token has expired; it cannot reconnect until its token file is renewed

m/a.yaml:3:5: error[IST0101]: no
";
        assert_eq!(text(&answer(), false), expected);
        let colored = text(&answer(), true);
        let escape = regex::Regex::new("\u{1b}\\[[0-9;]*m").unwrap();
        assert!(colored.contains("\u{1b}[31mNACKED"), "{colored}");
        assert_eq!(escape.replace_all(&colored, ""), expected);
    }

    #[test]
    fn synced_requires_all_proxies() {
        let mut answer = answer();
        assert!(!answer.is_synced());
        answer.proxies.pop();
        assert!(answer.is_synced());
        answer.generation = None;
        assert!(!answer.is_synced());
        assert!(text(&answer, false).starts_with("no configuration served yet"));
        answer.proxies.clear();
        assert!(text(&answer, false).contains("no proxies connected\n"));
    }
}
