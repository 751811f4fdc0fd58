//! Registration of streams that come and go, with a simulated clock.

use super::*;
use crate::control::registration::is_registered;
use crate::name::Kind;

const GRACE: Duration = Duration::from_secs(10);

fn registry() -> (Registry, Instant) {
    (Registry::new(GRACE, []), Instant::now())
}

fn member(address: &str) -> Registration {
    let group = "reviews.shop".parse().unwrap();
    Registration::testing(&group, address.parse().unwrap())
}

/// The WorkloadEntries and whether each is ready.
fn entries(registry: &Registry) -> Vec<(String, bool)> {
    let shown = registry.shown().into_iter();
    shown.map(|workload| (workload.address, workload.ready)).collect()
}

fn ready(address: &str) -> Vec<(String, bool)> {
    vec![(address.to_owned(), true)]
}

fn unready(address: &str) -> Vec<(String, bool)> {
    vec![(address.to_owned(), false)]
}

#[test]
fn a_member_is_ready_from_ack_to_close_and_removed_after_the_grace_period() {
    let (mut registry, now) = registry();
    registry.join(1, member("10.0.0.7"), None);
    assert_eq!(entries(&registry), unready("10.0.0.7"));
    registry.acked(1);
    assert_eq!(entries(&registry), ready("10.0.0.7"));
    let id = member("10.0.0.7").workload.object(Kind::WorkloadEntry);
    let object = registry.object(&id).unwrap().clone();
    assert!(is_registered(&object));
    assert_eq!(object.annotations["istio.io/autoRegistrationGroup"], "reviews");
    let restored = Registration::of_object(&object).unwrap();
    assert_eq!(
        restored.object().as_deref(),
        Some(&*object),
        "what a restart makes of it"
    );

    registry.leave(1, now);
    assert_eq!(entries(&registry), ready("10.0.0.7"), "it may only be the stream");
    registry.closed(1, now);
    assert_eq!(entries(&registry), unready("10.0.0.7"));
    assert_eq!(registry.next_end(), Some(now + GRACE));
    registry.expire(now + GRACE - Duration::from_millis(1));
    assert_eq!(entries(&registry).len(), 1);
    registry.expire(now + GRACE);
    assert_eq!((entries(&registry), registry.object(&id)), (vec![], None));
}

#[test]
fn reconnecting_within_the_grace_period_changes_nothing() {
    let (mut registry, now) = registry();
    registry.join(1, member("10.0.0.7"), None);
    registry.acked(1);
    registry.take_changed();
    registry.leave(1, now);
    registry.join(2, member("10.0.0.7"), None);
    registry.acked(2);
    registry.expire(now + 2 * GRACE);
    assert_eq!(entries(&registry), ready("10.0.0.7"));
    assert!(!registry.has_changed());
}

#[test]
fn the_later_of_two_streams_supersedes_the_other() {
    let (mut registry, now) = registry();
    registry.join(1, member("10.0.0.7"), None);
    registry.acked(1);
    registry.join(2, member("10.0.0.7"), None);
    registry.take_changed();
    registry.leave(1, now);
    registry.closed(1, now);
    registry.expire(now + 2 * GRACE);
    assert_eq!(entries(&registry), ready("10.0.0.7"));
    assert!(!registry.has_changed());
    registry.leave(2, now);
    registry.closed(2, now);
    assert_eq!(entries(&registry), unready("10.0.0.7"));
    registry.join(3, member("10.0.0.7"), None);
    assert_eq!(entries(&registry), unready("10.0.0.7"), "a process that starts anew");
    registry.acked(3);
    assert_eq!(entries(&registry), ready("10.0.0.7"));
}

#[test]
fn restored_workloads_have_the_grace_period_to_reconnect() {
    let (mut before, now) = registry();
    for (stream, address) in [(1, "10.0.0.7"), (2, "10.0.0.8")] {
        before.join(stream, member(address), None);
        before.acked(stream);
    }
    let ids = before.take_changed();
    let objects: Vec<_> = ids
        .iter()
        .map(|name| before.object(&name.object(Kind::WorkloadEntry)).unwrap().clone())
        .collect();
    let mut registry = Registry::new(GRACE, objects);
    assert_eq!(registry.next_end(), None, "the directory is still being read");
    registry.join(1, member("10.0.0.7"), None);
    registry.start(now);
    assert_eq!(entries(&registry), [ready("10.0.0.7"), ready("10.0.0.8")].concat());
    registry.expire(now + GRACE);
    assert_eq!(entries(&registry), ready("10.0.0.7"));
    registry.acked(1);
    assert_eq!(
        registry.take_changed().len(),
        1,
        "only of the one that is gone is there news"
    );
}

#[test]
fn shutdown_of_the_server_unregisters_no_workload() {
    let (mut registry, now) = registry();
    registry.join(1, member("10.0.0.7"), None);
    registry.acked(1);
    registry.stop();
    registry.leave(1, now);
    registry.closed(1, now);
    registry.expire(now + GRACE);
    assert_eq!(entries(&registry), ready("10.0.0.7"));
}

#[test]
fn connections_closed_while_the_server_was_suspended_are_ignored() {
    let (mut registry, now) = registry();
    registry.hear(now);
    registry.join(1, member("10.0.0.7"), None);
    registry.acked(1);
    let later = now + 2 * STANDSTILL;
    registry.hear(later);
    registry.leave(1, later);
    registry.closed(1, later);
    assert_eq!(entries(&registry), ready("10.0.0.7"));
    registry.join(2, member("10.0.0.7"), None);
    let again = later + GRACE;
    registry.leave(2, again);
    registry.closed(2, again);
    assert_eq!(entries(&registry), unready("10.0.0.7"));
}

#[test]
fn a_leaving_member_is_unready_until_it_acks_on_another_stream() {
    let (mut registry, _) = registry();
    registry.join(1, member("10.0.0.7"), None);
    registry.acked(1);
    registry.leaving(&member("10.0.0.8").workload);
    assert_eq!(entries(&registry), ready("10.0.0.7"), "another one leaves");
    registry.leaving(&member("10.0.0.7").workload);
    assert_eq!(entries(&registry), unready("10.0.0.7"));
    registry.join(2, member("10.0.0.7"), None);
    assert_eq!(entries(&registry), unready("10.0.0.7"));
    registry.acked(2);
    assert_eq!(entries(&registry), ready("10.0.0.7"));
}

/// The sidecar of a member reports its application's readiness.
fn say(registry: &mut Registry, run: u64, ready: bool) {
    registry.said(&member("10.0.0.7").workload, run, ready);
}

#[test]
fn readiness_needs_both_the_ack_and_the_application() {
    let (mut registry, now) = registry();
    say(&mut registry, 5, true);
    registry.join(1, member("10.0.0.7"), Some(5));
    registry.acked(1);
    assert_eq!(entries(&registry), unready("10.0.0.7"));
    say(&mut registry, 4, true);
    assert_eq!(entries(&registry), unready("10.0.0.7"), "a run before");
    say(&mut registry, 5, true);
    assert_eq!(entries(&registry), ready("10.0.0.7"));
    say(&mut registry, 5, false);
    assert_eq!(entries(&registry), unready("10.0.0.7"));
    say(&mut registry, 5, true);
    assert_eq!(entries(&registry), ready("10.0.0.7"));

    // The stream breaks, then the proxy dies; the application keeps running.
    registry.leave(1, now);
    registry.join(2, member("10.0.0.7"), Some(5));
    assert_eq!(entries(&registry), ready("10.0.0.7"));
    registry.leave(2, now);
    registry.closed(2, now);
    say(&mut registry, 5, true);
    registry.join(3, member("10.0.0.7"), Some(5));
    assert_eq!(entries(&registry), unready("10.0.0.7"));
    registry.acked(3);
    assert_eq!(entries(&registry), ready("10.0.0.7"));

    // Another container reuses its address.
    registry.join(4, member("10.0.0.7"), Some(6));
    registry.acked(4);
    assert_eq!(entries(&registry), unready("10.0.0.7"));
    say(&mut registry, 6, true);
    assert_eq!(entries(&registry), ready("10.0.0.7"));
}

#[test]
fn application_readiness_does_not_revive_a_leaving_member() {
    let (mut registry, _) = registry();
    registry.join(1, member("10.0.0.7"), Some(5));
    registry.acked(1);
    say(&mut registry, 5, true);
    registry.leaving(&member("10.0.0.7").workload);
    say(&mut registry, 5, true);
    assert_eq!(entries(&registry), unready("10.0.0.7"));
}

#[test]
fn readiness_survives_a_restart_of_the_server() {
    let (mut before, now) = registry();
    before.join(1, member("10.0.0.7"), Some(5));
    before.acked(1);
    say(&mut before, 5, true);
    let object = before.object(&member("10.0.0.7").workload.object(Kind::WorkloadEntry));
    let mut registry = Registry::new(GRACE, object.cloned());
    registry.start(now);
    registry.join(1, member("10.0.0.7"), Some(5));
    registry.acked(1);
    assert_eq!(entries(&registry), ready("10.0.0.7"));
    assert!(!registry.has_changed());
    say(&mut registry, 5, false);
    assert_eq!(entries(&registry), unready("10.0.0.7"));
}

#[test]
fn an_edit_of_the_group_keeps_its_members_ready() {
    let (mut registry, _) = registry();
    registry.join(1, member("10.0.0.7"), Some(5));
    registry.acked(1);
    registry.regroup(&member("10.0.0.7").group, |_| Some(member("10.0.0.7")));
    say(&mut registry, 5, true);
    assert_eq!(entries(&registry), ready("10.0.0.7"));
}
