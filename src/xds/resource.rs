//! Resources as sent: encoded once, named, and versioned by content.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::ir::{Origins, ResourceName};

/// Resource types. **The order of the variants is the order in which additions are sent**:
/// referenced types come before those that refer to them. Removals are sent in reverse order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoints,
    /// SDS.
    Secret,
    /// LDS.
    Listener,
    /// RDS.
    Route,
}

impl ResourceType {
    /// All types, in order.
    pub const ALL: [ResourceType; 5] = [
        ResourceType::Cluster,
        ResourceType::Endpoints,
        ResourceType::Secret,
        ResourceType::Listener,
        ResourceType::Route,
    ];

    /// Type URL.
    pub const fn type_url(self) -> &'static str {
        match self {
            ResourceType::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            ResourceType::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            ResourceType::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            ResourceType::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            ResourceType::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// The type with this URL, if supported.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// Short name: `CDS`, `EDS`, `SDS`, `LDS` or `RDS`.
    pub const fn as_str(self) -> &'static str {
        match self {
            ResourceType::Cluster => "CDS",
            ResourceType::Endpoints => "EDS",
            ResourceType::Secret => "SDS",
            ResourceType::Listener => "LDS",
            ResourceType::Route => "RDS",
        }
    }

    /// Whether a subscription without names is a wildcard, and removals are signalled by absence
    /// (SotW) or `removed_resources` (delta). True for clusters and listeners; other types are
    /// subscribed to by name.
    pub const fn is_wildcard(self) -> bool {
        match self {
            ResourceType::Cluster | ResourceType::Listener => true,
            ResourceType::Endpoints | ResourceType::Secret | ResourceType::Route => false,
        }
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Version of a resource: equal versions of a name imply equal content.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(Arc<str>);

impl Version {
    /// The first 64 bits of the content's SHA-256, in hexadecimal.
    pub fn of(content: &[u8]) -> Self {
        let digest = Sha256::digest(content);
        let head = digest
            .iter()
            .take(8)
            .fold(0_u64, |head, byte| head << 8 | u64::from(*byte));
        Self(format!("{head:016x}").into())
    }

    /// A given version: of a secret, whose content must not be derivable from it, or from a client.
    pub fn from_text(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The version as sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A resource. Clones share the bytes. Resources with equal name and version are equal.
#[derive(Clone)]
pub struct Resource {
    /// The name.
    pub name: ResourceName,
    /// The type.
    pub kind: ResourceType,
    /// The version of [`Resource::body`].
    pub version: Version,
    /// The serialized message, i.e. the `value` of an `Any` with [`ResourceType::type_url`].
    pub body: Bytes,
    /// The objects it was built from; not sent.
    pub origins: Origins,
    /// Clusters that a listener or route refers to, sorted. They must be added before it and
    /// removed after it. Empty for other types.
    pub clusters: Arc<[ResourceName]>,
    /// How cluster warming completes.
    pub warming: Warming,
}

/// How the warming of a cluster completes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Warming {
    /// Immediately, or the resource is not a cluster.
    #[default]
    None,
    /// When its endpoints (EDS) are ACKed.
    Endpoints,
    /// When its DNS names are resolved, which the proxy does not signal.
    Dns,
}

impl Resource {
    /// A resource whose version is derived from its bytes.
    pub fn new(kind: ResourceType, name: ResourceName, body: impl Into<Bytes>, origins: Origins) -> Self {
        let body = body.into();
        Self {
            name,
            kind,
            version: Version::of(&body),
            body,
            origins,
            clusters: Arc::from([]),
            warming: Warming::None,
        }
    }

    /// Sets the clusters that a listener or route refers to.
    #[must_use]
    pub fn naming(mut self, mut clusters: Vec<ResourceName>) -> Self {
        clusters.sort_unstable();
        clusters.dedup();
        self.clusters = clusters.into();
        self
    }

    /// Sets how the warming of a cluster completes.
    #[must_use]
    pub fn warming(mut self, warming: Warming) -> Self {
        self.warming = warming;
        self
    }
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.version == other.version && self.name == other.name
    }
}

impl Eq for Resource {}

impl fmt::Debug for Resource {
    /// Omits the bytes, which may hold a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} `{}` {} ({} bytes)",
            self.kind,
            self.name,
            self.version,
            self.body.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_known_by_their_url_and_declared_in_sending_order() {
        for kind in ResourceType::ALL {
            assert_eq!(ResourceType::from_type_url(kind.type_url()), Some(kind));
        }
        assert!(ResourceType::ALL.is_sorted());
        assert_eq!(ResourceType::from_type_url("type.googleapis.com/x"), None);
    }

    #[test]
    fn equal_bytes_have_equal_versions() {
        let resource = |body: &'static [u8]| {
            Resource::new(
                ResourceType::Cluster,
                "a".into(),
                Bytes::from_static(body),
                Origins::from([]),
            )
        };
        assert_eq!(resource(b"x").version, resource(b"x").version);
        assert_ne!(resource(b"x").version, resource(b"y").version);
        assert_eq!(resource(b"").version.as_str(), "e3b0c44298fc1c14");
    }

    #[test]
    fn debug_output_omits_the_content() {
        let secret = Resource::new(
            ResourceType::Secret,
            "default".into(),
            &b"private key"[..],
            Origins::from([]),
        );
        assert_eq!(
            format!("{secret:?}"),
            format!("SDS `default` {} (11 bytes)", secret.version)
        );
    }
}
