//! Conversations with scripted and random clients.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::xds::resource::ResourceType::{Cluster, Endpoints, Listener, Route, Secret};

/// A resource of a target: `(type, name, content, clusters referred to)`.
type Row<'a> = (ResourceType, &'a str, &'a str, &'a [&'a str]);

fn snapshot(generation: u64, rows: &[Row<'_>]) -> Arc<Snapshot> {
    let mut snapshot = Snapshot::new(generation);
    for (kind, name, content, clusters) in rows {
        let warming = match kind {
            Cluster if content.starts_with("dns") => Warming::Dns,
            Cluster if content.starts_with("eds") => Warming::Endpoints,
            Cluster | Endpoints | Secret | Listener | Route => Warming::None,
        };
        let resource = Resource::new(*kind, (*name).into(), content.as_bytes().to_vec(), [].into())
            .naming(clusters.iter().map(|cluster| (*cluster).into()).collect())
            .warming(warming);
        snapshot.set_mut(*kind).insert((*name).into(), Arc::new(resource));
    }
    Arc::new(snapshot)
}

fn session() -> Session {
    Session::new(SessionTimeouts::default(), Refused::new())
}

fn brief(push: &Push) -> String {
    let upserts = push.upserts.iter().map(|r| format!("+{}", r.name));
    let removals = push.removals.iter().map(|name| format!("-{name}"));
    format!(
        "{} {}",
        push.kind,
        upserts.chain(removals).collect::<Vec<_>>().join(" ")
    )
}

fn briefs(pushes: &[Push]) -> Vec<String> {
    pushes.iter().map(brief).collect()
}

/// Polls, ACKs everything and, like Envoy, subscribes to the endpoints of new clusters, until
/// nothing is sent any more. Returns what was sent.
fn converse(session: &mut Session, now: Instant) -> Vec<String> {
    let mut said = Vec::new();
    loop {
        let pushes = session.poll(now);
        if pushes.is_empty() {
            return said;
        }
        for push in pushes {
            said.push(brief(&push));
            let new = push.upserts.iter().filter(|r| r.warming == Warming::Endpoints);
            let new: Vec<_> = new
                .map(|r| r.name.clone())
                .filter(|n| !session.subscribed(Endpoints).contains(n))
                .collect();
            session.ack(push.kind, push.nonce);
            if !new.is_empty() {
                session.subscribe(Endpoints, new, vec![]);
            }
            if push.kind == Cluster {
                session.unsubscribe(Endpoints, &push.removals);
            }
        }
    }
}

fn started(rows: &[Row<'_>], now: Instant) -> Session {
    let mut session = session();
    session.set_target(snapshot(1, rows));
    session.subscribe_all(Cluster, vec![]);
    converse(&mut session, now);
    session.subscribe_all(Listener, vec![]);
    let routes = rows
        .iter()
        .filter(|row| row.0 == Route)
        .map(|row| ResourceName::from(row.1))
        .collect();
    session.subscribe(Route, routes, vec![]);
    converse(&mut session, now);
    session
}

const V1: &[Row<'_>] = &[
    (Cluster, "a", "eds a", &[]),
    (Endpoints, "a", "1.1.1.1", &[]),
    (Listener, "l", "l1", &[]),
    (Route, "r", "to a", &["a"]),
];

const V2: &[Row<'_>] = &[
    (Cluster, "b", "eds b", &[]),
    (Endpoints, "b", "2.2.2.2", &[]),
    (Listener, "l", "l1", &[]),
    (Route, "r", "to b", &["b"]),
];

#[test]
fn a_new_client_gets_everything_in_order() {
    let (mut session, now) = (session(), Instant::now());
    session.subscribe_all(Cluster, vec![]);
    assert!(session.poll(now).is_empty(), "nothing before there is a target");
    session.set_target(snapshot(1, V1));
    assert_eq!(converse(&mut session, now), ["CDS +a", "EDS +a"]);
    session.subscribe_all(Listener, vec![]);
    assert_eq!(converse(&mut session, now), ["LDS +l"]);
    session.subscribe(Route, vec!["r".into()], vec![]);
    assert_eq!(converse(&mut session, now), ["RDS +r"]);
    assert!(session.settled());
    assert!(
        session
            .held(Cluster)
            .ptr_eq(session.target.as_ref().unwrap().set(Cluster))
    );
}

#[test]
fn makes_before_it_breaks() {
    let now = Instant::now();
    let mut session = started(V1, now);
    session.set_target(snapshot(2, V2));
    assert_eq!(converse(&mut session, now), ["CDS +b", "EDS +b", "RDS +r"]);
    assert!(session.up_to_date() && !session.settled());
    let later = session.wake_at().unwrap();
    assert_eq!(later, now + SessionTimeouts::default().removal);
    assert_eq!(converse(&mut session, later), ["CDS -a"]);
    assert!(session.settled());
    assert_eq!(session.wake_at(), None);
}

#[test]
fn a_route_waits_for_endpoints_up_to_the_timeout() {
    let now = Instant::now();
    let mut session = started(V1, now);
    session.set_target(snapshot(2, V2));
    let pushes = session.poll(now);
    assert_eq!(briefs(&pushes), ["CDS +b"]);
    session.ack(Cluster, pushes[0].nonce);
    assert!(
        session.poll(now).is_empty(),
        "the client has not asked for the endpoints of b yet"
    );
    assert_eq!(session.wake_at(), Some(now + SessionTimeouts::default().endpoints));
    assert_eq!(
        briefs(&session.poll(now + SessionTimeouts::default().endpoints)),
        ["RDS +r"]
    );
}

#[test]
fn a_route_to_a_dns_cluster_waits_for_the_timeout() {
    let now = Instant::now();
    let mut session = started(&[(Route, "r", "none", &[])], now);
    session.set_target(snapshot(
        2,
        &[(Cluster, "d", "dns d", &[]), (Route, "r", "to d", &["d"])],
    ));
    assert_eq!(converse(&mut session, now), ["CDS +d"]);
    assert_eq!(session.wake_at(), Some(now + SessionTimeouts::default().dns));
    assert_eq!(converse(&mut session, now + SessionTimeouts::default().dns), ["RDS +r"]);
}

#[test]
fn a_changed_cluster_gets_its_endpoints_again() {
    let now = Instant::now();
    let mut session = started(V1, now);
    let mut rows = V1.to_vec();
    rows[0].2 = "eds a with tls";
    session.set_target(snapshot(2, &rows));
    assert_eq!(converse(&mut session, now), ["CDS +a", "EDS +a"]);
}

/// Envoy ACKs clusters only when all are warm, for which it needs the endpoints.
#[test]
fn the_endpoints_of_a_changed_cluster_do_not_wait_for_its_ack() {
    let now = Instant::now();
    let mut session = started(V1, now);
    let mut rows = V1.to_vec();
    (rows[0].2, rows[1].2) = ("eds a with tls", "1.1.1.2");
    session.set_target(snapshot(2, &rows));
    assert_eq!(briefs(&session.poll(now)), ["CDS +a", "EDS +a"]);
}

#[test]
fn subscriptions_are_always_answered() {
    let now = Instant::now();
    let mut session = started(V1, now);
    session.subscribe(Route, vec!["nope".into()], vec![]);
    session.subscribe(Endpoints, vec!["nope".into()], vec![]);
    session.subscribe(Secret, vec!["nope".into()], vec![]);
    assert_eq!(converse(&mut session, now), ["EDS +nope", "RDS +nope", "SDS -nope"]);
}

#[test]
fn resubscribing_is_answered_even_if_unchanged() {
    let now = Instant::now();
    let mut session = started(V1, now);
    session.subscribe(Endpoints, vec!["a".into()], vec![]);
    assert_eq!(converse(&mut session, now), ["EDS +a"]);
}

#[test]
fn a_reconnecting_client_gets_only_changes() {
    let now = Instant::now();
    let version = |kind, name: &str| snapshot(1, V1).set(kind).get(name).unwrap().version.clone();
    let mut session = session();
    session.set_target(snapshot(2, V1));
    let gone = ("gone".into(), Version::from_text("x"));
    session.subscribe_all(Cluster, vec![("a".into(), version(Cluster, "a")), gone]);
    session.subscribe(Endpoints, vec!["a".into()], vec![("a".into(), version(Endpoints, "a"))]);
    session.subscribe_all(Listener, vec![("l".into(), Version::from_text("old"))]);
    session.subscribe(Route, vec!["r".into()], vec![("r".into(), version(Route, "r"))]);
    assert_eq!(converse(&mut session, now), ["LDS +l"]);
    assert_eq!(
        converse(&mut session, now + SessionTimeouts::default().removal),
        ["CDS -gone"]
    );
}

#[test]
fn a_stale_nonce_is_ignored() {
    let (mut session, now) = (session(), Instant::now());
    session.set_target(snapshot(1, V1));
    session.subscribe_all(Cluster, vec![]);
    let push = session.poll(now).remove(0);
    session.ack(Cluster, push.nonce + 7);
    assert!(session.nack(Cluster, 0, "no").is_empty());
    assert!(session.held(Cluster).is_empty());
    session.ack(Cluster, push.nonce);
    assert_eq!(session.held(Cluster).len(), 1);
}

#[test]
fn a_rejected_cluster_is_contained_and_not_resent() {
    let now = Instant::now();
    let mut session = started(V1, now);
    let rows = [V1, &[(Cluster, "bad", "x", &[]), (Cluster, "good", "x", &[])]].concat();
    session.set_target(snapshot(2, &rows));
    let push = session.poll(now).remove(0);
    assert_eq!(brief(&push), "CDS +bad +good");
    let refusals = session.nack(
        Cluster,
        push.nonce,
        "Error adding/updating cluster(s) bad: no such thing",
    );
    assert_eq!(refusals.iter().map(|r| &*r.resource.name).collect::<Vec<_>>(), ["bad"]);
    assert!(session.held(Cluster).contains_key("good"));
    assert_eq!(converse(&mut session, now), [""; 0]);
    assert_eq!(session.state(Cluster), SyncState::Nacked);

    let mut rows = rows.clone();
    rows[0].2 = "eds a 2";
    session.set_target(snapshot(3, &rows));
    assert_eq!(
        converse(&mut session, now),
        ["CDS +a", "EDS +a"],
        "all other updates still go out"
    );
    rows[4].2 = "repaired";
    session.set_target(snapshot(4, &rows));
    assert_eq!(converse(&mut session, now), ["CDS +bad"]);
    assert_eq!(session.state(Cluster), SyncState::Synced);
}

#[test]
fn a_nack_without_names_is_bisected() {
    let now = Instant::now();
    let rows: Vec<Row<'_>> = ["a", "b", "c", "d", "e"].map(|n| (Route, n, n, &[][..])).to_vec();
    let mut session = session();
    session.set_target(snapshot(1, &rows));
    session.subscribe(Route, rows.iter().map(|row| row.1.into()).collect(), vec![]);
    let (mut refused, mut pushes) = (Vec::new(), 0);
    while let Some(push) = session.poll(now).pop() {
        pushes += 1;
        if push.upserts.iter().any(|r| &*r.name == "d") {
            refused.extend(session.nack(Route, push.nonce, "something is wrong"));
        } else {
            session.ack(Route, push.nonce);
        }
    }
    assert_eq!(refused.iter().map(|r| &*r.resource.name).collect::<Vec<_>>(), ["d"]);
    assert_eq!(session.held(Route).len(), 4);
    assert!(pushes <= 7, "{pushes} pushes");
}

#[test]
fn a_nack_that_names_routes_accepts_the_others() {
    let now = Instant::now();
    let rows: Vec<Row<'_>> = ["a", "b", "c"].map(|n| (Route, n, n, &[][..])).to_vec();
    let mut session = session();
    session.set_target(snapshot(1, &rows));
    session.subscribe(Route, rows.iter().map(|row| row.1.into()).collect(), vec![]);
    let push = session.poll(now).remove(0);
    let reason = "Error adding/updating route configuration(s) a: no, c: virtual_hosts[0]: no";
    let refused = session.nack(Route, push.nonce, reason);
    assert_eq!(
        refused.iter().map(|r| &*r.resource.name).collect::<Vec<_>>(),
        ["a", "c"]
    );
    assert!(session.held(Route).contains_key("b"));
    assert_eq!(converse(&mut session, now), [""; 0], "nothing has to be found out");
}

#[test]
fn a_cluster_of_a_rejected_route_is_kept() {
    let now = Instant::now();
    let mut session = started(V1, now);
    session.set_target(snapshot(2, V2));
    let cds = session.poll(now).remove(0);
    session.ack(Cluster, cds.nonce);
    session.subscribe(Endpoints, vec!["b".into()], vec![]);
    let eds = session.poll(now).remove(0);
    session.ack(Endpoints, eds.nonce);
    let rds = session.poll(now).remove(0);
    assert_eq!(session.nack(Route, rds.nonce, "no").len(), 1);
    let much_later = now + Duration::from_secs(60);
    assert_eq!(converse(&mut session, now), [""; 0]);
    assert_eq!(
        converse(&mut session, much_later),
        [""; 0],
        "a stays: the route in force names it"
    );
}

/// The session of [`a_cluster_of_a_rejected_route_is_kept`], after the NACK.
fn refused_route(now: Instant) -> Session {
    let mut session = started(V1, now);
    session.set_target(snapshot(2, V2));
    loop {
        let push = session.poll(now).remove(0);
        if push.kind == Route {
            assert_eq!(session.nack(Route, push.nonce, "no").len(), 1);
            return session;
        }
        session.ack(push.kind, push.nonce);
        if push.kind == Cluster {
            session.subscribe(Endpoints, vec!["b".into()], vec![]);
        }
    }
}

/// The client reconnects to a session with these rejections.
fn reconnected(first: &Session, refused: Refused) -> Session {
    let has = |kind| {
        let held = first.held(kind).values();
        held.map(|resource| (resource.name.clone(), resource.version.clone()))
            .collect::<Vec<_>>()
    };
    let names = |kind| has(kind).into_iter().map(|(name, _)| name).collect();
    let mut second = Session::new(SessionTimeouts::default(), refused);
    second.set_target(snapshot(2, V2));
    second.subscribe_all(Cluster, has(Cluster));
    second.subscribe(Endpoints, names(Endpoints), has(Endpoints));
    second.subscribe_all(Listener, has(Listener));
    second.subscribe(Route, names(Route), has(Route));
    second
}

#[test]
fn a_cluster_of_a_rejected_route_is_kept_when_the_client_reconnects() {
    let now = Instant::now();
    let much_later = now + Duration::from_secs(60);
    let mut first = refused_route(now);
    for _ in 0..2 {
        let mut second = reconnected(&first, first.refused().clone());
        assert_eq!(converse(&mut second, now), [""; 0]);
        assert_eq!(converse(&mut second, much_later), [""; 0], "the route in force names a");
        first = second;
    }
    let repaired = [V2[0], V2[1], V2[2], (Route, "r", "to b again", &["b"])];
    first.set_target(snapshot(3, &repaired));
    assert_eq!(converse(&mut first, much_later), ["RDS +r"]);
    assert_eq!(converse(&mut first, much_later + Duration::from_secs(60)), ["CDS -a"]);
}

#[test]
fn without_knowledge_of_the_clients_state_no_cluster_is_removed() {
    let now = Instant::now();
    let much_later = now + Duration::from_secs(60);
    let mut session = reconnected(&refused_route(now), Refused::new());
    let push = session.poll(now).remove(0);
    assert_eq!(
        brief(&push),
        "RDS +r",
        "another server does not know that it was refused"
    );
    session.nack(Route, push.nonce, "no");
    assert_eq!(converse(&mut session, now), [""; 0]);
    assert_eq!(converse(&mut session, much_later), [""; 0], "any cluster may be named");
}

#[test]
fn rejections_outlive_the_stream() {
    let now = Instant::now();
    let target = snapshot(1, &[(Cluster, "bad", "x", &[])]);
    let mut first = session();
    first.set_target(target.clone());
    first.subscribe_all(Cluster, vec![]);
    let push = first.poll(now).remove(0);
    first.nack(Cluster, push.nonce, "bad: no");
    let mut second = Session::new(SessionTimeouts::default(), first.refused().clone());
    second.set_target(target.clone());
    second.subscribe_all(Cluster, vec![("other".into(), Version::from_text("x"))]);
    assert_eq!(
        briefs(&second.poll(now)),
        [""; 0],
        "the same process: not the refused cluster again"
    );
    let mut third = Session::new(SessionTimeouts::default(), first.refused().clone());
    third.set_target(target);
    third.subscribe_all(Cluster, vec![]);
    assert_eq!(
        briefs(&third.poll(now)),
        ["CDS +bad"],
        "another process, which has nothing"
    );
}

#[test]
fn a_removed_name_that_reappears_is_not_removed() {
    let now = Instant::now();
    let mut session = started(V1, now);
    session.set_target(snapshot(2, V2));
    converse(&mut session, now);
    session.set_target(snapshot(3, V1));
    converse(&mut session, now + Duration::from_secs(1));
    let said = converse(&mut session, now + Duration::from_secs(10));
    assert_eq!(said, ["CDS -b"]);
}

/// A client that behaves like Envoy.
#[derive(Default)]
struct Client {
    has: BTreeMap<(ResourceType, String), Arc<Resource>>,
    in_flight: Vec<Push>,
    wants: BTreeSet<String>,
}

impl Client {
    fn apply(&mut self, push: &Push) {
        for resource in &push.upserts {
            self.has
                .insert((push.kind, resource.name.to_string()), resource.clone());
        }
        for name in &push.removals {
            self.has.remove(&(push.kind, name.to_string()));
        }
    }

    /// Checks that every cluster a route or listener refers to exists, with endpoints if it needs
    /// them.
    fn check(&self) -> Result<(), TestCaseError> {
        for resource in self.has.values().filter(|r| matches!(r.kind, Listener | Route)) {
            for cluster in resource.clusters.iter() {
                let found = self.has.get(&(Cluster, cluster.to_string()));
                prop_assert!(found.is_some(), "{resource:?} names {cluster}, which is not there");
                let warm = found.is_none_or(|c| c.warming != Warming::Endpoints)
                    || self.has.contains_key(&(Endpoints, cluster.to_string()));
                prop_assert!(warm, "{resource:?} names {cluster}, which has no endpoints");
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Step {
    Target(BTreeSet<u8>, u8),
    Answer(usize),
    Poll(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (proptest::collection::btree_set(0_u8..6, 0..5), 0_u8..3)
            .prop_map(|(clusters, salt)| Step::Target(clusters, salt)),
        (0_usize..8).prop_map(Step::Answer),
        (0_usize..8).prop_map(Step::Answer),
        (0_u64..1500).prop_map(Step::Poll),
    ]
}

/// Clusters `c0` … with endpoints, and a route that refers to all of them.
fn random_target(generation: u64, clusters: &BTreeSet<u8>, salt: u8) -> Arc<Snapshot> {
    let names: Vec<String> = clusters.iter().map(|n| format!("c{n}")).collect();
    let named: Vec<&str> = names.iter().map(String::as_str).collect();
    let (content, route) = (format!("eds {salt}"), format!("to {named:?}"));
    let mut rows: Vec<Row<'_>> = vec![(Route, "r", &route, &named), (Listener, "l", "l", &[])];
    for name in &named {
        rows.push((Cluster, name, &content, &[]));
        rows.push((Endpoints, name, name, &[]));
    }
    snapshot(generation, &rows)
}

proptest! {
    #[test]
    fn no_client_ever_has_a_dangling_route(steps in proptest::collection::vec(step(), 1..60)) {
        let mut now = Instant::now();
        let (mut session, mut client) = (session(), Client::default());
        session.subscribe_all(Cluster, vec![]);
        session.subscribe_all(Listener, vec![]);
        session.subscribe(Route, vec!["r".into()], vec![]);
        let mut last = random_target(0, &BTreeSet::new(), 0);
        session.set_target(last.clone());
        let rest = std::iter::repeat_n(Step::Poll(700), 40);
        for (generation, step) in steps.into_iter().chain(rest.flat_map(|poll| {
            [poll, Step::Answer(0), Step::Answer(0)]
        })).enumerate() {
            match step {
                Step::Target(clusters, salt) => {
                    last = random_target(generation as u64, &clusters, salt);
                    session.set_target(last.clone());
                }
                Step::Answer(which) if !client.in_flight.is_empty() => {
                    let push = client.in_flight.remove(which % client.in_flight.len());
                    session.ack(push.kind, push.nonce);
                    if push.kind == Cluster {
                        let new: Vec<_> = push.upserts.iter().filter(|c| client.wants.insert(c.name.to_string())).map(|c| c.name.clone()).collect();
                        session.subscribe(Endpoints, new, vec![]);
                        push.removals.iter().for_each(|name| { client.wants.remove(&**name); });
                        session.unsubscribe(Endpoints, &push.removals);
                    }
                }
                Step::Answer(_) => {}
                Step::Poll(millis) => now += Duration::from_millis(millis),
            }
            for push in session.poll(now) {
                client.apply(&push);
                client.in_flight.push(push);
            }
            // Waiting for endpoints is bounded, so only a client that responds in time is sure to
            // have them.
            if session.warming.is_empty() || session.wake_at().is_some_and(|at| at > now) {
                for resource in client.has.values().filter(|r| matches!(r.kind, Listener | Route)) {
                    for cluster in resource.clusters.iter() {
                        prop_assert!(client.has.contains_key(&(Cluster, cluster.to_string())), "{cluster} is gone");
                    }
                }
            }
        }
        prop_assert!(session.settled(), "{session:?}");
        for kind in [Cluster, Listener, Route] {
            let has: Vec<_> = client.has.iter().filter(|((k, _), _)| *k == kind).map(|((_, n), r)| (n.as_str(), &r.version)).collect();
            let should: Vec<_> = last.set(kind).iter().map(|(n, r)| (&**n, &r.version)).collect();
            prop_assert_eq!(has, should);
        }
        client.check()?;
    }
}
