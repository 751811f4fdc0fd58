//! Incremental encoding of route configurations. A port's configuration has a virtual host for
//! every service of the port, and an edit usually changes one: the encoded bytes of the others are
//! reused.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use prost::Message;

use super::{clusters, settings, virtual_host};
use crate::ir::route::{RouteConfig, VirtualHost};
use crate::xds::canonical;
use crate::xds::pb::route::RouteConfiguration;
use crate::xds::resource::{Resource, ResourceType};

/// An encoded route configuration and the byte ranges of its virtual hosts, which are identified by
/// pointer: an unchanged virtual host keeps its `Arc`.
#[derive(Clone, Debug, Default)]
pub struct EncodedRoute {
    body: Bytes,
    hosts: Vec<(Arc<VirtualHost>, Range<usize>)>,
}

/// A re-encoded route configuration.
#[derive(Debug)]
pub struct Reencoded {
    /// The resource.
    pub resource: Resource,
    /// The byte ranges of its virtual hosts.
    pub encoded: EncodedRoute,
    /// The configuration without virtual hosts of its predecessor, serialized.
    pub news: Bytes,
}

impl EncodedRoute {
    /// Encodes a configuration, reusing the virtual hosts encoded in `self`.
    pub fn follow(&self, config: &RouteConfig) -> Reencoded {
        let places = self.hosts.iter().map(|(host, place)| (Arc::as_ptr(host), place));
        let known: HashMap<*const VirtualHost, &Range<usize>> = places.collect();
        let mut body = Vec::with_capacity(self.body.len());
        let name = RouteConfiguration {
            name: config.name.to_string(),
            ..Default::default()
        };
        put(&mut body, &name);
        let mut news = body.clone();
        let mut hosts = Vec::with_capacity(config.virtual_hosts.len());
        for host in &config.virtual_hosts {
            let start = body.len();
            match known.get(&Arc::as_ptr(host)) {
                Some(place) => body.put_slice(&self.body[Range::clone(place)]),
                None => {
                    let alone = RouteConfiguration {
                        virtual_hosts: vec![virtual_host(host)],
                        ..Default::default()
                    };
                    put(&mut body, &alone);
                    news.put_slice(&body[start..]);
                }
            }
            hosts.push((host.clone(), start..body.len()));
        }
        let settings = settings(config);
        put(&mut body, &settings);
        put(&mut news, &settings);
        body.shrink_to_fit();
        let body = Bytes::from(body);
        let news = if news.len() == body.len() {
            body.clone()
        } else {
            news.into()
        };
        let resource = Resource::new(
            ResourceType::Route,
            config.name.clone(),
            body.clone(),
            config.origins.clone(),
        );
        Reencoded {
            resource: resource.naming(clusters(config)),
            encoded: EncodedRoute { body, hosts },
            news,
        }
    }

    /// The domains of all virtual hosts.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.hosts
            .iter()
            .flat_map(|(host, _)| &host.domains)
            .map(|domain| &**domain)
    }
}

/// Appends a part of a configuration: concatenated serialized messages merge.
fn put(out: &mut Vec<u8>, part: &RouteConfiguration) {
    let mut bytes = part.encode_to_vec();
    canonical::sort_maps(ResourceType::Route.type_url(), &mut bytes);
    out.put_slice(&bytes);
}

#[cfg(test)]
mod tests {
    use super::super::message;
    use super::*;
    use crate::xds::encode::testing::{route as plain, route_config};

    fn config(names: &[&str]) -> RouteConfig {
        let one = route_config("9080", vec![plain()]);
        let host = |name: &&str| {
            Arc::new(VirtualHost {
                name: (*name).into(),
                domains: vec![(*name).into()],
                ..VirtualHost::clone(&one.virtual_hosts[0])
            })
        };
        RouteConfig {
            virtual_hosts: names.iter().map(host).collect(),
            ..one
        }
    }

    #[test]
    fn the_parts_make_up_the_message() {
        let config = config(&["a", "b"]);
        let encoded = EncodedRoute::default().follow(&config);
        assert_eq!(encoded.resource.body, message(&config).encode_to_vec());
        assert_eq!(encoded.news, encoded.resource.body);
        assert!(encoded.encoded.domains().eq(["a", "b"]));
    }

    #[test]
    fn incremental_encoding_equals_full_encoding() {
        let before = config(&["a", "b", "c"]);
        let encoded = EncodedRoute::default().follow(&before).encoded;
        let mut after = before.clone();
        after.virtual_hosts.remove(0);
        after
            .virtual_hosts
            .insert(1, config(&["changed"]).virtual_hosts.remove(0));
        after.ignore_port = !before.ignore_port;
        let followed = encoded.follow(&after);
        assert_eq!(followed.resource.body, message(&after).encode_to_vec());
        assert_eq!(followed.resource.version, super::super::route(&after).version);
        let news = RouteConfiguration::decode(followed.news).unwrap();
        let names: Vec<_> = news.virtual_hosts.iter().map(|host| host.name.as_str()).collect();
        assert_eq!(names, ["changed"]);
        assert_eq!(
            followed.encoded.follow(&before).resource.body,
            message(&before).encode_to_vec()
        );
    }
}
