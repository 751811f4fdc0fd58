//! Envoy's `node`, as sent by clients. Its content is unauthenticated; the credential determines
//! what a client may be.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::pb::{core, wkt};
use crate::ir::node::InterceptionMode;
use crate::mesh::service::Locality;
use crate::name::{Namespace, ServiceAccount, WorkloadName};

/// Key in `node.metadata` with a decimal number that identifies a sidecar process which reports
/// readiness. Specific to Topsail: Istio's agent reports readiness on the xDS stream, which here
/// belongs to Envoy.
pub const READINESS_RUN: &str = "TOPSAIL_READINESS_RUN";

/// Proxy types (the first part of a node id).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyType {
    /// Sidecar of a workload.
    Sidecar,
    /// A gateway.
    Router,
}

/// A node as described by the client. Envoy's list of extensions (61 KB) is dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeClaim {
    /// `sidecar~<ip>~<name>.<namespace>~<namespace>.svc.cluster.local`.
    pub id: Arc<str>,
    /// The kind of proxy.
    pub kind: ProxyType,
    /// `INSTANCE_IPS`, else the address in the id.
    pub addresses: Vec<IpAddr>,
    /// The workload.
    pub workload: WorkloadName,
    /// `NAMESPACE`, else that of the workload.
    pub namespace: Namespace,
    /// `AUTO_REGISTER_GROUP`: the WorkloadGroup, in the namespace, that it is a member of.
    pub group: Option<WorkloadName>,
    /// `TOPSAIL_READINESS_RUN`: the sidecar process that reports application readiness. `None` if
    /// it reports none; the workload is then ready once configured.
    pub readiness_run: Option<u64>,
    /// `SERVICE_ACCOUNT`.
    pub service_account: Option<ServiceAccount>,
    /// `LABELS`.
    pub labels: BTreeMap<String, String>,
    /// `INTERCEPTION_MODE`.
    pub mode: InterceptionMode,
    /// `locality`.
    pub locality: Locality,
    /// Program and version, such as `envoy 1.40.0`.
    pub user_agent: Arc<str>,
}

/// Why a node is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNode {
    /// The id does not have Istio's format.
    #[error(
        "node.id `{0}` is not `sidecar~<ip>~<name>.<namespace>~<domain>`: generate the bootstrap with `topsail bootstrap`"
    )]
    Id(String),
    /// The proxy type is not supported.
    #[error("node.id `{0}` has an unsupported proxy type: expected `sidecar` or `router`")]
    Kind(String),
    /// A field is invalid.
    #[error("node {part}: {why}")]
    Part {
        /// The field.
        part: &'static str,
        /// Why it is invalid.
        why: String,
    },
}

impl NodeClaim {
    /// Parses a node.
    ///
    /// # Errors
    ///
    /// If the id or metadata do not have Istio's format.
    pub fn read(node: &core::Node) -> Result<Self, InvalidNode> {
        let parts: Vec<&str> = node.id.split('~').collect();
        let [kind, ip, workload, _domain] = parts[..] else {
            return Err(InvalidNode::Id(node.id.clone()));
        };
        let kind = match kind {
            "sidecar" => ProxyType::Sidecar,
            "router" => ProxyType::Router,
            _ => return Err(InvalidNode::Kind(node.id.clone())),
        };
        let metadata = Metadata(node.metadata.as_ref());
        let workload: WorkloadName = workload.parse().map_err(invalid("id"))?;
        let namespace = metadata
            .text("NAMESPACE")
            .map_or_else(|| Ok(workload.namespace.clone()), str::parse)
            .map_err(invalid("NAMESPACE"))?;
        let group = metadata.text("AUTO_REGISTER_GROUP");
        let group = group.map(|name| format!("{name}.{namespace}").parse());
        let service_account = metadata.text("SERVICE_ACCOUNT").map(str::parse).transpose();
        let readiness_run = metadata.text(READINESS_RUN).map(str::parse).transpose();
        let ips = metadata
            .text("INSTANCE_IPS")
            .unwrap_or(ip)
            .split(',')
            .map(|ip| ip.trim().parse());
        Ok(Self {
            id: node.id.as_str().into(),
            kind,
            addresses: ips.collect::<Result<_, _>>().map_err(invalid("address"))?,
            namespace,
            workload,
            group: group.transpose().map_err(invalid("AUTO_REGISTER_GROUP"))?,
            readiness_run: readiness_run.map_err(invalid(READINESS_RUN))?,
            service_account: service_account.map_err(invalid("SERVICE_ACCOUNT"))?,
            labels: metadata.labels(),
            mode: metadata.mode()?,
            locality: locality(node.locality.as_ref()),
            user_agent: user_agent(node).into(),
        })
    }
}

fn invalid<E: std::fmt::Display>(part: &'static str) -> impl Fn(E) -> InvalidNode {
    move |why| InvalidNode::Part {
        part,
        why: why.to_string(),
    }
}

fn locality(locality: Option<&core::Locality>) -> Locality {
    locality.map_or_else(Locality::default, |locality| Locality {
        region: locality.region.as_str().into(),
        zone: locality.zone.as_str().into(),
        subzone: locality.sub_zone.as_str().into(),
    })
}

fn user_agent(node: &core::Node) -> String {
    use core::node::UserAgentVersionType::{UserAgentBuildVersion, UserAgentVersion};
    let version = match &node.user_agent_version_type {
        Some(UserAgentVersion(text)) => text.clone(),
        Some(UserAgentBuildVersion(build)) => build.version.map_or_else(String::new, |v| {
            format!("{}.{}.{}", v.major_number, v.minor_number, v.patch)
        }),
        None => String::new(),
    };
    format!("{} {version}", node.user_agent_name).trim().to_owned()
}

/// `node.metadata`.
struct Metadata<'a>(Option<&'a wkt::Struct>);

impl<'a> Metadata<'a> {
    fn get(&self, key: &str) -> Option<&'a wkt::value::Kind> {
        self.0?.fields.get(key)?.kind.as_ref()
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        match self.get(key)? {
            wkt::value::Kind::StringValue(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let Some(wkt::value::Kind::StructValue(labels)) = self.get("LABELS") else {
            return BTreeMap::new();
        };
        let text = |value: &wkt::Value| match &value.kind {
            Some(wkt::value::Kind::StringValue(text)) => Some(text.clone()),
            _ => None,
        };
        labels
            .fields
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), text(value)?)))
            .collect()
    }

    fn mode(&self) -> Result<InterceptionMode, InvalidNode> {
        match self.text("INTERCEPTION_MODE") {
            None | Some("REDIRECT") => Ok(InterceptionMode::Redirect),
            Some("TPROXY") => Ok(InterceptionMode::Tproxy),
            Some("NONE") => Ok(InterceptionMode::None),
            Some(other) => {
                let why = format!("`{other}` is not one of REDIRECT, TPROXY and NONE");
                Err(InvalidNode::Part {
                    part: "INTERCEPTION_MODE",
                    why,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> wkt::Value {
        wkt::Value {
            kind: Some(wkt::value::Kind::StringValue(value.to_owned())),
        }
    }

    fn node(id: &str, metadata: &[(&str, wkt::Value)]) -> core::Node {
        let fields = metadata
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect();
        core::Node {
            id: id.to_owned(),
            metadata: Some(wkt::Struct { fields }),
            ..Default::default()
        }
    }

    #[test]
    fn nodes_are_parsed_from_id_and_metadata() {
        let labels = wkt::Struct {
            fields: [("app".to_owned(), text("reviews"))].into(),
        };
        let labels = wkt::Value {
            kind: Some(wkt::value::Kind::StructValue(labels)),
        };
        let node = node(
            "sidecar~10.0.0.7~reviews-v1.shop~shop.svc.cluster.local",
            &[
                ("LABELS", labels),
                ("INTERCEPTION_MODE", text("NONE")),
                ("INSTANCE_IPS", text("10.0.0.7, ::1")),
                (READINESS_RUN, text("18446744073709551615")),
            ],
        );
        let claim = NodeClaim::read(&node).unwrap();
        assert_eq!(claim.workload.to_string(), "reviews-v1.shop");
        assert_eq!(claim.namespace.as_str(), "shop");
        assert_eq!(claim.addresses.len(), 2);
        assert_eq!(claim.readiness_run, Some(u64::MAX));
        assert_eq!(claim.mode, InterceptionMode::None);
        assert_eq!(claim.labels.get("app").map(String::as_str), Some("reviews"));
    }

    #[test]
    fn invalid_nodes_are_rejected_with_a_reason() {
        for (id, needle) in [
            ("me", "topsail bootstrap"),
            ("waypoint~1.1.1.1~a.b~c", "unsupported proxy type"),
            ("sidecar~x~a.b~c", "address"),
            ("sidecar~1.1.1.1~a.B_~c", "id"),
        ] {
            let error = NodeClaim::read(&node(id, &[])).unwrap_err().to_string();
            assert!(error.contains(needle), "{error}");
        }
        let odd = node("sidecar~1.1.1.1~a.b~c", &[("INTERCEPTION_MODE", text("MAGIC"))]);
        assert!(NodeClaim::read(&odd).unwrap_err().to_string().contains("MAGIC"));
        let odd = node("sidecar~1.1.1.1~a.b~c", &[(READINESS_RUN, text("-1"))]);
        assert!(NodeClaim::read(&odd).unwrap_err().to_string().contains(READINESS_RUN));
    }
}
