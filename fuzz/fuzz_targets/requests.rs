//! xDS requests from a client, in both protocol variants: for any sequence of requests and pushes, a session
//! has at most one response per type in flight.

#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use prost::Message;
use topsail::xds::pb::discovery::{DeltaDiscoveryRequest, DiscoveryRequest};
use topsail::xds::resource::{Resource, ResourceType};
use topsail::xds::session::{Refused, Session, SessionTimeouts, delta, sotw};
use topsail::xds::snapshot::Snapshot;

#[derive(Arbitrary, Debug)]
enum Step {
    /// A request decoded from these bytes, if valid.
    Request {
        kind: u8,
        bytes: Vec<u8>,
    },
    Ack {
        kind: u8,
    },
    Nack {
        kind: u8,
        message: String,
    },
    Subscribe {
        kind: u8,
        names: Vec<u8>,
    },
    Unsubscribe {
        kind: u8,
        names: Vec<u8>,
    },
    /// The target changes.
    Target {
        seed: u8,
    },
    /// Time passes.
    Wait {
        seconds: u8,
    },
}

fn kind(number: u8) -> ResourceType {
    ResourceType::ALL[usize::from(number) % ResourceType::ALL.len()]
}

fn name(number: u8) -> String {
    match number % 9 {
        8 => "*".to_owned(),
        number => format!("r{number}"),
    }
}

fn target(seed: u8) -> Arc<Snapshot> {
    let mut snapshot = Snapshot::new(u64::from(seed));
    for kind in ResourceType::ALL {
        for number in (0..8).filter(|number| seed >> number & 1 == 1) {
            let content = vec![seed, number];
            let clusters = (kind == ResourceType::Route).then(|| name(number).as_str().into());
            let resource = Resource::new(kind, name(number).as_str().into(), content, [].into());
            let resource = resource.naming(clusters.into_iter().collect());
            snapshot
                .set_mut(kind)
                .insert(name(number).as_str().into(), Arc::new(resource));
        }
    }
    Arc::new(snapshot)
}

/// One stream, and the nonce in flight for each type.
struct Conversation {
    session: Session,
    incremental: bool,
    now: Instant,
    outstanding: BTreeMap<ResourceType, u64>,
}

impl Conversation {
    fn send(&mut self, kind: ResourceType, request: DeltaDiscoveryRequest) {
        let answers = request.response_nonce.parse().ok();
        if self.incremental {
            delta::receive(&mut self.session, kind, request);
        } else {
            let request = DiscoveryRequest {
                resource_names: request.resource_names_subscribe,
                response_nonce: request.response_nonce,
                error_detail: request.error_detail,
                ..DiscoveryRequest::default()
            };
            let last = self.outstanding.get(&kind).copied();
            sotw::receive(&mut self.session, kind, request, last);
        }
        if answers.is_some() && self.outstanding.get(&kind).copied() == answers {
            self.outstanding.remove(&kind);
        }
    }

    fn answer(&mut self, kind: ResourceType, error: Option<String>) {
        if let Some(nonce) = self.outstanding.get(&kind) {
            let mut request = DeltaDiscoveryRequest {
                response_nonce: nonce.to_string(),
                ..DeltaDiscoveryRequest::default()
            };
            if let Some(message) = error {
                request.error_detail.get_or_insert_default().message = message;
            }
            self.send(kind, request);
        }
    }

    fn receive(&mut self) {
        for push in self.session.poll(self.now) {
            let before = self.outstanding.insert(push.kind, push.nonce);
            assert_eq!(
                before, None,
                "{} is pushed before the push before it is answered",
                push.kind
            );
            if self.incremental {
                drop(delta::write(&push, 1));
            } else {
                drop(sotw::write(&self.session, &push, 1));
            }
        }
    }
}

fuzz_target!(|input: (bool, Vec<Step>)| {
    let (incremental, steps) = input;
    let mut conversation = Conversation {
        session: Session::new(SessionTimeouts::default(), Refused::new()),
        incremental,
        now: Instant::now(),
        outstanding: BTreeMap::new(),
    };
    for step in steps {
        match step {
            Step::Request { kind: number, bytes } => {
                if let Ok(request) = DeltaDiscoveryRequest::decode(&bytes[..]) {
                    conversation.send(kind(number), request);
                }
            }
            Step::Ack { kind: number } => conversation.answer(kind(number), None),
            Step::Nack { kind: number, message } => conversation.answer(kind(number), Some(message)),
            Step::Subscribe { kind: number, names } => {
                let resource_names_subscribe = names.into_iter().map(name).collect();
                let request = DeltaDiscoveryRequest {
                    resource_names_subscribe,
                    ..DeltaDiscoveryRequest::default()
                };
                conversation.send(kind(number), request);
            }
            Step::Unsubscribe { kind: number, names } => {
                let resource_names_unsubscribe = names.into_iter().map(name).collect();
                let request = DeltaDiscoveryRequest {
                    resource_names_unsubscribe,
                    ..DeltaDiscoveryRequest::default()
                };
                conversation.send(kind(number), request);
            }
            Step::Target { seed } => conversation.session.set_target(target(seed)),
            Step::Wait { seconds } => conversation.now += Duration::from_secs(seconds.into()),
        }
        conversation.receive();
    }
});
