//! Names and small validated values that every layer shares.
//!
//! Each type's constructor is the only check: a value that exists is valid.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;

/// Why a string is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidName(String);

impl InvalidName {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

macro_rules! string_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as a string.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

string_name! {
    /// A namespace: one DNS-1123 label, as in Kubernetes.
    Namespace
}

impl Default for Namespace {
    /// `default`, which an object without `metadata.namespace` belongs to.
    fn default() -> Self {
        Self("default".into())
    }
}

impl Namespace {
    /// `istio-system`, Istio's root namespace unless the mesh configuration names another.
    pub fn istio_system() -> Self {
        Self("istio-system".into())
    }
}

impl FromStr for Namespace {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if is_dns_label(text) && !text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Ok(Self(text.into()));
        }
        Err(InvalidName::new(format!(
            "`{text}` is not a valid namespace: expected a lowercase DNS label of at most 63 characters"
        )))
    }
}

string_name! {
    /// A host as rules and services name it: a fully qualified DNS name (or an IP address where
    /// Istio takes one), possibly with a wildcard as the whole or the start of its first label.
    /// Always lower case, without a trailing dot.
    Hostname
}

impl FromStr for Hostname {
    type Err = InvalidName;

    /// Istio's wildcard domain rule (`agent.ValidateWildcardDomain`), IP addresses included.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.parse::<std::net::IpAddr>().is_ok() || name == "*" {
            return Ok(Self(name.into()));
        }
        if name.is_empty() || name.len() > 255 {
            return Err(InvalidName::new(format!(
                "`{text}` is not a valid host name: expected 1 to 255 characters"
            )));
        }
        let (first, rest) = name.split_once('.').unwrap_or((name, ""));
        let first_label = first
            .strip_prefix('*')
            .map_or(first, |tail| tail.strip_prefix('-').unwrap_or(tail));
        let first_ok = (first.starts_with('*') && first_label.is_empty()) || is_dns_label(first_label);
        let rest_ok = rest.is_empty() || rest.split('.').all(is_dns_label);
        if !first_ok || !rest_ok {
            return Err(InvalidName::new(format!(
                "`{text}` is not a valid host name: expected DNS labels joined by dots, of which only the first may start with `*`"
            )));
        }
        let last = name.rsplit('.').next().unwrap_or(name);
        if rest.is_empty() || !last.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Self(name.to_ascii_lowercase().into()));
        }
        Err(InvalidName::new(format!(
            "`{text}` is not a valid host name: its last label is a number"
        )))
    }
}

impl Hostname {
    /// Whether the name starts with a wildcard.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Whether this name matches every host that `other` matches (the inverse of Istio's
    /// `host.Name.SubsetOf`). A wildcard matches any number of labels.
    pub fn covers(&self, other: &Hostname) -> bool {
        match self.0.strip_prefix('*') {
            None => self == other,
            Some(suffix) => {
                let other_suffix = other.0.strip_prefix('*').unwrap_or(&other.0);
                other_suffix.ends_with(suffix) && (other.is_wildcard() || other_suffix.len() > suffix.len())
            }
        }
    }

    /// Sort key by which hosts are tried: exact before wildcard, then longer before shorter
    /// (Istio's `MostSpecificHostMatch`).
    pub fn specificity(&self) -> (bool, usize) {
        (!self.is_wildcard(), self.0.len())
    }
}

/// Expands the short name of a rule in `namespace`: a host without a dot or wildcard becomes
/// `<host>.<namespace>.svc.<domain>`; others are unchanged (Istio's `ResolveShortnameToFQDN`).
///
/// # Errors
///
/// If the result is not a valid host name.
pub fn resolve_short_name(host: &str, namespace: &Namespace, domain: &str) -> Result<Hostname, InvalidName> {
    if host.contains(['.', '*', ':']) || host.is_empty() {
        return host.parse();
    }
    format!("{host}.{namespace}.svc.{domain}").parse()
}

string_name! {
    /// A SPIFFE trust domain, `cluster.local` unless the mesh says otherwise.
    TrustDomain
}

impl Default for TrustDomain {
    fn default() -> Self {
        Self("cluster.local".into())
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidName;

    /// SPIFFE-ID section 2.1: lower-case letters, digits, `.`, `-` and `_`, at most 255 bytes.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let ok = !text.is_empty()
            && text.len() <= 255
            && text
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'));
        if ok {
            return Ok(Self(text.into()));
        }
        Err(InvalidName::new(format!(
            "`{text}` is not a trust domain: lower-case letters, digits, `.`, `-` and `_` are allowed"
        )))
    }
}

/// A workload identity, `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    /// The trust domain that issues the identity.
    pub trust_domain: TrustDomain,
    /// The workload's namespace.
    pub namespace: Namespace,
    /// The service account the workload runs as.
    pub service_account: ServiceAccount,
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let not_istio = || {
            InvalidName::new(format!(
                "`{text}` is not a valid workload identity: expected `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`"
            ))
        };
        let rest = text.strip_prefix("spiffe://").ok_or_else(not_istio)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let [trust_domain, "ns", namespace, "sa", service_account] = parts[..] else {
            return Err(not_istio());
        };
        Ok(Self {
            trust_domain: trust_domain.parse()?,
            namespace: namespace.parse()?,
            service_account: service_account.parse()?,
        })
    }
}

string_name! {
    /// The name of a service account: a DNS subdomain, as in Kubernetes.
    ServiceAccount
}

impl Default for ServiceAccount {
    /// `default`, as in Kubernetes.
    fn default() -> Self {
        Self("default".into())
    }
}

impl FromStr for ServiceAccount {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if !text.is_empty() && text.len() <= 253 && text.split('.').all(is_dns_label) {
            return Ok(Self(text.into()));
        }
        Err(InvalidName::new(format!("`{text}` is not a service account name")))
    }
}

/// Name of a workload in commands and tokens: `NAME.NAMESPACE`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadName {
    /// The workload's name; a DNS subdomain, so it may contain dots.
    pub name: Arc<str>,
    /// The namespace, `default` when the text names none.
    pub namespace: Namespace,
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

impl WorkloadName {
    /// The group member with this address: `<group>-<address>`, with dashes in the address. All
    /// parts of an IPv6 address are written out, since a name must not end with a dash and must be
    /// unambiguous.
    ///
    /// # Errors
    ///
    /// If the result is not a valid object name.
    pub fn member(group: &WorkloadName, address: IpAddr) -> Result<Self, InvalidName> {
        let dashed = match address.to_canonical() {
            IpAddr::V4(address) => address.to_string().replace('.', "-"),
            IpAddr::V6(address) => address.segments().map(|part| format!("{part:x}")).join("-"),
        };
        if group.name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            let why = format!("`{group}` is not a valid WorkloadGroup name: expected lowercase letters");
            return Err(InvalidName::new(why));
        }
        format!("{}-{dashed}.{}", group.name, group.namespace).parse()
    }

    /// The workload, or group of workloads, with an object's name.
    pub fn of_object(id: &ObjectId) -> Self {
        Self {
            name: id.name.clone(),
            namespace: id.namespace.clone(),
        }
    }

    /// The object of this kind with the workload's name.
    pub fn object(&self, kind: Kind) -> ObjectId {
        ObjectId {
            kind,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

impl FromStr for WorkloadName {
    type Err = InvalidName;

    /// The namespace is what follows the last dot.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (name, namespace) = match text.rsplit_once('.') {
            Some((name, namespace)) => (name, namespace.parse()?),
            None => (text, Namespace::default()),
        };
        if name.is_empty() || name.len() > 253 || !name.split('.').all(is_dns_label) {
            return Err(InvalidName::new(format!(
                "`{text}` is not a valid workload name: expected `NAME.NAMESPACE`"
            )));
        }
        Ok(Self {
            name: name.into(),
            namespace,
        })
    }
}

/// A share of traffic in parts per million, so that Istio's 0.0001 % steps are exact
/// (`percentage.value` of faults and mirrors).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u32);

impl Percent {
    /// 100 %.
    pub const FULL: Percent = Percent(1_000_000);

    /// Converts a percentage.
    ///
    /// # Errors
    ///
    /// If it is not between 0 and 100.
    pub fn new(percent: f64) -> Result<Self, InvalidName> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(InvalidName::new(format!(
                "{percent} is not a percentage between 0 and 100"
            )));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range was checked above"
        )]
        let parts = (percent * 10_000.0).round() as u32;
        Ok(Self(parts))
    }

    /// Parts per million.
    pub fn per_million(self) -> u32 {
        self.0
    }
}

/// Supported kinds. [`crate::api`] lists the API groups and versions of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Kind {
    /// Kubernetes `v1` ConfigMap; only `istio` in the root namespace is used.
    ConfigMap,
    /// Kubernetes `v1` Service.
    Service,
    /// Kubernetes `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// Kubernetes `v1` Endpoints.
    Endpoints,
    /// Istio ServiceEntry.
    ServiceEntry,
    /// Istio WorkloadEntry.
    WorkloadEntry,
    /// Istio WorkloadGroup.
    WorkloadGroup,
    /// Istio Sidecar.
    Sidecar,
    /// Istio VirtualService.
    VirtualService,
    /// Istio DestinationRule.
    DestinationRule,
    /// Istio PeerAuthentication.
    PeerAuthentication,
}

impl Kind {
    /// The kind as written in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::ConfigMap => "ConfigMap",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Endpoints => "Endpoints",
            Kind::ServiceEntry => "ServiceEntry",
            Kind::WorkloadEntry => "WorkloadEntry",
            Kind::WorkloadGroup => "WorkloadGroup",
            Kind::Sidecar => "Sidecar",
            Kind::VirtualService => "VirtualService",
            Kind::DestinationRule => "DestinationRule",
            Kind::PeerAuthentication => "PeerAuthentication",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Identifies an object. Two documents with the same id are duplicates.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectId {
    /// The kind.
    pub kind: Kind,
    /// `metadata.namespace`.
    pub namespace: Namespace,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectId {
    /// `VirtualService default/reviews`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Whether `text` is a DNS-1123 label, in which Istio allows upper case
/// (`[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?`, at most 63 characters).
pub fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    bytes.len() <= 63
        && first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_a_group_are_named_after_their_address() {
        let member = |group: &str, address: &str| {
            WorkloadName::member(&group.parse().unwrap(), address.parse().unwrap()).map(|name| name.to_string())
        };
        assert_eq!(member("reviews.shop", "10.0.0.7").unwrap(), "reviews-10-0-0-7.shop");
        assert_eq!(
            member("reviews", "::ffff:10.0.0.7").unwrap(),
            "reviews-10-0-0-7.default"
        );
        assert_eq!(
            member("reviews", "fd00::").unwrap(),
            "reviews-fd00-0-0-0-0-0-0-0.default"
        );
        for wrong in [&*"a".repeat(60), "Reviews"] {
            assert!(member(wrong, "10.0.0.7").is_err(), "{wrong}");
        }
    }

    fn host(text: &str) -> Hostname {
        text.parse().unwrap()
    }

    #[test]
    fn hostnames_follow_istio() {
        for good in [
            "reviews",
            "Reviews.default",
            "*.foo.com",
            "*-a.foo.com",
            "*",
            "10.0.0.1",
            "a.b.",
            "xn--bcher-kva.example",
        ] {
            assert!(good.parse::<Hostname>().is_ok(), "{good}");
        }
        for bad in ["", ".", "a..b", "a.*.b", "-a.b", "a_b.c", "a.1"] {
            assert!(bad.parse::<Hostname>().is_err(), "{bad}");
        }
        assert_eq!(host("Reviews.Default.").as_str(), "reviews.default");
    }

    #[test]
    fn wildcards_cover_any_depth_but_not_themselves_bare() {
        assert!(host("*.foo.com").covers(&host("a.b.foo.com")));
        assert!(host("*.foo.com").covers(&host("*.b.foo.com")));
        assert!(host("*").covers(&host("*.foo.com")));
        assert!(!host("*.foo.com").covers(&host("foo.com")));
        assert!(!host("a.foo.com").covers(&host("*.foo.com")));
    }

    #[test]
    fn short_names_belong_to_the_rules_namespace() {
        let ns: Namespace = "shop".parse().unwrap();
        let resolve = |h| resolve_short_name(h, &ns, "cluster.local").unwrap();
        assert_eq!(resolve("reviews").as_str(), "reviews.shop.svc.cluster.local");
        assert_eq!(resolve("reviews.prod").as_str(), "reviews.prod");
        assert_eq!(resolve("*").as_str(), "*");
    }

    #[test]
    fn spiffe_ids_round_trip() {
        let text = "spiffe://cluster.local/ns/default/sa/reviews";
        assert_eq!(text.parse::<SpiffeId>().unwrap().to_string(), text);
        assert!("spiffe://cluster.local/ns/default".parse::<SpiffeId>().is_err());
        assert!("spiffe://cluster.local/ns/default/sa/a/b".parse::<SpiffeId>().is_err());
    }

    #[test]
    fn percent_keeps_istios_smallest_step() {
        assert_eq!(Percent::new(0.0001).unwrap().per_million(), 1);
        assert_eq!(Percent::new(100.0).unwrap(), Percent::FULL);
        assert!(Percent::new(100.1).is_err());
        assert!(Percent::new(f64::NAN).is_err());
    }
}
