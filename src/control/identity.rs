//! Authorization: from a verified credential to what a proxy may be.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::ir::NodeView;
use crate::ir::node::InterceptionMode;
use crate::mesh::service::Address;
use crate::mesh::workload::{ADDRESSES, ANY_ADDRESS, Workload};
use crate::mesh::{Labels, Mesh};
use crate::name::{InvalidName, Kind, SpiffeId, WorkloadName};
use crate::pki::{Bearer, TokenClaims, TokenError, TokenGrant};
use crate::xds::node::NodeClaim;

/// What a credential authorizes.
#[derive(Clone, Debug)]
pub struct Grant {
    /// SPIFFE ID.
    pub identity: SpiffeId,
    /// The workload.
    pub workload: WorkloadName,
    /// Labels and addresses from the token; used only if no WorkloadEntry has the workload's name.
    pub stated: Option<(Arc<Labels>, Vec<IpAddr>)>,
    /// Set for a member of a WorkloadGroup, identified by its address.
    pub member: Option<Member>,
    /// Expiry of the token.
    pub token_expires: Option<SystemTime>,
}

/// A workload that is registered automatically in a WorkloadGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its WorkloadGroup.
    pub group: WorkloadName,
    /// The peer address of its connection.
    pub address: IpAddr,
    /// Further addresses claimed in node metadata; used only if the WorkloadGroup allows it.
    pub claimed: Vec<IpAddr>,
    /// Labels from the token; used only if there is no WorkloadGroup.
    pub labels: Arc<Labels>,
}

/// Why a proxy is not admitted.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// The client presented no credential.
    #[error("a join token or workload certificate is required: create a token with `topsail token create`")]
    Missing,
    /// The token is invalid.
    #[error("invalid join token: {0}")]
    Token(TokenError),
    /// The credential is for another workload than the node claims to be.
    #[error("the credential is for {granted}, but the node claims to be {claimed}")]
    OtherWorkload {
        /// The workload the credential is for.
        granted: String,
        /// The workload the node claims.
        claimed: String,
    },
    /// The node claims no group, or another one than its token is for.
    #[error(
        "the token is for members of the group {group}, but the node claims that {claimed}: generate its bootstrap with `topsail bootstrap --group {group}`"
    )]
    OtherGroup {
        /// The token's group.
        group: WorkloadName,
        /// What the node claims.
        claimed: String,
    },
    /// The node's name is not the one derived from its group and peer address.
    #[error("the member of the group {group} at {address} is {expected}, but the node claims to be {claimed}")]
    OtherMember {
        /// The group.
        group: WorkloadName,
        /// Peer address.
        address: IpAddr,
        /// The name derived from group and address.
        expected: WorkloadName,
        /// The name the node claims.
        claimed: WorkloadName,
    },
    /// A group member claims an address other than its peer address, and could so attract traffic
    /// meant for another workload.
    #[error(
        "the node claims the address {claimed} but connects from {peer}: a member of a group is reached at the address it connects from; behind NAT, a workload needs a WorkloadEntry and its own token"
    )]
    OtherAddress {
        /// The address the node claims.
        claimed: String,
        /// Peer address.
        peer: IpAddr,
    },
    /// A workload without a known address cannot be registered.
    #[error("a member of a group registers the address it connects from, but this connection has none")]
    NoAddress,
    /// No valid name can be derived for the member.
    #[error("cannot derive a name for a member of the group {group}: {why}")]
    Name {
        /// The group.
        group: WorkloadName,
        /// Why the name is invalid.
        why: InvalidName,
    },
    /// The certificate carries only namespace and service account, and no WorkloadEntry or
    /// WorkloadGroup runs as them.
    #[error("no WorkloadEntry {0} has the certificate's service account: create one, or connect with a join token")]
    Unknown(WorkloadName),
}

impl Grant {
    /// What a verified token authorizes for a node connecting from `peer`.
    ///
    /// # Errors
    ///
    /// If the node claims to be another workload, or is not a member of the token's group.
    pub fn from_token(
        claims: TokenClaims,
        claim: &NodeClaim,
        peer: Option<IpAddr>,
        mesh: &Mesh,
    ) -> Result<Self, GrantError> {
        let identity = identity_of(&claims, mesh);
        let TokenGrant { bearer, labels, .. } = claims.grant;
        let other = |who: &dyn std::fmt::Display| {
            let account = claim
                .service_account
                .as_ref()
                .map_or_else(String::new, |sa| format!(" as {sa}"));
            GrantError::OtherWorkload {
                granted: format!("{who} as {}", identity.service_account),
                claimed: format!("{}{account}", claim.workload),
            }
        };
        if !agrees(claim, &identity) {
            return Err(other(&bearer));
        }
        let labels = labels.into_iter().map(|(key, value)| (key.into(), value.into()));
        let labels: Arc<Labels> = Arc::new(labels.collect());
        let (addresses, member) = match bearer {
            Bearer::Workload { name, .. } if name != claim.workload => return Err(other(&name)),
            Bearer::Workload { addresses, .. } => (addresses, None),
            Bearer::Group(group) => {
                let member = Member::of(group, labels.clone(), claim, peer)?;
                (member.addresses(mesh), Some(member))
            }
        };
        let labels = member.as_ref().map_or(labels, |member| member.labels(mesh).clone());
        Ok(Self {
            identity,
            workload: claim.workload.clone(),
            stated: Some((labels, addresses)),
            member,
            token_expires: Some(claims.expires_at),
        })
    }

    /// What a workload certificate authorizes for a node connecting from `peer`. The workload's
    /// WorkloadEntry, or the WorkloadGroup of a member, must have the certificate's service
    /// account.
    ///
    /// # Errors
    ///
    /// If the certificate is for another namespace, or no such WorkloadEntry or WorkloadGroup
    /// exists.
    pub fn from_certificate(
        identity: SpiffeId,
        claim: &NodeClaim,
        peer: Option<IpAddr>,
        mesh: &Mesh,
    ) -> Result<Self, GrantError> {
        if !agrees(claim, &identity) {
            return Err(GrantError::OtherWorkload {
                granted: identity.to_string(),
                claimed: claim.workload.to_string(),
            });
        }
        let runs_so = |group: &&WorkloadName| {
            let group = mesh.workload_group(group);
            group.is_some_and(|group| group.service_account.as_ref() == Some(&identity.service_account))
        };
        if let Some(group) = claim.group.as_ref().filter(runs_so) {
            let member = Member::of(group.clone(), Arc::default(), claim, peer)?;
            return Ok(Self {
                identity,
                workload: claim.workload.clone(),
                stated: Some((member.labels(mesh).clone(), member.addresses(mesh))),
                member: Some(member),
                token_expires: None,
            });
        }
        let entry = entry(mesh, &claim.workload)
            .filter(|entry| entry.service_account.as_ref() == Some(&identity.service_account));
        match entry {
            Some(_) => Ok(Self {
                identity,
                workload: claim.workload.clone(),
                stated: None,
                member: None,
                token_expires: None,
            }),
            None => Err(GrantError::Unknown(claim.workload.clone())),
        }
    }

    /// The inputs of the proxy's configuration, and where its node metadata contradicts them.
    /// Labels and addresses come from the workload's WorkloadEntry, else from the token; node
    /// metadata never widens them.
    pub fn view(&self, claim: &NodeClaim, mesh: &Mesh) -> (NodeView, Vec<String>) {
        let workload = &self.workload;
        let entry = entry(mesh, workload);
        let (labels, addresses, locality) = match (entry, &self.stated) {
            (Some(entry), _) => (entry.labels.clone(), ip(entry), entry.locality.clone()),
            (None, Some((labels, addresses))) => (labels.clone(), addresses.clone(), claim.locality.clone()),
            (None, None) => (Arc::default(), Vec::new(), claim.locality.clone()),
        };
        let mut contradictions = Vec::new();
        let strange = claim
            .labels
            .iter()
            .find(|(key, value)| labels.get(key.as_str()).map(|v| &**v) != Some(value.as_str()));
        if let Some((key, value)) = strange {
            contradictions.push(format!(
                "the proxy claims the label {key}={value}, which {workload} does not have; it is ignored"
            ));
        }
        if let Some(address) = claim.addresses.iter().find(|address| !addresses.contains(address)) {
            contradictions.push(format!(
                "the proxy claims the address {address}, which {workload} does not have; it is ignored"
            ));
        }
        let view = NodeView {
            namespace: workload.namespace.clone(),
            labels,
            addresses,
            locality,
            mode: claim.mode,
        };
        (view, contradictions)
    }
}

impl Member {
    /// Its labels: those of its WorkloadGroup if it exists, else those of its token.
    fn labels<'a>(&'a self, mesh: &'a Mesh) -> &'a Arc<Labels> {
        let group = mesh.workload_group(&self.group);
        group.map_or(&self.labels, |group| &group.labels)
    }

    /// Additional addresses, if the WorkloadGroup allows its members to claim them. Allowing it
    /// trusts every holder of the group's token not to claim the addresses of other workloads and
    /// so attract their traffic.
    pub(super) fn further(&self, mesh: &Mesh) -> &[IpAddr] {
        let group = mesh.workload_group(&self.group);
        let said = group.and_then(|group| group.annotations.get(ADDRESSES));
        match said.is_some_and(|said| said == ANY_ADDRESS) {
            true => &self.claimed,
            false => &[],
        }
    }

    /// All addresses, the peer address first.
    fn addresses(&self, mesh: &Mesh) -> Vec<IpAddr> {
        [self.address].iter().chain(self.further(mesh)).copied().collect()
    }

    /// Identifies the member of a group that a node is. Any holder of the group's token could
    /// attract another member's traffic if it could choose its address, so the address is the
    /// connection's peer address and the name is derived from it.
    fn of(
        group: WorkloadName,
        labels: Arc<Labels>,
        claim: &NodeClaim,
        peer: Option<IpAddr>,
    ) -> Result<Self, GrantError> {
        if claim.group.as_ref() != Some(&group) {
            let claimed = match &claim.group {
                Some(other) => format!("it is a member of {other}"),
                None => format!("it is {} and not a member of a group", claim.workload),
            };
            return Err(GrantError::OtherGroup { group, claimed });
        }
        let address = peer.ok_or(GrantError::NoAddress)?.to_canonical();
        if !claim.addresses.iter().any(|claimed| claimed.to_canonical() == address) {
            let claimed: Vec<String> = claim.addresses.iter().map(IpAddr::to_string).collect();
            return Err(GrantError::OtherAddress {
                claimed: claimed.join(", "),
                peer: address,
            });
        }
        match WorkloadName::member(&group, address) {
            Ok(expected) if expected != claim.workload => Err(GrantError::OtherMember {
                group,
                address,
                expected,
                claimed: claim.workload.clone(),
            }),
            Ok(_) => {
                let all = claim.addresses.iter().map(IpAddr::to_canonical);
                let claimed = all.filter(|claimed| *claimed != address).collect();
                Ok(Self {
                    group,
                    address,
                    claimed,
                    labels,
                })
            }
            Err(why) => Err(GrantError::Name { group, why }),
        }
    }
}

/// The identity of a token's bearer. For a group member the WorkloadGroup's service account takes
/// precedence over the token's.
pub(super) fn identity_of(claims: &TokenClaims, mesh: &Mesh) -> SpiffeId {
    let mut identity = claims.identity();
    if let Bearer::Group(group) = &claims.grant.bearer
        && let Some(account) = mesh
            .workload_group(group)
            .and_then(|group| group.service_account.as_ref())
    {
        identity.service_account = account.clone();
    }
    identity
}

/// Whether the node claims no other namespace or service account than these.
fn agrees(claim: &NodeClaim, identity: &SpiffeId) -> bool {
    let mut namespaces = [&claim.namespace, &claim.workload.namespace].into_iter();
    let account = claim.service_account.as_ref();
    namespaces.all(|namespace| *namespace == identity.namespace)
        && account.is_none_or(|account| *account == identity.service_account)
}

/// The view of a proxy described by a WorkloadEntry.
pub(super) fn view_of(entry: &Workload, mode: InterceptionMode) -> NodeView {
    NodeView {
        namespace: entry.id.namespace.clone(),
        labels: entry.labels.clone(),
        addresses: ip(entry),
        locality: entry.locality.clone(),
        mode,
    }
}

/// The WorkloadEntry with a workload's name.
pub(super) fn entry<'a>(mesh: &'a Mesh, workload: &WorkloadName) -> Option<&'a Arc<Workload>> {
    mesh.workload(&workload.object(Kind::WorkloadEntry))
}

fn ip(entry: &Workload) -> Vec<IpAddr> {
    let own = match entry.address {
        Address::Ip(ip) => Some(ip),
        Address::Name(_) | Address::Unix(_) => None,
    };
    own.into_iter().chain(entry.further.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::directory::{Directory, Options};
    use crate::mesh::testing::puts;
    use crate::xds::pb::core::Node;
    use crate::xds::pb::wkt;

    fn claims(bearer: Bearer) -> TokenClaims {
        TokenClaims {
            grant: TokenGrant {
                bearer,
                service_account: "reviews".parse().unwrap(),
                labels: [("app".to_owned(), "reviews".to_owned())].into(),
            },
            trust_domain: "cluster.local".parse().unwrap(),
            issued_at: SystemTime::UNIX_EPOCH,
            expires_at: SystemTime::UNIX_EPOCH,
            id: String::new(),
        }
    }

    /// `metadata` alternates keys and values.
    fn claim(workload: &str, address: &str, metadata: &[(&str, &str)]) -> NodeClaim {
        let value = |text: &str| wkt::Value {
            kind: Some(wkt::value::Kind::StringValue(text.to_owned())),
        };
        let fields = metadata.iter().map(|(key, text)| ((*key).to_owned(), value(text)));
        NodeClaim::read(&Node {
            id: format!("sidecar~{address}~{workload}~shop.svc.cluster.local"),
            metadata: Some(wkt::Struct {
                fields: fields.collect(),
            }),
            ..Node::default()
        })
        .unwrap()
    }

    fn group() -> TokenClaims {
        claims(Bearer::Group("reviews.shop".parse().unwrap()))
    }

    const OF_GROUP: (&str, &str) = ("AUTO_REGISTER_GROUP", "reviews");

    #[test]
    fn a_member_is_named_after_its_peer_address() {
        let claim = claim("reviews-10-0-0-7.shop", "10.0.0.7", &[OF_GROUP]);
        for peer in ["10.0.0.7", "::ffff:10.0.0.7"] {
            let grant = Grant::from_token(group(), &claim, Some(peer.parse().unwrap()), &Mesh::default()).unwrap();
            assert_eq!(grant.workload.to_string(), "reviews-10-0-0-7.shop");
            assert_eq!(grant.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/reviews");
            let address: IpAddr = "10.0.0.7".parse().unwrap();
            assert_eq!(grant.member.as_ref().unwrap().address, address);
            let (view, contradictions) = grant.view(&claim, &Mesh::default());
            assert_eq!((view.addresses, contradictions.len()), (vec![address], 0));
        }
    }

    #[test]
    fn the_peer_address_takes_precedence_over_claimed_ones() {
        let addresses = ("INSTANCE_IPS", "10.1.0.7,10.0.0.7");
        let claim = claim("reviews-10-0-0-7.shop", "10.1.0.7", &[OF_GROUP, addresses]);
        let peer = "10.0.0.7".parse().unwrap();
        let grant = Grant::from_token(group(), &claim, Some(peer), &Mesh::default()).unwrap();
        let (view, contradictions) = grant.view(&claim, &Mesh::default());
        assert_eq!((view.addresses, contradictions.len()), (vec![peer], 1));
    }

    #[test]
    fn a_group_token_admits_members_only() {
        let peer = Some("10.0.0.7".parse().unwrap());
        let refused = |claim: &NodeClaim, peer| {
            Grant::from_token(group(), claim, peer, &Mesh::default())
                .unwrap_err()
                .to_string()
        };
        for (workload, address, metadata, why) in [
            (
                "reviews-10-0-0-8.shop",
                "10.0.0.8",
                vec![OF_GROUP],
                "connects from 10.0.0.7",
            ),
            (
                "reviews-10-0-0-8.shop",
                "10.0.0.7",
                vec![OF_GROUP],
                "is reviews-10-0-0-7.shop",
            ),
            (
                "ratings-10-0-0-7.shop",
                "10.0.0.7",
                vec![OF_GROUP],
                "is reviews-10-0-0-7.shop",
            ),
            (
                "ratings-10-0-0-7.shop",
                "10.0.0.7",
                vec![("AUTO_REGISTER_GROUP", "ratings")],
                "a member of ratings.shop",
            ),
            ("reviews-10-0-0-7.shop", "10.0.0.7", vec![], "not a member of a group"),
            (
                "reviews-10-0-0-7.bank",
                "10.0.0.7",
                vec![OF_GROUP],
                "the credential is for",
            ),
            (
                "reviews-10-0-0-7.shop",
                "10.0.0.7",
                vec![OF_GROUP, ("SERVICE_ACCOUNT", "admin")],
                "as admin",
            ),
        ] {
            let said = refused(&claim(workload, address, &metadata), peer);
            assert!(said.contains(why), "{workload} at {address}: {said}");
        }
        let own = claim("reviews-10-0-0-7.shop", "10.0.0.7", &[OF_GROUP]);
        assert!(refused(&own, None).contains("has none"));
    }

    /// A mesh with a WorkloadGroup.
    fn mesh() -> Mesh {
        let text = "
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: reviews, namespace: shop}
spec: {template: {labels: {app: written}, serviceAccount: written}}
";
        let directory = Directory::new(Options::default());
        directory.apply(&puts("a.yaml", text)).mesh
    }

    #[test]
    fn a_workload_group_may_allow_claimed_addresses() {
        let text = "
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: reviews, namespace: shop}
spec: {metadata: {annotations: {topsail.io/addresses: \"*\"}}, template: {serviceAccount: reviews}}
";
        let mesh = Directory::new(Options::default()).apply(&puts("a.yaml", text)).mesh;
        let addresses = ("INSTANCE_IPS", "10.0.0.7,10.1.0.7");
        let own = claim("reviews-10-0-0-7.shop", "10.0.0.7", &[OF_GROUP, addresses]);
        let all: Vec<IpAddr> = ["10.0.0.7", "10.1.0.7"].map(|ip| ip.parse().unwrap()).to_vec();
        let grant = Grant::from_token(group(), &own, Some(all[0]), &mesh).unwrap();
        let (view, contradictions) = grant.view(&own, &mesh);
        assert_eq!((view.addresses, contradictions.len()), (all.clone(), 0));
        assert_eq!(grant.member.unwrap().further(&mesh), &all[1..]);
        let grant = Grant::from_token(group(), &own, Some(all[0]), &Mesh::default()).unwrap();
        assert!(grant.member.unwrap().further(&Mesh::default()).is_empty());
    }

    #[test]
    fn labels_and_service_account_come_from_the_workload_group() {
        let peer = Some("10.0.0.7".parse().unwrap());
        let own = claim("reviews-10-0-0-7.shop", "10.0.0.7", &[OF_GROUP]);
        let grant = Grant::from_token(group(), &own, peer, &mesh()).unwrap();
        assert_eq!(&*grant.identity.service_account.to_string(), "written");
        let (view, _) = grant.view(&own, &mesh());
        assert_eq!(view.labels.get("app").map(|value| &**value), Some("written"));
    }

    #[test]
    fn a_certificate_with_a_workload_groups_service_account_admits_a_member() {
        let identity = |account: &str| format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap();
        let own = claim("reviews-10-0-0-7.shop", "10.0.0.7", &[OF_GROUP]);
        let (peer, other) = ("10.0.0.7".parse().ok(), "10.0.0.8".parse().ok());
        let grant = Grant::from_certificate(identity("written"), &own, peer, &mesh()).unwrap();
        assert!(grant.member.is_some());
        for (account, peer, mesh) in [
            ("written", other, mesh()),
            ("else", peer, mesh()),
            ("written", peer, Mesh::default()),
        ] {
            assert!(
                Grant::from_certificate(identity(account), &own, peer, &mesh).is_err(),
                "{account}"
            );
        }
    }

    #[test]
    fn a_workload_token_does_not_register() {
        let bearer = || Bearer::Workload {
            name: "reviews-v1.shop".parse().unwrap(),
            addresses: vec!["10.0.0.7".parse().unwrap()],
        };
        let own = claim("reviews-v1.shop", "10.0.0.7", &[OF_GROUP]);
        let grant = Grant::from_token(claims(bearer()), &own, None, &Mesh::default()).unwrap();
        assert_eq!(grant.member, None);
        let other = claim("reviews-v2.shop", "10.0.0.7", &[]);
        assert!(Grant::from_token(claims(bearer()), &other, None, &Mesh::default()).is_err());
    }
}
