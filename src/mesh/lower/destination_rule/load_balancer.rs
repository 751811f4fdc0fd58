//! `loadBalancer` and `localityLbSetting`.

use std::sync::Arc;

use crate::api::FieldPath;
use crate::api::destination_rule as api;
use crate::diag::Code;
use crate::mesh::destination_rule::{
    Distribution, HashKey, HashTable, LbAlgorithm, LoadBalancerPolicy, LocalityLb, LocalityMode, Warmup,
};
use crate::mesh::lower::report::Report;
use crate::mesh::lower::value::is_header_name;
use crate::name::Percent;

/// Default of `minimumRingSize`.
const RING_SIZE: u64 = 1024;

/// Envoy's limit on the ring size.
const MAX_RING_SIZE: u64 = 8 * 1024 * 1024;

/// Envoy's limit on the Maglev table size.
const MAGLEV_BOUND: u64 = 5_000_011;

/// Labels that denote the parts of a locality.
const TOPOLOGY: [&str; 3] = [
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
];

/// `loadBalancer`.
pub(super) fn load_balancer(
    report: &mut Report<'_>,
    at: &FieldPath,
    entry: &api::LoadBalancer,
    outlier_in_force: bool,
) -> LoadBalancerPolicy {
    if entry.simple.is_some() && entry.consistent_hash.is_some() {
        report.error(
            &at.field("consistentHash"),
            "`consistentHash` and `simple` are mutually exclusive",
        );
    }
    let simple = entry.simple.map(|simple| match simple {
        api::SimpleLoadBalancer::Unspecified
        | api::SimpleLoadBalancer::LeastConn
        | api::SimpleLoadBalancer::LeastRequest => LbAlgorithm::LeastRequest,
        api::SimpleLoadBalancer::Random => LbAlgorithm::Random,
        api::SimpleLoadBalancer::RoundRobin => LbAlgorithm::RoundRobin,
        api::SimpleLoadBalancer::Passthrough => LbAlgorithm::Passthrough,
    });
    let hash = entry
        .consistent_hash
        .as_ref()
        .and_then(|hash| consistent_hash(report, &at.field("consistentHash"), hash));
    let locality_at = at.field("localityLbSetting");
    let locality = entry.locality_lb_setting.as_ref().map(|setting| {
        if !outlier_in_force && setting.distribute.is_empty() && setting.enabled != Some(false) {
            report
                .warning(&locality_at, "locality failover requires `outlierDetection`")
                .help("add `outlierDetection` to this policy");
        }
        locality_lb(report, &locality_at, setting)
    });
    let algorithm = hash.or(simple);
    LoadBalancerPolicy {
        warmup: warmup(report, at, entry, algorithm.as_ref()),
        algorithm,
        locality,
    }
}

/// `warmup`, or its deprecated form.
fn warmup(
    report: &mut Report<'_>,
    at: &FieldPath,
    entry: &api::LoadBalancer,
    algorithm: Option<&LbAlgorithm>,
) -> Option<Warmup> {
    let old_at = at.field("warmupDurationSecs");
    let old = report.duration(&old_at, entry.warmup_duration_secs);
    let (at, warmup) = match &entry.warmup {
        None => {
            let plain = |duration| Warmup {
                duration,
                minimum: None,
                aggression: None,
            };
            (old_at, old.map(plain))
        }
        Some(warmup) => {
            if old.is_some() {
                report.error(&old_at, "`warmupDurationSecs` and `warmup` are mutually exclusive");
            }
            let at = at.field("warmup");
            let warmup = warmup_settings(report, &at, warmup);
            (at, warmup)
        }
    };
    let has_effect = matches!(
        algorithm,
        None | Some(LbAlgorithm::LeastRequest | LbAlgorithm::RoundRobin)
    );
    if warmup.is_some() && !has_effect {
        report.warning(&at, "warm-up only applies to `ROUND_ROBIN` and `LEAST_REQUEST`");
    }
    warmup
}

fn warmup_settings(report: &mut Report<'_>, at: &FieldPath, entry: &api::Warmup) -> Option<Warmup> {
    if entry.duration.is_none() {
        report
            .error(at, "warm-up requires a duration")
            .help("set `duration`, the time over which traffic to a new endpoint increases");
    }
    let minimum = entry
        .minimum_percent
        .and_then(|percent| report.name(&at.field("minimumPercent"), Percent::new(percent)));
    if let Some(aggression) = entry.aggression.filter(|aggression| *aggression <= 0.0) {
        report.error(
            &at.field("aggression"),
            format!("{aggression} is not greater than zero"),
        );
    }
    Some(Warmup {
        duration: report.duration(&at.field("duration"), entry.duration)?,
        minimum,
        aggression: entry.aggression,
    })
}

fn consistent_hash(report: &mut Report<'_>, at: &FieldPath, entry: &api::ConsistentHash) -> Option<LbAlgorithm> {
    let table = hash_table(report, at, entry);
    let keys = [
        ("httpHeaderName", entry.http_header_name.is_some()),
        ("httpCookie", entry.http_cookie.is_some()),
        ("useSourceIp", entry.use_source_ip.is_some()),
        ("httpQueryParameterName", entry.http_query_parameter_name.is_some()),
    ];
    let mut given = keys.iter().filter(|(_, given)| *given);
    let first = given.next();
    if let (Some((first, _)), Some((second, _))) = (first, given.next()) {
        report.error(
            &at.field(*second),
            format!("`{second}` and `{first}` are mutually exclusive: a hash must have a single key"),
        );
    }
    let key = hash_key(report, at, entry);
    if first.is_none() {
        report
            .error(at, "a consistent hash requires a key")
            .help("set `httpHeaderName`, `httpCookie`, `useSourceIp` or `httpQueryParameterName`");
    }
    Some(LbAlgorithm::Hash { key: key?, table })
}

fn hash_key(report: &mut Report<'_>, at: &FieldPath, entry: &api::ConsistentHash) -> Option<HashKey> {
    if let Some(name) = &entry.http_header_name {
        if !is_header_name(name) {
            report.error(
                &at.field("httpHeaderName"),
                format!("`{name}` is not a valid header name"),
            );
        }
        return Some(HashKey::Header(name.as_str().into()));
    }
    if let Some(cookie) = &entry.http_cookie {
        return Some(hash_cookie(report, &at.field("httpCookie"), cookie));
    }
    if let Some(name) = &entry.http_query_parameter_name {
        let at = at.field("httpQueryParameterName");
        return Some(HashKey::QueryParameter(not_empty(report, &at, name)));
    }
    // As in Istio, `useSourceIp: false` sets no hash key: endpoints are chosen at random.
    entry.use_source_ip.filter(|used| *used).map(|_| HashKey::SourceIp)
}

fn hash_cookie(report: &mut Report<'_>, at: &FieldPath, cookie: &api::HttpCookie) -> HashKey {
    let mut attributes: Vec<(Arc<str>, Arc<str>)> = Vec::with_capacity(cookie.attributes.len());
    for (index, attribute) in cookie.attributes.iter().enumerate() {
        let at = at.field("attributes").index(index).field("name");
        let name = not_empty(report, &at, &attribute.name);
        if attributes.iter().any(|(known, _)| *known == name) {
            report.error(&at, format!("duplicate attribute `{name}`"));
        }
        attributes.push((name, attribute.value.as_str().into()));
    }
    HashKey::Cookie {
        name: not_empty(report, &at.field("name"), &cookie.name),
        path: cookie.path.as_str().into(),
        ttl: cookie.ttl.map(Into::into),
        attributes,
    }
}

fn not_empty(report: &mut Report<'_>, at: &FieldPath, text: &str) -> Arc<str> {
    if text.is_empty() {
        report.error(at, "a name is required");
    }
    text.into()
}

fn hash_table(report: &mut Report<'_>, at: &FieldPath, entry: &api::ConsistentHash) -> HashTable {
    let size_at = at.field("minimumRingSize");
    if entry.minimum_ring_size != 0 {
        report
            .warning(&size_at, "`minimumRingSize` is deprecated")
            .help("use `ringHash: {minimumRingSize: …}`");
        if entry.ring_hash.is_some() || entry.maglev.is_some() {
            report.error(
                &size_at,
                "`minimumRingSize` cannot be combined with `ringHash` or `maglev`",
            );
        }
    }
    if entry.ring_hash.is_some() && entry.maglev.is_some() {
        report.error(&at.field("maglev"), "`maglev` and `ringHash` are mutually exclusive");
    }
    if let Some(maglev) = &entry.maglev {
        return maglev_table(report, &at.field("maglev").field("tableSize"), maglev.table_size);
    }
    let (at, size) = match &entry.ring_hash {
        Some(ring) => (at.field("ringHash").field("minimumRingSize"), ring.minimum_ring_size),
        None => (size_at, entry.minimum_ring_size),
    };
    if size > MAX_RING_SIZE {
        report.error(&at, format!("a ring can have at most {MAX_RING_SIZE} entries"));
    }
    HashTable::Ring(if size == 0 { RING_SIZE } else { size })
}

fn maglev_table(report: &mut Report<'_>, at: &FieldPath, size: u64) -> HashTable {
    if size == 0 || size >= MAGLEV_BOUND || !is_prime(size) {
        report
            .error(
                at,
                format!("{size} is not a valid Maglev table size: expected a prime below {MAGLEV_BOUND}"),
            )
            .help("65537 is Envoy's default");
    }
    HashTable::Maglev(size)
}

fn is_prime(number: u64) -> bool {
    number >= 2 && (2..).take_while(|d| d * d <= number).all(|d| !number.is_multiple_of(d))
}

/// `localityLbSetting` of a policy or the mesh.
pub(in crate::mesh::lower) fn locality_lb(
    report: &mut Report<'_>,
    at: &FieldPath,
    entry: &api::LocalityLbSetting,
) -> LocalityLb {
    if !entry.distribute.is_empty() && !entry.failover.is_empty() {
        report.error(
            &at.field("failover"),
            "`failover` and `distribute` are mutually exclusive",
        );
    }
    if !entry.failover_priority.is_empty() {
        let at = at.field("failoverPriority");
        if !entry.distribute.is_empty() {
            report.warning(&at, "`failoverPriority` has no effect together with `distribute`");
        } else if !entry.failover.is_empty() {
            report.add(
                Code::UnsupportedField,
                &at,
                "`failoverPriority` and `failover` together are not supported yet",
            );
        }
    }
    let priority = failover_priority(report, &at.field("failoverPriority"), entry);
    let distribute = distribute(report, &at.field("distribute"), &entry.distribute);
    let failover = failover(report, &at.field("failover"), &entry.failover);
    LocalityLb {
        enabled: entry.enabled.unwrap_or(true),
        mode: if !distribute.is_empty() {
            LocalityMode::Distribute(distribute)
        } else if !priority.is_empty() {
            LocalityMode::FailoverPriority(priority)
        } else {
            LocalityMode::Failover(failover)
        },
    }
}

fn failover_priority(report: &mut Report<'_>, at: &FieldPath, entry: &api::LocalityLbSetting) -> Vec<Arc<str>> {
    for (index, label) in entry.failover_priority.iter().enumerate() {
        let at = at.index(index);
        if label.is_empty() || label.starts_with('=') {
            report.error(&at, "expected a label, `name` or `name=value`");
        } else if !entry.failover.is_empty() && TOPOLOGY.contains(&label.as_str()) {
            report.error(
                &at,
                format!("the label `{label}` cannot be combined with `failover`, which has the same effect"),
            );
        }
    }
    entry
        .failover_priority
        .iter()
        .map(|label| label.as_str().into())
        .collect()
}

fn distribute(report: &mut Report<'_>, at: &FieldPath, entries: &[api::LocalityDistribute]) -> Vec<Distribution> {
    let mut sources = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let at = at.index(index);
        sources.push((at.field("from"), entry.from.as_str()));
        let to_at = at.field("to");
        for (locality, weight) in &entry.to {
            if !(1..=100).contains(weight) {
                report.error(
                    &to_at.key(locality.as_str()),
                    format!("the weight {weight} is not between 1 and 100"),
                );
            }
        }
        let total: u64 = entry.to.values().map(|weight| u64::from(*weight)).sum();
        if total != 100 {
            report.error(&to_at, format!("the weights add up to {total}, not 100"));
        }
        let targets: Vec<_> = entry
            .to
            .keys()
            .map(|locality| (to_at.key(locality.as_str()), locality.as_str()))
            .collect();
        localities(report, &targets);
    }
    localities(report, &sources);
    let weights = |entry: &api::LocalityDistribute| {
        entry
            .to
            .iter()
            .map(|(locality, weight)| (Arc::from(locality.as_str()), *weight))
            .collect()
    };
    entries
        .iter()
        .map(|entry| Distribution {
            from: entry.from.as_str().into(),
            to: weights(entry),
        })
        .collect()
}

/// Checks the localities of a list: not empty, `*` only as the last part, and no overlaps.
fn localities(report: &mut Report<'_>, localities: &[(FieldPath, &str)]) {
    for (index, (at, locality)) in localities.iter().enumerate() {
        let parts: Vec<&str> = locality.split('/').collect();
        if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
            report.error(
                at,
                format!(
                    "`{locality}` is not a valid locality: expected `region/zone/subzone`, whose trailing parts may be omitted or `*`"
                ),
            );
            continue;
        }
        let star = parts.iter().position(|part| part.contains('*'));
        if star.is_some_and(|star| star + 1 < parts.len() || parts[star] != "*") {
            report.error(
                at,
                format!("`{locality}` has a wildcard that is not its entire last part"),
            );
        }
        if let Some((_, other)) = localities[..index].iter().find(|(_, other)| overlap(other, locality)) {
            report.error(at, format!("`{locality}` and `{other}` overlap"));
        }
    }
}

fn overlap(a: &str, b: &str) -> bool {
    let parts = |text: &str| -> Vec<String> {
        let parts = text.split('/').map(str::to_owned);
        parts.take_while(|part| part != "*").collect()
    };
    let (a, b) = (parts(a), parts(b));
    a.iter().zip(&b).all(|(a, b)| a == b)
}

fn failover(report: &mut Report<'_>, at: &FieldPath, entries: &[api::LocalityFailover]) -> Vec<(Arc<str>, Arc<str>)> {
    for (index, entry) in entries.iter().enumerate() {
        let at = at.index(index);
        if entry.from == entry.to {
            report.error(&at.field("to"), format!("`{}` cannot fail over to itself", entry.from));
        }
        for (field, region) in [("from", &entry.from), ("to", &entry.to)] {
            if region.contains('*') {
                report.error(&at.field(field), "a region is required; wildcards are not allowed here");
            } else if region.contains('/') {
                report
                    .error(&at.field(field), format!("`{region}` is not a region"))
                    .help("failover is between regions: omit zone and subzone");
            }
        }
    }
    entries
        .iter()
        .map(|entry| (entry.from.as_str().into(), entry.to.as_str().into()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes() {
        let below: Vec<u64> = (0..30).filter(|n| is_prime(*n)).collect();
        assert_eq!(below, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
        assert!(is_prime(65537) && !is_prime(5_000_009));
    }

    #[test]
    fn localities_overlap_when_one_holds_the_other() {
        assert!(overlap("a/b", "a/b/c") && overlap("a/*", "a/b") && overlap("*", "a") && overlap("a", "a"));
        assert!(!overlap("a/b", "a/c") && !overlap("a", "b/a"));
    }
}
