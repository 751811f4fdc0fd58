//! The table of known kinds, their API versions, and whether they are supported.

use crate::name::Kind;

use super::suggest;

/// How objects of a kind are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Supported.
    Full(Kind),
    /// An Istio kind that is not supported yet.
    NotYet,
    /// A Kubernetes kind that has no meaning for a mesh; skipped.
    Irrelevant,
}

/// Kinds of an API group that are served in the same versions.
#[derive(Debug)]
pub struct Group {
    /// Name of the group; empty for the core group.
    pub name: &'static str,
    /// Served versions, the preferred one first; empty accepts any.
    pub versions: &'static [&'static str],
    /// The kinds and how they are treated.
    pub kinds: &'static [(&'static str, Support)],
}

use Support::{Full, Irrelevant, NotYet};

/// The table. Versions of Istio kinds are those of its `pkg/config/schema/metadata.yaml`; all
/// versions of a kind have the same fields.
pub const GROUPS: &[Group] = &[
    Group {
        name: "",
        versions: &["v1"],
        kinds: &[
            ("ConfigMap", Full(Kind::ConfigMap)),
            ("Service", Full(Kind::Service)),
            ("Endpoints", Full(Kind::Endpoints)),
            ("Binding", Irrelevant),
            ("Event", Irrelevant),
            ("LimitRange", Irrelevant),
            ("Namespace", Irrelevant),
            ("Node", Irrelevant),
            ("PersistentVolume", Irrelevant),
            ("PersistentVolumeClaim", Irrelevant),
            ("Pod", Irrelevant),
            ("PodTemplate", Irrelevant),
            ("ReplicationController", Irrelevant),
            ("ResourceQuota", Irrelevant),
            ("Secret", Irrelevant),
            ("ServiceAccount", Irrelevant),
        ],
    },
    Group {
        name: "discovery.k8s.io",
        versions: &["v1"],
        kinds: &[("EndpointSlice", Full(Kind::EndpointSlice))],
    },
    Group {
        name: "networking.istio.io",
        versions: &["v1", "v1beta1", "v1alpha3"],
        kinds: &[
            ("ServiceEntry", Full(Kind::ServiceEntry)),
            ("WorkloadEntry", Full(Kind::WorkloadEntry)),
            ("Sidecar", Full(Kind::Sidecar)),
            ("VirtualService", Full(Kind::VirtualService)),
            ("DestinationRule", Full(Kind::DestinationRule)),
            ("WorkloadGroup", Full(Kind::WorkloadGroup)),
            ("Gateway", NotYet),
        ],
    },
    Group {
        name: "security.istio.io",
        versions: &["v1", "v1beta1"],
        kinds: &[
            ("PeerAuthentication", Full(Kind::PeerAuthentication)),
            ("AuthorizationPolicy", NotYet),
            ("RequestAuthentication", NotYet),
        ],
    },
    Group {
        name: "networking.istio.io",
        versions: &["v1alpha3"],
        kinds: &[("EnvoyFilter", NotYet)],
    },
    Group {
        name: "networking.istio.io",
        versions: &["v1beta1"],
        kinds: &[("ProxyConfig", NotYet)],
    },
    Group {
        name: "telemetry.istio.io",
        versions: &["v1", "v1alpha1"],
        kinds: &[("Telemetry", NotYet)],
    },
    Group {
        name: "extensions.istio.io",
        versions: &["v1alpha1"],
        kinds: &[("WasmPlugin", NotYet), ("TrafficExtension", NotYet)],
    },
    Group {
        name: "install.istio.io",
        versions: &[],
        kinds: &[("IstioOperator", NotYet)],
    },
    Group {
        name: "networking.k8s.io",
        versions: &[],
        kinds: &[
            ("Ingress", NotYet),
            ("IngressClass", NotYet),
            ("NetworkPolicy", Irrelevant),
        ],
    },
    Group {
        name: "gateway.networking.k8s.io",
        versions: &[],
        kinds: &[
            ("BackendTLSPolicy", NotYet),
            ("Gateway", NotYet),
            ("GatewayClass", NotYet),
            ("GRPCRoute", NotYet),
            ("HTTPRoute", NotYet),
            ("ListenerSet", NotYet),
            ("ReferenceGrant", NotYet),
            ("TCPRoute", NotYet),
            ("TLSRoute", NotYet),
            ("UDPRoute", NotYet),
        ],
    },
    Group {
        name: "gateway.networking.x-k8s.io",
        versions: &[],
        kinds: &[
            ("XBackend", NotYet),
            ("XBackendTrafficPolicy", NotYet),
            ("XListenerSet", NotYet),
        ],
    },
    Group {
        name: "inference.networking.k8s.io",
        versions: &[],
        kinds: &[("InferencePool", NotYet)],
    },
    Group {
        name: "multicluster.x-k8s.io",
        versions: &[],
        kinds: &[("ServiceExport", NotYet), ("ServiceImport", NotYet)],
    },
    Group {
        name: "apps",
        versions: &[],
        kinds: &[
            ("ControllerRevision", Irrelevant),
            ("DaemonSet", Irrelevant),
            ("Deployment", Irrelevant),
            ("ReplicaSet", Irrelevant),
            ("StatefulSet", Irrelevant),
        ],
    },
    Group {
        name: "batch",
        versions: &[],
        kinds: &[("CronJob", Irrelevant), ("Job", Irrelevant)],
    },
    Group {
        name: "autoscaling",
        versions: &[],
        kinds: &[("HorizontalPodAutoscaler", Irrelevant)],
    },
    Group {
        name: "policy",
        versions: &[],
        kinds: &[("PodDisruptionBudget", Irrelevant)],
    },
    Group {
        name: "rbac.authorization.k8s.io",
        versions: &[],
        kinds: &[
            ("ClusterRole", Irrelevant),
            ("ClusterRoleBinding", Irrelevant),
            ("Role", Irrelevant),
            ("RoleBinding", Irrelevant),
        ],
    },
    Group {
        name: "apiextensions.k8s.io",
        versions: &[],
        kinds: &[("CustomResourceDefinition", Irrelevant)],
    },
    Group {
        name: "apiregistration.k8s.io",
        versions: &[],
        kinds: &[("APIService", Irrelevant)],
    },
    Group {
        name: "admissionregistration.k8s.io",
        versions: &[],
        kinds: &[
            ("MutatingWebhookConfiguration", Irrelevant),
            ("ValidatingAdmissionPolicy", Irrelevant),
            ("ValidatingAdmissionPolicyBinding", Irrelevant),
            ("ValidatingWebhookConfiguration", Irrelevant),
        ],
    },
    Group {
        name: "certificates.k8s.io",
        versions: &[],
        kinds: &[
            ("CertificateSigningRequest", Irrelevant),
            ("ClusterTrustBundle", Irrelevant),
        ],
    },
    Group {
        name: "coordination.k8s.io",
        versions: &[],
        kinds: &[("Lease", Irrelevant)],
    },
    Group {
        name: "events.k8s.io",
        versions: &[],
        kinds: &[("Event", Irrelevant)],
    },
    Group {
        name: "node.k8s.io",
        versions: &[],
        kinds: &[("RuntimeClass", Irrelevant)],
    },
    Group {
        name: "scheduling.k8s.io",
        versions: &[],
        kinds: &[("PriorityClass", Irrelevant)],
    },
    Group {
        name: "storage.k8s.io",
        versions: &[],
        kinds: &[
            ("CSIDriver", Irrelevant),
            ("CSINode", Irrelevant),
            ("StorageClass", Irrelevant),
            ("VolumeAttachment", Irrelevant),
        ],
    },
];

impl Group {
    fn support(&self, kind: &str) -> Option<Support> {
        self.kinds
            .iter()
            .find(|(name, _)| *name == kind)
            .map(|(_, support)| *support)
    }

    fn serves(&self, version: &str) -> bool {
        self.versions.is_empty() || self.versions.contains(&version)
    }

    /// The preferred `apiVersion` of the group.
    fn api_version(&self) -> String {
        match (self.name, self.versions.first()) {
            ("", Some(version)) => (*version).to_owned(),
            (name, Some(version)) => format!("{name}/{version}"),
            (name, None) => name.to_owned(),
        }
    }
}

/// Why a combination of `apiVersion` and kind is not recognized.
#[derive(Debug, PartialEq, Eq)]
pub enum Unknown {
    /// There is no such kind.
    Kind {
        /// The most similar known kind.
        closest: Option<&'static str>,
    },
    /// The kind exists, but in another `apiVersion`.
    ApiVersion {
        /// The correct `apiVersion`.
        expected: String,
        /// How objects of the kind are treated.
        support: Support,
    },
}

/// How objects with this `apiVersion` and kind are treated.
///
/// # Errors
///
/// If the kind does not exist, or not in this group and version.
pub fn find(api_version: &str, kind: &str) -> Result<Support, Unknown> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let with_kind = || GROUPS.iter().filter_map(|row| Some((row, row.support(kind)?)));
    if let Some((_, support)) = with_kind().find(|(row, _)| row.name == group && row.serves(version)) {
        return Ok(support);
    }
    let same_group = with_kind().find(|(row, _)| row.name == group);
    match same_group.or_else(|| with_kind().next()) {
        Some((row, support)) => Err(Unknown::ApiVersion {
            expected: row.api_version(),
            support,
        }),
        None => {
            let kinds = GROUPS.iter().flat_map(|row| row.kinds).map(|(name, _)| *name);
            Err(Unknown::Kind {
                closest: suggest::closest(kind, kinds),
            })
        }
    }
}

/// How objects of the kind are treated, whatever their group.
pub fn by_name(kind: &str) -> Option<Support> {
    GROUPS.iter().find_map(|row| row.support(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_served_version_is_accepted() {
        for version in ["v1", "v1beta1", "v1alpha3"] {
            let found = find(&format!("networking.istio.io/{version}"), "VirtualService");
            assert_eq!(found, Ok(Full(Kind::VirtualService)));
        }
        assert_eq!(
            find("security.istio.io/v1beta1", "PeerAuthentication"),
            Ok(Full(Kind::PeerAuthentication))
        );
        assert_eq!(find("v1", "Service"), Ok(Full(Kind::Service)));
        assert_eq!(find("networking.istio.io/v1alpha3", "EnvoyFilter"), Ok(NotYet));
        assert_eq!(find("gateway.networking.k8s.io/v1beta1", "Gateway"), Ok(NotYet));
        assert_eq!(find("apps/v1", "Deployment"), Ok(Irrelevant));
    }

    #[test]
    fn wrong_versions_and_groups_name_the_right_one() {
        let expected = |api_version, kind| match find(api_version, kind) {
            Err(Unknown::ApiVersion { expected, .. }) => expected,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            expected("networking.istio.io/v2", "VirtualService"),
            "networking.istio.io/v1"
        );
        assert_eq!(expected("v1", "DestinationRule"), "networking.istio.io/v1");
        assert_eq!(expected("istio.io/v1", "Service"), "v1");
        assert_eq!(
            expected("networking.istio.io/v1", "EnvoyFilter"),
            "networking.istio.io/v1alpha3"
        );
        assert_eq!(
            expected("discovery.k8s.io/v1beta1", "EndpointSlice"),
            "discovery.k8s.io/v1"
        );
    }

    #[test]
    fn misspelt_kinds_are_recognised() {
        let closest = |kind| find("networking.istio.io/v1", kind);
        assert_eq!(
            closest("VirtualServce"),
            Err(Unknown::Kind {
                closest: Some("VirtualService")
            })
        );
        assert_eq!(closest("Frobnicator"), Err(Unknown::Kind { closest: None }));
    }

    #[test]
    fn every_supported_kind_is_in_the_table() {
        for group in GROUPS {
            for (name, support) in group.kinds {
                if let Full(kind) = support {
                    assert_eq!(kind.as_str(), *name);
                }
            }
        }
    }
}
