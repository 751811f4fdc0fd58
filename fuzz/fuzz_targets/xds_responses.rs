//! xDS responses to the bundled proxy, in both protocol variants: it changes only what it subscribed to,
//! holds exactly what it accepted, and sends each subscription once.

#![no_main]

use std::time::Instant;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use prost::Message;
use topsail::xds::client::{Client, Node, Refused, Request, Response, Subscription, Variant, keep};
use topsail::xds::pb::discovery::{DeltaDiscoveryResponse, DiscoveryResponse, Resource};
use topsail::xds::pb::wkt::Any;
use topsail::xds::resource::ResourceType;

#[derive(Arbitrary, Debug)]
enum Step {
    /// A response decoded from these bytes, if valid.
    Bytes(Vec<u8>),
    /// A response with resources of these names, and removals.
    Response {
        kind: u8,
        resources: Vec<(u8, u8)>,
        removed: Vec<u8>,
        /// Bit mask of the resources that the proxy rejects.
        refused: u8,
    },
    /// Changes the subscription; no names mean wildcard.
    Want { kind: u8, names: Option<Vec<u8>> },
    /// The stream ends and a new one is opened.
    Open,
}

fn kind(number: u8) -> ResourceType {
    ResourceType::ALL[usize::from(number) % ResourceType::ALL.len()]
}

fn name(number: u8) -> String {
    format!("r{}", number % 8)
}

/// A message whose first field is the name, as in all resource types, and which varies with `content`.
fn body(kind: ResourceType, number: u8, content: u8) -> Any {
    let mut value = vec![0x0a, 2];
    value.extend(name(number).into_bytes());
    value.extend([0x78, content & 0x7f]);
    Any {
        type_url: kind.type_url().to_owned(),
        value,
    }
}

fn encoded(variant: Variant, kind: ResourceType, resources: &[(u8, u8)], removed: &[u8]) -> Vec<u8> {
    let type_url = kind.type_url().to_owned();
    match variant {
        Variant::Delta => DeltaDiscoveryResponse {
            type_url,
            nonce: "n".to_owned(),
            resources: resources
                .iter()
                .map(|(number, content)| Resource {
                    name: name(*number),
                    version: content.to_string(),
                    resource: Some(body(kind, *number, *content)),
                    ..Resource::default()
                })
                .collect(),
            removed_resources: removed.iter().map(|number| name(*number)).collect(),
            ..DeltaDiscoveryResponse::default()
        }
        .encode_to_vec(),
        Variant::Sotw => DiscoveryResponse {
            type_url,
            nonce: "n".to_owned(),
            version_info: resources.len().to_string(),
            resources: resources
                .iter()
                .map(|(number, content)| body(kind, *number, *content))
                .collect(),
            ..DiscoveryResponse::default()
        }
        .encode_to_vec(),
    }
}

/// Processes a response, rejecting every resource whose digit has its bit set in `refused`.
fn handle_response(client: &mut Client, bytes: Vec<u8>, refused: u8) {
    let Ok(response) = Response::decode(client.variant(), bytes.into()) else {
        return;
    };
    let kind = response.kind;
    let before = client.held(kind).clone();
    let update = client.receive(response);
    assert_eq!(*client.held(kind), before, "had before it was accepted");
    let wanted = |name: &str| match client.wanted(kind) {
        Subscription::None => false,
        Subscription::All => true,
        Subscription::Names(names) => names.contains(name),
    };
    let names = update.upserts.iter().map(|one| &one.name).chain(&update.removals);
    assert!(names.into_iter().all(|name| wanted(name)), "taken without being wanted");
    let refuses = |name: &str| {
        let digit = name.strip_prefix('r').and_then(|digit| digit.parse().ok());
        digit.is_some_and(|digit: u8| digit < 8 && refused >> digit & 1 == 1)
    };
    let named = update.upserts.iter().filter(|one| refuses(&one.name));
    let why = "no reason".to_owned();
    let refused: Vec<_> = named
        .map(|one| Refused {
            name: one.name.clone(),
            why: why.clone(),
        })
        .collect();
    let answer = client.answer(&update, &refused, Instant::now());
    let error = match &answer {
        Request::Delta(request) => &request.error_detail,
        Request::Sotw(request) => &request.error_detail,
    };
    assert_eq!(error.is_some(), !refused.is_empty() || !update.malformed.is_empty());
    let held = client.held(kind);
    for one in &update.upserts {
        if refuses(&one.name) {
            assert_eq!(held.get(&one.name), before.get(&one.name), "a refused one is had");
        } else {
            assert_eq!(held.get(&one.name), Some(&one.version), "an accepted one is not had");
        }
    }
    assert!(update.removals.iter().all(|name| !held.contains_key(name)));
}

fuzz_target!(|input: (bool, Vec<Step>, &[u8])| {
    let (incremental, steps, file) = input;
    // The file persisted by an earlier run is parsed by the same decoder.
    drop(keep::decode(file.to_vec().into()));
    let variant = if incremental { Variant::Delta } else { Variant::Sotw };
    let mut client = Client::new(variant, Node::default());
    for step in steps {
        match step {
            Step::Bytes(bytes) => handle_response(&mut client, bytes, 0),
            Step::Response {
                kind: number,
                resources,
                removed,
                refused,
            } => {
                let bytes = encoded(variant, kind(number), &resources, &removed);
                handle_response(&mut client, bytes, refused);
            }
            Step::Want { kind: number, names } => {
                let names = names.map(|names| names.into_iter().map(|number| name(number).into()).collect());
                client.want(kind(number), names.map_or(Subscription::All, Subscription::Names));
            }
            Step::Open => client.open(),
        }
        for request in client.requests() {
            drop(request.encode());
        }
        assert_eq!(client.requests(), Vec::new(), "the same is said twice");
    }
});
