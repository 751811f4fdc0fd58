//! Checks serialized messages against the constraints declared in Envoy's API.

use super::RuleBreak;
use crate::xds::schema::{
    Checks, Field, Kind, Layout, MessageType, Value, WireField, WireValue, any_parts, nanoseconds, wire_fields,
};

/// Validates a serialized message of this type.
pub(super) fn check(type_url: &str, bytes: &[u8]) -> Vec<RuleBreak> {
    let mut walk = Walk::default();
    match MessageType::of_url(type_url) {
        Some(message) => walk.message(bytes, message.layout()),
        None => walk.report(format!("has the type `{type_url}`, which Envoy does not know")),
    }
    walk.broken
}

/// The path to the current message, and the violations found.
#[derive(Default)]
struct Walk<'a> {
    path: Vec<Step<'a>>,
    broken: Vec<RuleBreak>,
}

/// A path element.
#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Element(&'a str, usize),
    Pair(&'a str, &'a str),
}

impl<'a> Walk<'a> {
    fn message(&mut self, bytes: &'a [u8], layout: &'a Layout) {
        let mut counts = vec![0_usize; layout.fields.len()];
        for found in wire_fields(bytes) {
            let Some(found) = found else {
                return self.report("cannot be read".to_owned());
            };
            let Some((at, field)) = layout.field(found.number) else {
                self.report(format!("has a field {} that Envoy does not know", found.number));
                continue;
            };
            counts[at] += self.field(bytes, field, &found, counts[at]);
        }
        for (field, count) in layout.fields.iter().zip(&counts) {
            self.count(field, *count);
            if field.constraint.unique {
                self.unique(bytes, field);
            }
        }
        for (name, members) in &layout.required_oneofs {
            let is_set = |number: &u32| layout.field(*number).is_some_and(|(at, _)| counts[at] > 0);
            if !members.iter().any(is_set) {
                self.at(Step::Field(name), |walk| walk.report("is required".to_owned()));
            }
        }
    }

    /// One occurrence of a field, after `before` values of it; returns its number of values.
    fn field(&mut self, bytes: &'a [u8], field: &'a Field, found: &WireField, before: usize) -> usize {
        let checks = &field.constraint.value;
        let mut count = 1;
        match (field.kind, &found.value) {
            (Kind::Scalar(scalar), WireValue::Bytes(place)) if field.repeated && scalar.packs() => {
                count = 0;
                for value in scalar.unpack(&bytes[place.clone()]) {
                    self.at(field.step(before + count), |walk| walk.scalar(checks, value));
                    count += 1;
                }
            }
            (Kind::Scalar(scalar), value) => {
                let value = scalar.read(bytes, value);
                self.at(field.step(before), |walk| walk.scalar(checks, value));
            }
            (Kind::Wrapper(scalar), WireValue::Bytes(place)) => {
                let value = scalar.wrapped(&bytes[place.clone()]);
                self.at(field.step(before), |walk| walk.scalar(checks, value));
            }
            (Kind::Duration, WireValue::Bytes(place)) => {
                let length = nanoseconds(&bytes[place.clone()]);
                self.at(field.step(before), |walk| walk.duration(checks, length));
            }
            (Kind::Message(message), WireValue::Bytes(place)) => {
                if !field.constraint.skip {
                    let content = &bytes[place.clone()];
                    self.at(field.step(before), |walk| walk.message(content, message.layout()));
                }
            }
            (Kind::Any, WireValue::Bytes(place)) => {
                let content = &bytes[place.clone()];
                self.at(field.step(before), |walk| walk.any(content));
            }
            (Kind::MapEntry(entry), WireValue::Bytes(place)) => {
                self.pair(&bytes[place.clone()], field, entry.layout());
            }
            (
                Kind::Wrapper(_) | Kind::Duration | Kind::Message(_) | Kind::Any | Kind::MapEntry(_),
                WireValue::Varint(_) | WireValue::Fixed64(_) | WireValue::Fixed32(_),
            ) => self.at(field.step(before), |walk| walk.scalar(checks, None)),
        }
        count
    }

    fn pair(&mut self, bytes: &'a [u8], field: &'a Field, entry: &'a Layout) {
        let mut key = "";
        for found in wire_fields(bytes).flatten() {
            let Some((_, part)) = entry.field(found.number) else {
                continue;
            };
            if let (1, WireValue::Bytes(place)) = (found.number, &found.value) {
                key = std::str::from_utf8(&bytes[place.clone()]).unwrap_or_default();
                let broken = field.constraint.key.broken(Value::Text(key));
                broken.into_iter().for_each(|rule| {
                    self.at(Step::Pair(&field.name, key), |walk| {
                        walk.report(format!("has a key that {rule}"))
                    });
                });
            } else if found.number == 2 {
                self.at(Step::Pair(&field.name, key), |walk| {
                    walk.pair_value(bytes, field, part, &found);
                });
            }
        }
    }

    fn pair_value(&mut self, bytes: &'a [u8], field: &'a Field, part: &'a Field, found: &WireField) {
        match (part.kind, &found.value) {
            (Kind::Message(message), WireValue::Bytes(place)) => {
                self.message(&bytes[place.clone()], message.layout());
            }
            (Kind::Any, WireValue::Bytes(place)) => self.any(&bytes[place.clone()]),
            (Kind::Scalar(scalar), value) => self.scalar(&field.constraint.value, scalar.read(bytes, value)),
            (Kind::Message(_) | Kind::Any | Kind::Wrapper(_) | Kind::Duration | Kind::MapEntry(_), _) => {}
        }
    }

    fn any(&mut self, bytes: &'a [u8]) {
        let Some((url, value)) = any_parts(bytes) else {
            return self.report("cannot be read".to_owned());
        };
        match MessageType::of_url(url) {
            Some(message) => self.message(&bytes[value], message.layout()),
            None => self.report(format!("has the type `{url}`, which Envoy does not know")),
        }
    }

    /// Checks a value; `None` is malformed.
    fn scalar(&mut self, checks: &Checks, value: Option<Value<'_>>) {
        match value {
            None => self.report("cannot be read".to_owned()),
            Some(value) => checks.broken(value).into_iter().for_each(|rule| self.report(rule)),
        }
    }

    /// Envoy rejects negative durations everywhere, with or without a constraint.
    fn duration(&mut self, checks: &Checks, nanoseconds: Option<i128>) {
        match nanoseconds {
            Some(..0) => self.report("must not be negative".to_owned()),
            Some(0..) | None => self.scalar(checks, nanoseconds.map(Value::Int)),
        }
    }

    /// Checks the number of values of a field, after the whole message was read.
    fn count(&mut self, field: &'a Field, count: usize) {
        let constraint = &field.constraint;
        let rule = if count == 0 && constraint.required && !field.optional {
            "is required".to_owned()
        } else if (count as u64) < constraint.min_count {
            format!("must have at least {} element(s)", constraint.min_count)
        } else if let Some(most) = constraint.max_count.filter(|most| count as u64 > *most) {
            format!("must have at most {most} element(s)")
        } else if count == 0 && !field.repeated && !field.optional {
            return self.absent(field);
        } else {
            return;
        };
        self.at(Step::Field(&field.name), |walk| walk.report(rule));
    }

    /// An absent scalar has the default value, which is checked too.
    fn absent(&mut self, field: &'a Field) {
        if let (Kind::Scalar(scalar), false) = (field.kind, field.constraint.value.is_empty()) {
            let zero = scalar.zero();
            self.at(Step::Field(&field.name), |walk| {
                walk.scalar(&field.constraint.value, Some(zero))
            });
        }
    }

    fn unique(&mut self, bytes: &'a [u8], field: &'a Field) {
        let Kind::Scalar(scalar) = field.kind else {
            return;
        };
        let mut values = Vec::new();
        for found in wire_fields(bytes)
            .flatten()
            .filter(|found| found.number == field.number)
        {
            match &found.value {
                WireValue::Bytes(place) if scalar.packs() => {
                    scalar
                        .unpack(&bytes[place.clone()])
                        .for_each(|value| values.push(value));
                }
                value => values.push(scalar.read(bytes, value)),
            }
        }
        if values
            .iter()
            .enumerate()
            .any(|(at, value)| values[..at].contains(value))
        {
            self.at(Step::Field(&field.name), |walk| {
                walk.report("must not have duplicate elements".to_owned())
            });
        }
    }

    fn at(&mut self, step: Step<'a>, look: impl FnOnce(&mut Self)) {
        self.path.push(step);
        look(self);
        self.path.pop();
    }

    fn report(&mut self, rule: String) {
        let mut path = String::new();
        for step in &self.path {
            let dot = if path.is_empty() { "" } else { "." };
            path += &match step {
                Step::Field(name) => format!("{dot}{name}"),
                Step::Element(name, index) => format!("{dot}{name}[{index}]"),
                Step::Pair(name, key) => format!("{dot}{name}[{key}]"),
            };
        }
        self.broken.push(RuleBreak { path, rule });
    }
}

impl Field {
    fn step(&self, index: usize) -> Step<'_> {
        if self.repeated {
            return Step::Element(&self.name, index);
        }
        Step::Field(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use prost::{Message, Name};

    use super::*;
    use crate::xds::pb::cluster::Cluster;
    use crate::xds::pb::core::{Address, SocketAddress, TransportSocket, transport_socket};
    use crate::xds::pb::endpoint::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints};
    use crate::xds::pb::wkt::{Any, Duration, UInt32Value};

    fn broken<M: Message + Name>(message: &M) -> Vec<String> {
        let broken = check(&M::type_url(), &message.encode_to_vec());
        broken.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn valid_messages_pass() {
        let cluster = Cluster {
            name: "a".into(),
            connect_timeout: Some(Duration { seconds: 1, nanos: 0 }),
            ..Default::default()
        };
        assert_eq!(broken(&cluster), Vec::<String>::new());
    }

    #[test]
    fn absent_values_are_checked() {
        assert_eq!(
            broken(&Cluster::default()),
            ["`name` must have at least 1 character(s)"]
        );
        assert_eq!(broken(&Address::default()), ["`address` is required"]);
    }

    #[test]
    fn durations_numbers_and_required_messages_are_checked() {
        let cluster = Cluster {
            name: "a".into(),
            connect_timeout: Some(Duration::default()),
            cleanup_interval: Some(Duration { seconds: -1, nanos: 0 }),
            ..Default::default()
        };
        assert_eq!(
            broken(&cluster),
            [
                "`connect_timeout` must be above 0s",
                "`cleanup_interval` must not be negative",
            ]
        );
        let endpoints = ClusterLoadAssignment {
            cluster_name: "a".into(),
            endpoints: vec![LocalityLbEndpoints {
                lb_endpoints: vec![
                    LbEndpoint::default(),
                    LbEndpoint {
                        load_balancing_weight: Some(UInt32Value { value: 0 }),
                        ..Default::default()
                    },
                ],
                priority: 129,
                ..Default::default()
            }],
            ..Default::default()
        };
        assert_eq!(
            broken(&endpoints),
            [
                "`endpoints[0].lb_endpoints[1].load_balancing_weight` must be at least 1",
                "`endpoints[0].priority` must be at most 128",
            ]
        );
    }

    #[test]
    fn messages_in_any_are_checked() {
        let socket = |config| TransportSocket {
            name: "x".into(),
            config_type: Some(transport_socket::ConfigType::TypedConfig(config)),
        };
        let address = SocketAddress {
            address: "::1".into(),
            ..Default::default()
        };
        let any = Any {
            type_url: SocketAddress::type_url(),
            value: address.encode_to_vec(),
        };
        assert_eq!(broken(&socket(any)), ["`typed_config.port_specifier` is required"]);
        let unknown = Any {
            type_url: "type.googleapis.com/istio.stats".into(),
            ..Default::default()
        };
        assert_eq!(
            broken(&socket(unknown)),
            ["`typed_config` has the type `type.googleapis.com/istio.stats`, which Envoy does not know"]
        );
    }

    #[test]
    fn malformed_messages_are_reported() {
        let broken = check(&Cluster::type_url(), &[0x0a, 200]);
        assert_eq!(broken[0].to_string(), "`` cannot be read");
    }
}
