//! Locality load balancing: priorities and weights (Istio's `ApplyLocalityLoadBalancer`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::cluster::{LbEndpoint, LocalityEndpoints};
use crate::mesh::Labels;
use crate::mesh::destination_rule::{Distribution, LocalityLb, LocalityMode};
use crate::mesh::service::{Endpoint, Locality};

/// An endpoint to be grouped.
pub(super) struct Member<'a> {
    /// The endpoint in the mesh.
    pub(super) endpoint: &'a Endpoint,
    /// The endpoint as sent to the proxy.
    pub(super) lb: LbEndpoint,
}

/// The client.
pub(super) struct Client<'a> {
    /// Its locality.
    pub(super) locality: &'a Locality,
    /// Its labels, for `failoverPriority`.
    pub(super) labels: &'a Labels,
}

/// Label with a workload's network.
const NETWORK: &str = "topology.istio.io/network";

/// Groups endpoints by locality and priority. `failover` tells whether failing endpoints are
/// detected; priorities are useless without.
pub(super) fn arrange<'a>(
    members: impl Iterator<Item = Member<'a>>,
    client: &Client<'_>,
    setting: Option<&LocalityLb>,
    failover: bool,
) -> Vec<LocalityEndpoints> {
    let mode = setting.map(|setting| &setting.mode);
    let priority = |member: &Member<'_>| match mode {
        Some(LocalityMode::Failover(regions)) if failover => {
            by_distance(client.locality, &member.endpoint.locality, regions)
        }
        Some(LocalityMode::FailoverPriority(labels)) if failover => by_labels(client, member.endpoint, labels),
        Some(LocalityMode::Failover(_) | LocalityMode::FailoverPriority(_) | LocalityMode::Distribute(_)) | None => 0,
    };
    let mut groups: BTreeMap<(Locality, u32), Vec<LbEndpoint>> = BTreeMap::new();
    for member in members {
        let key = (member.endpoint.locality.clone(), priority(&member));
        groups.entry(key).or_default().push(member.lb);
    }
    let mut groups = without_gaps(groups);
    if let Some(LocalityMode::Distribute(rules)) = mode {
        distribute(client.locality, rules, &mut groups);
    }
    groups
}

/// Sum of the endpoints' weights.
pub(super) fn sum_of_weights(endpoints: &[LbEndpoint]) -> u32 {
    endpoints
        .iter()
        .fold(0, |sum, endpoint| sum.saturating_add(endpoint.weight))
}

/// Renumbers priorities from 0 without gaps, as Envoy requires.
fn without_gaps(groups: BTreeMap<(Locality, u32), Vec<LbEndpoint>>) -> Vec<LocalityEndpoints> {
    let used: BTreeSet<u32> = groups.keys().map(|(_, priority)| *priority).collect();
    let ranks: BTreeMap<u32, u32> = used.into_iter().zip(0..).collect();
    let group = |((locality, priority), endpoints): ((Locality, u32), Vec<LbEndpoint>)| LocalityEndpoints {
        locality,
        priority: ranks.get(&priority).copied().unwrap_or_default(),
        weight: sum_of_weights(&endpoints),
        endpoints,
    };
    groups.into_iter().map(group).collect()
}

/// Priority by distance: 0 same sub-zone, 1 same zone, 2 same region, 3 another region, 4 a region
/// other than the one `failover` names for the client's.
fn by_distance(from: &Locality, to: &Locality, regions: &[(Arc<str>, Arc<str>)]) -> u32 {
    if from.region == to.region {
        return match (from.zone == to.zone, from.subzone == to.subzone) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 2,
        };
    }
    let chosen = regions.iter().find(|(region, _)| *region == from.region);
    match chosen {
        Some((_, region)) if *region != to.region => 4,
        Some(_) | None => 3,
    }
}

/// Priority by `failoverPriority`: the number of labels from the first mismatch to the last label;
/// 0 if all match. If the network is the first label, endpoints in other networks come after all in
/// the client's own.
fn by_labels(client: &Client<'_>, endpoint: &Endpoint, priority: &[Arc<str>]) -> u32 {
    let agrees = |label: &&Arc<str>| {
        let (key, wanted) = match label.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (&***label, topology(client.labels, client.locality, label)),
        };
        wanted == topology(&endpoint.labels, &endpoint.locality, key)
    };
    let distance = |labels: &[Arc<str>]| labels.len() - labels.iter().take_while(agrees).count();
    let total = match priority {
        [network, rest @ ..] if **network == *NETWORK => {
            let offset = if agrees(&network) { 0 } else { priority.len() };
            offset + distance(rest)
        }
        labels => distance(labels),
    };
    u32::try_from(total).unwrap_or(u32::MAX)
}

/// The value of a label, taken from the locality if the label denotes one of its parts.
fn topology<'a>(labels: &'a Labels, locality: &'a Locality, key: &str) -> Option<&'a str> {
    let part = || match key {
        "topology.kubernetes.io/region" => Some(&*locality.region),
        "topology.kubernetes.io/zone" => Some(&*locality.zone),
        "topology.istio.io/subzone" => Some(&*locality.subzone),
        _ => None,
    };
    let label = labels.get(key).map(|value| &**value);
    label.or_else(|| part().filter(|part| !part.is_empty()))
}

/// Applies the weights of the first rule that matches the client's locality; localities it does not
/// name are dropped. A weight is divided among the localities it matches in proportion to their own
/// weights.
fn distribute(from: &Locality, rules: &[Distribution], groups: &mut Vec<LocalityEndpoints>) {
    let Some(rule) = rules.iter().find(|rule| matches(from, &rule.from)) else {
        return;
    };
    let mut rest = std::mem::take(groups);
    for (pattern, weight) in &rule.to {
        let (mut taken, others): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|group| matches(&group.locality, pattern));
        rest = others;
        let total: u64 = taken.iter().map(|group| u64::from(group.weight)).sum();
        for group in &mut taken {
            let share = (u64::from(group.weight) * u64::from(*weight)).div_ceil(total.max(1));
            group.weight = u32::try_from(share).unwrap_or(u32::MAX);
        }
        groups.append(&mut taken);
    }
    groups.sort_by(|a, b| (&a.locality, a.priority).cmp(&(&b.locality, b.priority)));
}

/// Whether a locality matches `region/zone/subzone`; absent parts and `*` match any.
fn matches(locality: &Locality, pattern: &str) -> bool {
    let mut parts = pattern.splitn(3, '/');
    let mut agrees = |part: &str| {
        parts
            .next()
            .is_none_or(|wanted| matches!(wanted, "" | "*") || wanted == part)
    };
    agrees(&locality.region) && agrees(&locality.zone) && agrees(&locality.subzone)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{endpoint, labelled, labels, locality, placed};
    use super::*;
    use crate::mesh::service::Address;

    /// (locality, priority, weight) of the groups, for endpoints at these localities and a client
    /// in `r1/z1/s1`.
    fn arranged(places: &[&str], mode: LocalityMode, failover: bool) -> Vec<(String, u32, u32)> {
        let endpoints: Vec<Endpoint> = places
            .iter()
            .zip(1..)
            .map(|(place, at)| placed(endpoint(&format!("10.0.0.{at}"), "a"), place))
            .collect();
        grouped(&endpoints, mode, failover, &labels(&[]))
    }

    fn grouped(endpoints: &[Endpoint], mode: LocalityMode, failover: bool, own: &Labels) -> Vec<(String, u32, u32)> {
        let client = Client {
            locality: &locality("r1/z1/s1"),
            labels: own,
        };
        let setting = LocalityLb { enabled: true, mode };
        let members = endpoints.iter().map(|endpoint| Member {
            endpoint,
            lb: LbEndpoint {
                address: Address::Ip([10, 0, 0, 1].into()),
                port: 80,
                weight: endpoint.weight,
                healthy: true,
                mutual_tls: false,
                workload: None,
            },
        });
        let show = |group: LocalityEndpoints| {
            let Locality { region, zone, subzone } = group.locality;
            (format!("{region}/{zone}/{subzone}"), group.priority, group.weight)
        };
        let groups = arrange(members, &client, Some(&setting), failover);
        groups.into_iter().map(show).collect()
    }

    fn row(place: &str, priority: u32, weight: u32) -> (String, u32, u32) {
        (place.to_owned(), priority, weight)
    }

    const PLACES: [&str; 5] = ["r1/z1/s1", "r1/z1/s2", "r1/z2/s1", "r2/z1/s1", "r3/z1/s1"];

    #[test]
    fn nearest_endpoints_have_priority_with_outlier_detection() {
        let groups = arranged(&PLACES, LocalityMode::Failover(Vec::new()), true);
        let expected = [
            row("r1/z1/s1", 0, 1),
            row("r1/z1/s2", 1, 1),
            row("r1/z2/s1", 2, 1),
            row("r2/z1/s1", 3, 1),
            row("r3/z1/s1", 3, 1),
        ];
        assert_eq!(groups, expected);
        let unnoticed = arranged(&PLACES, LocalityMode::Failover(Vec::new()), false);
        assert!(unnoticed.iter().all(|(_, priority, _)| *priority == 0));
    }

    #[test]
    fn priorities_have_no_gaps() {
        let groups = arranged(&["r1/z2/s1", "r2/z1/s1"], LocalityMode::Failover(Vec::new()), true);
        assert_eq!(groups, [row("r1/z2/s1", 0, 1), row("r2/z1/s1", 1, 1)]);
    }

    #[test]
    fn the_failover_region_precedes_other_regions() {
        let regions = vec![("r1".into(), "r3".into())];
        let groups = arranged(&PLACES, LocalityMode::Failover(regions), true);
        assert_eq!(groups[3..], [row("r2/z1/s1", 4, 1), row("r3/z1/s1", 3, 1)]);
    }

    #[test]
    fn failover_priority_compares_labels_in_order() {
        let own = labels(&[("version", "v1")]);
        let of = |version: &str, place: &str, at: u8| {
            let one = labelled(endpoint(&format!("10.0.0.{at}"), "a"), &[("version", version)]);
            placed(one, place)
        };
        let endpoints = [
            of("v1", "r1/z1/s1", 1),
            of("v1", "r2/z1/s1", 2),
            of("v2", "r1/z1/s1", 3),
            of("v2", "r2/z1/s1", 4),
        ];
        let priority = vec!["topology.kubernetes.io/region".into(), "version".into()];
        let groups = grouped(&endpoints, LocalityMode::FailoverPriority(priority), true, &own);
        let expected = [row("r1/z1/s1", 0, 1), row("r1/z1/s1", 1, 1), row("r2/z1/s1", 2, 2)];
        assert_eq!(groups, expected);
        let fixed = vec!["version=v2".into()];
        let groups = grouped(&endpoints, LocalityMode::FailoverPriority(fixed), true, &own);
        assert_eq!(groups[0], row("r1/z1/s1", 0, 1), "v2, as the label says");
    }

    #[test]
    fn other_networks_have_the_lowest_priority() {
        let own = labels(&[("topology.istio.io/network", "n1"), ("version", "v1")]);
        let of = |network: &str, version: &str| {
            let pairs = [("topology.istio.io/network", network), ("version", version)];
            labelled(endpoint("10.0.0.1", "a"), &pairs)
        };
        let endpoints = [of("n1", "v1"), of("n1", "v2"), of("n2", "v1"), of("n2", "v2")];
        let priority = vec!["topology.istio.io/network".into(), "version".into()];
        let groups = grouped(&endpoints, LocalityMode::FailoverPriority(priority), true, &own);
        let priorities: Vec<u32> = groups.iter().map(|(_, priority, _)| *priority).collect();
        assert_eq!(priorities, [0, 1, 2, 3]);
    }

    #[test]
    fn distribute_applies_the_rule_for_the_clients_locality() {
        let rule = Distribution {
            from: "r1/z1/*".into(),
            to: vec![("r1/*".into(), 80), ("r2".into(), 20)],
        };
        let other = Distribution {
            from: "r1/z2".into(),
            to: vec![("r3".into(), 100)],
        };
        let groups = arranged(&PLACES, LocalityMode::Distribute(vec![other, rule]), false);
        let expected = [
            row("r1/z1/s1", 0, 27),
            row("r1/z1/s2", 0, 27),
            row("r1/z2/s1", 0, 27),
            row("r2/z1/s1", 0, 20),
        ];
        assert_eq!(groups, expected, "r3 gets nothing");
    }
}
