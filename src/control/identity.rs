//! From a credential to what a proxy may be.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::ir::NodeView;
use crate::ir::node::InterceptionMode;
use crate::mesh::service::Address;
use crate::mesh::workload::Workload;
use crate::mesh::{Labels, Mesh};
use crate::name::{Kind, ObjectId, SpiffeId, WorkloadName};
use crate::pki::{TokenClaims, TokenError};
use crate::xds::node::NodeClaim;

/// What a credential grants.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The identity.
    pub identity: SpiffeId,
    /// The workload.
    pub workload: WorkloadName,
    /// Labels and addresses of a token, which count where no WorkloadEntry has the workload's name.
    pub stated: Option<(Arc<Labels>, Vec<IpAddr>)>,
    /// When the token expires.
    pub token_expires: Option<SystemTime>,
}

/// Why a proxy is not let in.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// Nothing was shown.
    #[error("a join token or a workload certificate is needed: make a token with `topsail token create`")]
    Missing,
    /// The token is no good.
    #[error("the join token is refused: {0}")]
    Token(TokenError),
    /// The credential is for another workload than the node claims to be.
    #[error("the credential is for {granted}, the node claims to be {claimed}")]
    OtherWorkload {
        /// What the credential is for.
        granted: String,
        /// What the node claims.
        claimed: String,
    },
    /// A certificate says no more than namespace and service account.
    #[error("no WorkloadEntry {0} runs as the certificate's service account: write one, or connect with a join token")]
    Unknown(WorkloadName),
}

impl Grant {
    /// What a verified token grants a node.
    ///
    /// # Errors
    /// When the node claims to be another workload.
    pub fn from_token(claims: TokenClaims, claim: &NodeClaim) -> Result<Self, GrantError> {
        let identity = claims.identity();
        let grant = claims.grant;
        let claimed_account = claim
            .service_account
            .as_ref()
            .is_none_or(|account| *account == grant.service_account);
        if grant.workload != claim.workload || claim.namespace != grant.workload.namespace || !claimed_account {
            let account = claim
                .service_account
                .as_ref()
                .map_or_else(String::new, |sa| format!(" as {sa}"));
            return Err(GrantError::OtherWorkload {
                granted: format!("{} as {}", grant.workload, grant.service_account),
                claimed: format!("{}{account}", claim.workload),
            });
        }
        let labels = grant.labels.iter();
        let labels: Labels = labels
            .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
            .collect();
        Ok(Self {
            identity,
            workload: grant.workload,
            stated: Some((Arc::new(labels), grant.addresses)),
            token_expires: Some(claims.expires_at),
        })
    }

    /// What a workload certificate grants a node: a WorkloadEntry has to say that the workload runs
    /// as the certificate's service account.
    ///
    /// # Errors
    /// When the certificate is of another namespace, or nothing says so.
    pub fn from_certificate(identity: SpiffeId, claim: &NodeClaim, mesh: &Mesh) -> Result<Self, GrantError> {
        let claimed_account = claim
            .service_account
            .as_ref()
            .is_none_or(|account| *account == identity.service_account);
        if claim.namespace != identity.namespace || claim.workload.namespace != identity.namespace || !claimed_account {
            return Err(GrantError::OtherWorkload {
                granted: identity.to_string(),
                claimed: claim.workload.to_string(),
            });
        }
        let entry = entry(mesh, &claim.workload)
            .filter(|entry| entry.service_account.as_ref() == Some(&identity.service_account));
        match entry {
            Some(_) => Ok(Self {
                identity,
                workload: claim.workload.clone(),
                stated: None,
                token_expires: None,
            }),
            None => Err(GrantError::Unknown(claim.workload.clone())),
        }
    }

    /// What the proxy's configuration depends on, and where the node contradicts it. The
    /// WorkloadEntry of the workload's name says labels and addresses, else the token; what the node
    /// claims never widens it.
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

/// The proxy of a WorkloadEntry.
pub(super) fn view_of(entry: &Workload, mode: InterceptionMode) -> NodeView {
    NodeView {
        namespace: entry.id.namespace.clone(),
        labels: entry.labels.clone(),
        addresses: ip(entry),
        locality: entry.locality.clone(),
        mode,
    }
}

/// The WorkloadEntry of a workload's name.
pub(super) fn entry<'a>(mesh: &'a Mesh, workload: &WorkloadName) -> Option<&'a Arc<Workload>> {
    let id = ObjectId {
        kind: Kind::WorkloadEntry,
        namespace: workload.namespace.clone(),
        name: workload.name.clone(),
    };
    mesh.workload(&id)
}

fn ip(entry: &Workload) -> Vec<IpAddr> {
    match entry.address {
        Address::Ip(ip) => vec![ip],
        Address::Name(_) | Address::Unix(_) => Vec::new(),
    }
}
