//! Serialization of discovery responses.
//!
//! A resource is encoded once and its bytes are shared by the responses to all clients. A response
//! is written around them lazily, as fast as the client reads, so a pending response is just a list
//! of shared resources. (Envoy `service/discovery/v3/discovery.proto`.)

use std::sync::Arc;
use std::vec;

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::resource::{Resource, ResourceType};

/// Target size of a chunk in bytes; most of them fill an HTTP/2 frame of 16 KiB.
const FULL: usize = 12 << 10;

/// Resources of at least this size, in bytes, are sent without copying. Smaller ones are copied
/// into a chunk, which is cheaper than a frame of their own.
const SHARED: usize = 4 << 10;

/// A gRPC-framed response, produced in chunks on demand.
#[derive(Debug)]
pub struct Response {
    layout: Layout,
    resources: vec::IntoIter<Arc<Resource>>,
    /// Fields after the resources.
    tail: Bytes,
    /// The chunk being written.
    chunk: BytesMut,
    /// A shared resource to be sent after the chunk.
    shared: Option<Bytes>,
    /// Number of bytes not yet produced.
    unwritten: usize,
}

/// Encoding of a resource.
#[derive(Clone, Copy, Debug)]
enum Layout {
    /// In a `Resource`, with name and version.
    Named,
    /// In an `Any`.
    Bare,
}

/// A `DeltaDiscoveryResponse`.
pub fn delta_response<'a>(
    kind: ResourceType,
    system_version: &str,
    nonce: &str,
    resources: Vec<Arc<Resource>>,
    removed: impl Iterator<Item = &'a str>,
) -> Response {
    let mut tail = type_and_nonce(kind, nonce);
    removed.for_each(|name| put_bytes(&mut tail, 6, name.as_bytes()));
    Response::new(Layout::Named, system_version, resources, tail)
}

/// A `DiscoveryResponse`.
pub fn sotw_response(kind: ResourceType, version: &str, nonce: &str, resources: Vec<Arc<Resource>>) -> Response {
    Response::new(Layout::Bare, version, resources, type_and_nonce(kind, nonce))
}

impl Response {
    fn new(layout: Layout, version: &str, resources: Vec<Arc<Resource>>, tail: BytesMut) -> Self {
        let of_resources = resources.iter().map(|resource| field_len(2, layout.len_of(resource)));
        let unwritten = of_resources.sum::<usize>() + tail.len();
        let message = field_len(1, version.len()) + unwritten;
        let mut chunk = BytesMut::with_capacity(FULL.min(message) + SHARED);
        // Compressed flag, followed by the length, which fits: clients accept far less than gRPC's
        // maximum.
        chunk.put_u8(0);
        chunk.put_u32(message.try_into().unwrap_or(u32::MAX));
        put_bytes(&mut chunk, 1, version.as_bytes());
        Self {
            layout,
            resources: resources.into_iter(),
            tail: tail.freeze(),
            chunk,
            shared: None,
            unwritten,
        }
    }

    /// Writes up to a full chunk or the next shared resource.
    fn write(&mut self) {
        while self.chunk.len() < FULL && self.shared.is_none() {
            let Some(resource) = self.resources.next() else {
                return self.chunk.put(std::mem::take(&mut self.tail));
            };
            self.layout.put_header(&mut self.chunk, &resource);
            if resource.body.len() < SHARED {
                self.chunk.put_slice(&resource.body);
            } else {
                self.shared = Some(resource.body.clone());
            }
        }
    }
}

impl Iterator for Response {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.chunk.is_empty() {
            if let Some(shared) = self.shared.take() {
                self.unwritten = self.unwritten.saturating_sub(shared.len());
                return Some(shared);
            }
            self.chunk.reserve(self.unwritten.min(FULL + SHARED));
        }
        let before = self.chunk.len();
        self.write();
        self.unwritten = self.unwritten.saturating_sub(self.chunk.len() - before);
        let chunk = std::mem::take(&mut self.chunk);
        (!chunk.is_empty()).then(|| chunk.freeze())
    }
}

impl Layout {
    fn len_of(self, resource: &Resource) -> usize {
        match self {
            Layout::Named => {
                field_len(3, resource.name.len())
                    + field_len(1, resource.version.as_str().len())
                    + field_len(2, any_len(resource))
            }
            Layout::Bare => any_len(resource),
        }
    }

    /// Everything in the field of a resource that precedes its body.
    fn put_header(self, out: &mut BytesMut, resource: &Resource) {
        put_header(out, 2, self.len_of(resource));
        if let Layout::Named = self {
            put_bytes(out, 3, resource.name.as_bytes());
            put_bytes(out, 1, resource.version.as_str().as_bytes());
            put_header(out, 2, any_len(resource));
        }
        put_bytes(out, 1, resource.kind.type_url().as_bytes());
        if !resource.body.is_empty() {
            put_header(out, 2, resource.body.len());
        }
    }
}

/// Fields after the resources, which have the same numbers in both responses.
fn type_and_nonce(kind: ResourceType, nonce: &str) -> BytesMut {
    let mut out = BytesMut::new();
    put_bytes(&mut out, 4, kind.type_url().as_bytes());
    put_bytes(&mut out, 5, nonce.as_bytes());
    out
}

fn any_len(resource: &Resource) -> usize {
    field_len(1, resource.kind.type_url().len()) + field_len(2, resource.body.len())
}

/// A length-delimited field; omitted if empty, as in proto3.
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

    fn resource(name: &str, body: impl Into<Bytes>) -> Arc<Resource> {
        Arc::new(Resource::new(ResourceType::Cluster, name.into(), body, [].into()))
    }

    /// The message in a gRPC frame.
    fn message(response: Response) -> Vec<u8> {
        let bytes: Vec<u8> = response.flatten().collect();
        let (frame, message) = bytes.split_first_chunk::<5>().unwrap();
        assert_eq!(frame[0], 0);
        assert_eq!(
            u32::from_be_bytes(frame[1..].try_into().unwrap()) as usize,
            message.len()
        );
        message.to_vec()
    }

    #[test]
    fn a_delta_response_is_what_prost_reads() {
        let (a, b) = (resource("a", &b"some bytes"[..]), resource("b", &b""[..]));
        let both = vec![a.clone(), b.clone()];
        let response = delta_response(ResourceType::Cluster, "7", "n1", both, ["gone"].into_iter());
        let response = DeltaDiscoveryResponse::decode(&*message(response)).unwrap();
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
        let a = resource("a", &b"some bytes"[..]);
        let response = sotw_response(ResourceType::Cluster, "7", "n1", vec![a]);
        let response = DiscoveryResponse::decode(&*message(response)).unwrap();
        assert_eq!((response.version_info.as_str(), response.nonce.as_str()), ("7", "n1"));
        assert_eq!(response.resources[0].value, b"some bytes");
    }

    #[test]
    fn resources_of_all_sizes_arrive_whole_and_in_order() {
        let sizes = (0..12)
            .map(|power| 10 << power)
            .chain([SHARED - 1, SHARED, 0, 7, 3 * FULL]);
        let body = |size: usize| (0..size).map(|at| (at % 251) as u8).collect::<Vec<u8>>();
        let bodies: Vec<Vec<u8>> = sizes.flat_map(|size| [body(size), body(size / 3)]).collect();
        let resources = bodies.iter().map(|body| resource("a", body.clone())).collect();
        let response = delta_response(ResourceType::Cluster, "7", "n1", resources, [].into_iter());
        let response = DeltaDiscoveryResponse::decode(&*message(response)).unwrap();
        let arrived = response
            .resources
            .into_iter()
            .map(|resource| resource.resource.unwrap().value);
        assert!(arrived.eq(bodies));
    }

    #[test]
    fn large_resources_are_not_copied() {
        let large = resource("a", vec![1; 1 << 20]);
        let mut response = delta_response(ResourceType::Cluster, "7", "n1", vec![large.clone()], [].into_iter());
        assert!(response.any(|chunk| chunk.as_ptr() == large.body.as_ptr() && chunk.len() == large.body.len()));
    }

    #[test]
    fn small_resources_are_written_chunk_by_chunk() {
        let small: Vec<_> = (0..2000).map(|n| resource(&n.to_string(), vec![1; 1000])).collect();
        let response = delta_response(ResourceType::Cluster, "7", "n1", small, [].into_iter());
        let chunks: Vec<Bytes> = response.collect();
        assert!(chunks.iter().all(|chunk| chunk.len() <= FULL + SHARED));
        let full = chunks.iter().filter(|chunk| chunk.len() >= FULL).count();
        assert!(full + 1 >= chunks.len(), "{full} of {}", chunks.len());
    }
}
