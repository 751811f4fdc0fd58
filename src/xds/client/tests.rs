//! Scripted conversations.

use bytes::Bytes;
use prost::{Message, Name as _};

use super::*;
use crate::xds::pb::cluster::Cluster;
use crate::xds::pb::discovery::Resource;
use crate::xds::pb::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use crate::xds::pb::wkt::Any;

const CDS: ResourceType = ResourceType::Cluster;
const EDS: ResourceType = ResourceType::Endpoints;

fn client(variant: Variant) -> Client {
    let node = Node {
        id: "me".into(),
        ..Default::default()
    };
    Client::new(variant, node)
}

fn names(names: &[&str]) -> Subscription {
    Subscription::Names(names.iter().map(|name| Name::from(*name)).collect())
}

fn cluster(name: &str) -> Any {
    Any {
        type_url: Cluster::type_url(),
        value: Cluster {
            name: name.into(),
            ..Default::default()
        }
        .encode_to_vec(),
    }
}

fn delta(kind: ResourceType, nonce: &str, resources: &[(&str, &str)], removed: &[&str]) -> Response {
    let resources = resources.iter().map(|(name, version)| Resource {
        name: (*name).into(),
        version: (*version).into(),
        resource: Some(Any {
            type_url: kind.type_url().into(),
            value: Vec::new(),
        }),
        ..Default::default()
    });
    let response = DeltaDiscoveryResponse {
        type_url: kind.type_url().into(),
        nonce: nonce.into(),
        resources: resources.collect(),
        removed_resources: removed.iter().map(|name| (*name).into()).collect(),
        ..Default::default()
    };
    Response::decode(Variant::Delta, response.encode_to_vec().into()).unwrap()
}

fn sotw(version: &str, nonce: &str, names: &[&str]) -> Response {
    let response = DiscoveryResponse {
        type_url: CDS.type_url().into(),
        version_info: version.into(),
        nonce: nonce.into(),
        resources: names.iter().map(|name| cluster(name)).collect(),
        ..Default::default()
    };
    Response::decode(Variant::Sotw, response.encode_to_vec().into()).unwrap()
}

fn as_delta(request: &Request) -> &DeltaDiscoveryRequest {
    match request {
        Request::Delta(request) => request,
        Request::Sotw(_) => panic!("{request:?}"),
    }
}

fn as_sotw(request: &Request) -> &DiscoveryRequest {
    match request {
        Request::Sotw(request) => request,
        Request::Delta(_) => panic!("{request:?}"),
    }
}

fn upserts(update: &Update) -> Vec<&str> {
    update.upserts.iter().map(|one| &*one.name).collect()
}

fn refused(name: &str, why: &str) -> Refused {
    Refused {
        name: name.into(),
        why: why.into(),
    }
}

#[test]
fn wildcard_subscriptions_have_no_names_and_the_node_is_sent_once() {
    let mut client = client(Variant::Delta);
    client.want(CDS, Subscription::All);
    client.want(EDS, names(&[]));
    let [request] = &client.requests()[..] else { panic!() };
    let request = as_delta(request);
    assert!(request.resource_names_subscribe.is_empty());
    assert_eq!(request.node.as_ref().unwrap().id, "me");
    assert!(client.requests().is_empty());
    client.want(EDS, names(&["a", "b"]));
    let [request] = &client.requests()[..] else { panic!() };
    assert_eq!(as_delta(request).resource_names_subscribe, ["a", "b"]);
    assert!(as_delta(request).node.is_none());
}

#[test]
fn delta_subscriptions_are_sent_as_differences() {
    let mut client = client(Variant::Delta);
    client.want(EDS, names(&["a", "b"]));
    client.requests();
    client.want(EDS, names(&["b", "c"]));
    let requests = client.requests();
    assert_eq!(as_delta(&requests[0]).resource_names_subscribe, ["c"]);
    assert_eq!(as_delta(&requests[0]).resource_names_unsubscribe, ["a"]);
    client.want(EDS, names(&[]));
    let requests = client.requests();
    assert_eq!(as_delta(&requests[0]).resource_names_unsubscribe, ["b", "c"]);
}

#[test]
fn accepted_resources_are_acked_and_reported_on_the_next_stream() {
    let mut client = client(Variant::Delta);
    client.want(CDS, Subscription::All);
    client.requests();
    let update = client.receive(delta(CDS, "1", &[("a", "v1"), ("b", "v1")], &[]));
    assert_eq!(upserts(&update), ["a", "b"]);
    let answer = client.answer(&update, &[], Instant::now());
    assert_eq!(as_delta(&answer).response_nonce, "1");
    assert!(as_delta(&answer).error_detail.is_none());
    let update = client.receive(delta(CDS, "2", &[("b", "v2")], &["a"]));
    assert_eq!((upserts(&update), &update.removals[..]), (vec!["b"], &["a".into()][..]));
    client.answer(&update, &[], Instant::now());

    client.open();
    let requests = client.requests();
    let request = as_delta(&requests[0]);
    assert_eq!(request.node.as_ref().unwrap().id, "me");
    assert_eq!(request.initial_resource_versions, [("b".into(), "v2".into())].into());
}

/// istiod sends no per-resource versions.
#[test]
fn a_resource_with_the_same_version_counts_as_changed() {
    let mut client = client(Variant::Delta);
    client.want(ResourceType::Cluster, Subscription::All);
    client.requests();
    for nonce in ["1", "2"] {
        let update = client.receive(delta(ResourceType::Cluster, nonce, &[("a", "")], &[]));
        assert_eq!(upserts(&update), ["a"]);
        client.answer(&update, &[], Instant::now());
    }
}

#[test]
fn a_nack_names_each_rejected_resource_and_accepts_the_others() {
    let mut client = client(Variant::Delta);
    client.want(CDS, Subscription::All);
    client.requests();
    let update = client.receive(delta(CDS, "1", &[("a", "1"), ("b", "1"), ("c", "1")], &[]));
    let answer = client.answer(
        &update,
        &[refused("a", "name: no"), refused("c", "x is not implemented")],
        Instant::now(),
    );
    let error = as_delta(&answer).error_detail.as_ref().unwrap();
    assert_eq!(
        error.message,
        "Error adding/updating cluster(s) a: name: no, c: x is not implemented"
    );
    assert_eq!(error.code, 13);
    assert_eq!(client.held(CDS).keys().map(|name| &**name).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn duplicate_names_invalidate_the_response() {
    let mut client = client(Variant::Delta);
    client.want(CDS, Subscription::All);
    client.requests();
    let update = client.receive(delta(CDS, "1", &[("a", "1"), ("b", "1")], &["a"]));
    assert!(update.upserts.is_empty() && update.removals.is_empty());
    let answer = client.answer(&update, &[], Instant::now());
    let message = &as_delta(&answer).error_detail.as_ref().unwrap().message;
    assert!(message.contains("duplicate name a found"), "{message}");
    assert!(client.held(CDS).is_empty());
}

#[test]
fn unsubscribed_resources_are_forgotten() {
    let mut client = client(Variant::Delta);
    client.want(EDS, names(&["a"]));
    client.requests();
    let update = client.receive(delta(EDS, "1", &[("a", "1"), ("stranger", "1")], &[]));
    assert_eq!(upserts(&update), ["a"], "what was not asked for is left alone");
    client.answer(&update, &[], Instant::now());
    client.want(EDS, names(&[]));
    client.requests();
    client.want(EDS, names(&["a"]));
    let requests = client.requests();
    assert_eq!(as_delta(&requests[0]).resource_names_subscribe, ["a"]);
    let update = client.receive(delta(EDS, "2", &[("a", "1")], &[]));
    assert_eq!(upserts(&update), ["a"]);
}

#[test]
fn a_resource_of_another_type_is_rejected_by_name() {
    let mut client = client(Variant::Delta);
    client.want(CDS, Subscription::All);
    client.requests();
    let mut response = delta(CDS, "1", &[], &[]);
    response.malformed.push(refused("a", "the resource is of the type `x`"));
    let update = client.receive(response);
    let answer = client.answer(&update, &[], Instant::now());
    let message = &as_delta(&answer).error_detail.as_ref().unwrap().message;
    assert_eq!(
        message,
        "Error adding/updating cluster(s) a: the resource is of the type `x`"
    );
}

#[test]
fn sotw_absence_is_removal_and_unchanged_resources_are_ignored() {
    let mut client = client(Variant::Sotw);
    client.want(CDS, Subscription::All);
    let requests = client.requests();
    assert!(as_sotw(&requests[0]).resource_names.is_empty());
    let update = client.receive(sotw("1", "n1", &["a", "b"]));
    assert_eq!(upserts(&update), ["a", "b"]);
    let answer = client.answer(&update, &[], Instant::now());
    assert_eq!(as_sotw(&answer).version_info, "1");
    assert_eq!(as_sotw(&answer).response_nonce, "n1");
    let update = client.receive(sotw("2", "n2", &["b", "c"]));
    assert_eq!((upserts(&update), &update.removals[..]), (vec!["c"], &["a".into()][..]));
    let answer = client.answer(&update, &[refused("c", "no")], Instant::now());
    assert_eq!(as_sotw(&answer).version_info, "1", "the last accepted one");
    assert_eq!(as_sotw(&answer).response_nonce, "n2");
    assert!(as_sotw(&answer).error_detail.is_some());

    client.open();
    let requests = client.requests();
    assert_eq!(as_sotw(&requests[0]).version_info, "1");
    assert_eq!(as_sotw(&requests[0]).response_nonce, "");
}

#[test]
fn sotw_requests_have_the_whole_subscription() {
    let mut client = client(Variant::Sotw);
    client.want(EDS, names(&["a"]));
    client.requests();
    client.want(EDS, names(&["a", "b"]));
    let requests = client.requests();
    assert_eq!(as_sotw(&requests[0]).resource_names, ["a", "b"]);
}

/// A resource with a TTL in the form of both variants; a heartbeat if it is without its content.
fn lasting(name: &str, version: &str, ttl: i64, with_content: bool) -> Resource {
    Resource {
        name: name.into(),
        version: version.into(),
        ttl: Some(crate::xds::pb::wkt::Duration { seconds: ttl, nanos: 0 }),
        resource: with_content.then(|| cluster(name)),
        ..Default::default()
    }
}

fn wrapped(resource: &Resource) -> Any {
    Any {
        type_url: Resource::type_url(),
        value: resource.encode_to_vec(),
    }
}

fn responses(variant: Variant, nonce: &str, resources: &[Resource]) -> Response {
    let kind = CDS.type_url().to_owned();
    let bytes = match variant {
        Variant::Delta => DeltaDiscoveryResponse {
            type_url: kind,
            nonce: nonce.into(),
            resources: resources.to_vec(),
            ..Default::default()
        }
        .encode_to_vec(),
        Variant::Sotw => DiscoveryResponse {
            type_url: kind,
            version_info: nonce.into(),
            nonce: nonce.into(),
            resources: resources.iter().map(wrapped).collect(),
            ..Default::default()
        }
        .encode_to_vec(),
    };
    Response::decode(variant, bytes.into()).unwrap()
}

#[test]
fn resources_expire_after_their_ttl_unless_a_heartbeat_comes() {
    for variant in [Variant::Delta, Variant::Sotw] {
        let mut client = client(variant);
        client.want(CDS, Subscription::All);
        client.requests();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let both = [lasting("a", "1", 10, true), lasting("b", "1", 20, true)];
        let update = client.receive(responses(variant, "1", &both));
        assert_eq!(upserts(&update), ["a", "b"]);
        client.answer(&update, &[], start);
        assert_eq!(client.expires_at(), Some(at(10)));

        let beats = [lasting("a", "1", 10, false), lasting("b", "1", 20, false)];
        let update = client.receive(responses(variant, "2", &beats));
        assert!(update.upserts.is_empty() && update.removals.is_empty(), "{update:?}");
        client.answer(&update, &[], at(5));
        assert_eq!((client.expires_at(), client.expire(at(14))), (Some(at(15)), Vec::new()));

        let updates = client.expire(at(15));
        assert_eq!(updates.len(), 1);
        assert_eq!((updates[0].kind, &updates[0].removals[..]), (CDS, &["a".into()][..]));
        assert_eq!(client.expires_at(), Some(at(25)));
        assert_eq!(client.held(CDS).keys().map(|name| &**name).collect::<Vec<_>>(), ["b"]);

        // Without a TTL from now on.
        let mut forever = [lasting("a", "1", 0, true), lasting("b", "2", 0, true)];
        forever.iter_mut().for_each(|one| one.ttl = None);
        let update = client.receive(responses(variant, "3", &forever));
        client.answer(&update, &[], at(16));
        assert_eq!(client.expires_at(), None);
        assert_eq!(client.held(CDS).len(), 2);
    }
}

#[test]
fn a_heartbeat_of_another_version_is_refused_and_so_is_a_ttl_below_zero() {
    let mut client = client(Variant::Delta);
    client.want(CDS, Subscription::All);
    client.requests();
    let now = Instant::now();
    let update = client.receive(responses(Variant::Delta, "1", &[lasting("a", "1", 10, true)]));
    client.answer(&update, &[], now);
    let wrong = [lasting("a", "2", 60, false), lasting("b", "1", -1, true)];
    let update = client.receive(responses(Variant::Delta, "2", &wrong));
    let answer = client.answer(&update, &[], now);
    let message = &as_delta(&answer).error_detail.as_ref().unwrap().message;
    assert!(
        message.contains("a: has no content") && message.contains("b: ttl"),
        "{message}"
    );
    assert_eq!(client.expires_at(), Some(now + Duration::from_secs(10)));
}

#[test]
fn a_response_of_an_unknown_type_is_an_error() {
    let response = DeltaDiscoveryResponse {
        type_url: "x/y".into(),
        ..Default::default()
    };
    assert!(Response::decode(Variant::Delta, response.encode_to_vec().into()).is_err());
    assert!(Response::decode(Variant::Delta, Bytes::from_static(&[0x0a, 200])).is_err());
}

/// Property test: after any sequence of responses, the client holds what it was last sent of its
/// subscriptions.
mod random {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Want(BTreeSet<u8>),
        Put(u8, u8, bool),
        Remove(u8),
        Reconnect,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            proptest::collection::btree_set(0..4_u8, 0..4).prop_map(Step::Want),
            (0..4_u8, 0..3_u8, any::<bool>()).prop_map(|(name, version, good)| Step::Put(name, version, good)),
            (0..4_u8).prop_map(Step::Remove),
            Just(Step::Reconnect),
        ]
    }

    proptest! {
        #[test]
        fn the_client_holds_what_it_was_last_sent(steps in proptest::collection::vec(step(), 0..40)) {
            let mut client = client(Variant::Delta);
            let (mut wanted, mut told) = (BTreeSet::new(), BTreeMap::new());
            for step in steps {
                match step {
                    Step::Want(new) => {
                        told.retain(|name, _| new.contains(name));
                        let names = new.iter().map(|name| Name::from(name.to_string())).collect();
                        client.want(EDS, Subscription::Names(names));
                        wanted = new;
                        client.requests();
                    }
                    Step::Put(name, version, good) => {
                        let (text, version) = (name.to_string(), version.to_string());
                        let update = client.receive(delta(EDS, "n", &[(&text, &version)], &[]));
                        let refused = [refused(&text, "no")];
                        client.answer(&update, if good { &[] } else { &refused }, Instant::now());
                        if good && wanted.contains(&name) {
                            told.insert(name, version);
                        }
                    }
                    Step::Remove(name) => {
                        let update = client.receive(delta(EDS, "n", &[], &[&name.to_string()]));
                        client.answer(&update, &[], Instant::now());
                        told.remove(&name);
                    }
                    Step::Reconnect => {
                        client.open();
                        let requests = client.requests();
                        let known: BTreeMap<_, _> = requests
                            .iter()
                            .flat_map(|request| as_delta(request).initial_resource_versions.clone())
                            .collect();
                        let told = told.iter().map(|(name, version)| (name.to_string(), version.clone()));
                        prop_assert_eq!(known, told.collect::<BTreeMap<_, _>>());
                    }
                }
            }
            let held: BTreeMap<_, _> = client
                .held(EDS)
                .iter()
                .map(|(name, version)| (name.to_string(), version.to_string()))
                .collect();
            prop_assert_eq!(held, told.iter().map(|(n, v)| (n.to_string(), v.clone())).collect::<BTreeMap<_, _>>());
        }
    }
}
