//! Lowers PeerAuthentications: mutual TLS modes of workloads.

use std::sync::Arc;

use super::report::Report;
use super::{Context, Lowered};
use crate::api::peer_authentication as api;
use crate::api::{FieldPath, Object};
use crate::mesh::peer_authentication::{MutualTlsMode, PeerAuthentication};

/// Lowers a PeerAuthentication.
pub(super) fn lower(
    object: &Object,
    spec: &api::PeerAuthentication,
    context: &Context,
) -> Lowered<Arc<PeerAuthentication>> {
    let mut report = Report::new(&object.id, context);
    let at = FieldPath::root().field("spec");
    let selector = spec
        .selector
        .as_ref()
        .map(|selector| report.selector(&at.field("selector").field("matchLabels"), &selector.match_labels))
        .filter(|labels| !labels.is_empty());
    let ports_at = at.field("portLevelMtls");
    if selector.is_none() && !spec.port_level_mtls.is_empty() {
        report
            .error(&ports_at, "port-level modes require a `selector`")
            .help("select the workloads by label");
    }
    if selector.is_some() && object.id.namespace == context.config.root_namespace {
        report.info(
            &at.field("selector"),
            format!(
                "this only selects workloads in `{}`, not in the whole mesh",
                object.id.namespace
            ),
        );
    }
    let mut ports = Vec::with_capacity(spec.port_level_mtls.len());
    for (number, mtls) in &spec.port_level_mtls {
        let port = report.port(&ports_at.key(number.to_string()), *number);
        ports.push((port, mode(mtls.mode)));
    }
    let value = PeerAuthentication {
        id: object.id.clone(),
        selector,
        mode: spec.mtls.and_then(|mtls| mode(mtls.mode)),
        ports,
    };
    report.finish(value).map(Arc::new)
}

fn mode(mode: api::MutualTlsMode) -> Option<MutualTlsMode> {
    match mode {
        api::MutualTlsMode::Unset => None,
        api::MutualTlsMode::Disable => Some(MutualTlsMode::Disable),
        api::MutualTlsMode::Permissive => Some(MutualTlsMode::Permissive),
        api::MutualTlsMode::Strict => Some(MutualTlsMode::Strict),
    }
}

#[cfg(test)]
mod tests {
    use crate::mesh::testing::expect_as_marked;

    #[test]
    fn selectors_and_ports() {
        expect_as_marked(
            r#"
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: a}
spec:
  portLevelMtls:                        #! IST0106
    "0": {mode: STRICT}                 #! IST0106
    "80": {mode: STRICT}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: b}
spec:
  selector:
    matchLabels: {a: "*"}               #! IST0106
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: c, namespace: istio-system}
spec:
  selector:                             #! IST0133
    matchLabels: {a: b}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: d}
spec:
  selector:
    matchLabels: {}                     #! IST0133
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: e}                     #! IST0133
spec: {mtls: {mode: STRICT}}
"#,
        );
    }
}
