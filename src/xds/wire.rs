//! Discovery responses on the wire.
//!
//! A resource is encoded once and its bytes go into the responses of all clients as they are; a
//! response is only written around them. (Envoy `service/discovery/v3/discovery.proto`.)

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::resource::{Resource, ResourceType};

/// A `DeltaDiscoveryResponse`.
pub fn delta_response<'a>(
    kind: ResourceType,
    system_version: &str,
    nonce: &str,
    resources: impl Iterator<Item = &'a Resource>,
    removed: impl Iterator<Item = &'a str>,
) -> Bytes {
    let mut out = BytesMut::new();
    put_bytes(&mut out, 1, system_version.as_bytes());
    for resource in resources {
        let any = any_len(resource);
        let (version, name) = (resource.version.as_str(), &*resource.name);
        let len = field_len(3, name.len()) + field_len(1, version.len()) + field_len(2, any);
        put_header(&mut out, 2, len);
        put_bytes(&mut out, 1, version.as_bytes());
        put_header(&mut out, 2, any);
        put_any(&mut out, resource);
        put_bytes(&mut out, 3, name.as_bytes());
    }
    put_bytes(&mut out, 4, kind.type_url().as_bytes());
    put_bytes(&mut out, 5, nonce.as_bytes());
    removed.for_each(|name| put_bytes(&mut out, 6, name.as_bytes()));
    out.freeze()
}

/// A `DiscoveryResponse`.
pub fn sotw_response<'a>(
    kind: ResourceType,
    version: &str,
    nonce: &str,
    resources: impl Iterator<Item = &'a Resource>,
) -> Bytes {
    let mut out = BytesMut::new();
    put_bytes(&mut out, 1, version.as_bytes());
    for resource in resources {
        put_header(&mut out, 2, any_len(resource));
        put_any(&mut out, resource);
    }
    put_bytes(&mut out, 4, kind.type_url().as_bytes());
    put_bytes(&mut out, 5, nonce.as_bytes());
    out.freeze()
}

fn any_len(resource: &Resource) -> usize {
    field_len(1, resource.kind.type_url().len()) + field_len(2, resource.body.len())
}

fn put_any(out: &mut BytesMut, resource: &Resource) {
    put_bytes(out, 1, resource.kind.type_url().as_bytes());
    put_bytes(out, 2, &resource.body);
}

/// A length-delimited field; an empty one is left out, as proto3 does.
fn put_bytes(out: &mut BytesMut, tag: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_header(out, tag, bytes.len());
        out.put_slice(bytes);
    }
}

fn put_header(out: &mut BytesMut, tag: u32, len: usize) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

fn field_len(tag: u32, len: usize) -> usize {
    if len == 0 {
        0
    } else {
        key_len(tag) + encoded_len_varint(len as u64) + len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::pb::discovery::{DeltaDiscoveryResponse, DiscoveryResponse};
    use prost::Message;

    fn resource(name: &str, body: &'static [u8]) -> Resource {
        Resource::new(ResourceType::Cluster, name.into(), body, [].into())
    }

    #[test]
    fn a_delta_response_is_what_prost_reads() {
        let (a, b) = (resource("a", b"some bytes"), resource("b", b""));
        let bytes = delta_response(
            ResourceType::Cluster,
            "7",
            "n1",
            [&a, &b].into_iter(),
            ["gone"].into_iter(),
        );
        let response = DeltaDiscoveryResponse::decode(bytes).unwrap();
        assert_eq!(
            (response.system_version_info.as_str(), response.nonce.as_str()),
            ("7", "n1")
        );
        assert_eq!(response.type_url, ResourceType::Cluster.type_url());
        assert_eq!(response.removed_resources, ["gone"]);
        let names: Vec<_> = response
            .resources
            .iter()
            .map(|r| (r.name.as_str(), r.version.as_str()))
            .collect();
        assert_eq!(names, [("a", a.version.as_str()), ("b", b.version.as_str())]);
        let any = response.resources[0].resource.as_ref().unwrap();
        assert_eq!(
            (any.type_url.as_str(), any.value.as_slice()),
            (ResourceType::Cluster.type_url(), &b"some bytes"[..])
        );
    }

    #[test]
    fn a_sotw_response_is_what_prost_reads() {
        let a = resource("a", b"some bytes");
        let bytes = sotw_response(ResourceType::Cluster, "7", "n1", [&a].into_iter());
        let response = DiscoveryResponse::decode(bytes).unwrap();
        assert_eq!((response.version_info.as_str(), response.nonce.as_str()), ("7", "n1"));
        assert_eq!(response.resources[0].value, b"some bytes");
    }
}
