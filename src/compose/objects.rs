//! The Istio objects that describe a project to the control plane.

use std::fmt::Write;

use super::name;
use super::plan::{Plan, Planned};
use super::port::ListenPort;

/// Files of the configuration directory, by name: one per service with a sidecar, and a common one.
///
/// Services are headless, like compose services: their name resolves to the addresses of their
/// containers, and a connection to one of these reaches that container. Addresses are not written:
/// sidecars register theirs as members of the WorkloadGroup.
pub fn objects(plan: &Plan) -> Vec<(String, String)> {
    let mut files = vec![(format!("{}.yaml", name::SERVER), MESH.to_owned())];
    files.extend(plan.meshed.iter().map(|planned| {
        let file = format!("{}.yaml", planned.object);
        (file, service(planned))
    }));
    files
}

/// Policy in the root namespace, for all workloads without their own.
const MESH: &str = "\
# Between containers there is mutual TLS and nothing else.
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec:
  mtls: {mode: STRICT}
";

fn service(planned: &Planned) -> String {
    let Planned { service, object, .. } = planned;
    let mut text = format!("# The service `{service}`, reached by its name at the addresses of its containers.\n");
    if !planned.ports.is_empty() {
        text.push_str(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {object}}}\nspec:\n  clusterIP: None\n  selector: {{app: \
             {object}}}\n  ports:\n"
        ));
        planned.ports.iter().for_each(|listen| port(&mut text, *listen));
        text.push_str("---\n");
    }
    // Clients reach it at its address in a network they share.
    let annotations = match planned.networks.len() {
        0 | 1 => "",
        _ => "    annotations: {topsail.io/addresses: \"*\"}\n",
    };
    text.push_str(&format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {{name: {object}}}\nspec:\n  metadata:\n    \
         labels: {{app: {object}}}\n{annotations}  template:\n    serviceAccount: {object}\n"
    ));
    policy(&mut text, planned);
    text
}

fn port(text: &mut String, port: ListenPort) {
    let ListenPort { number, protocol, .. } = port;
    let app_protocol = match protocol.app_protocol() {
        Some(protocol) => format!(", appProtocol: {protocol}"),
        None => String::new(),
    };
    let name = match protocol.app_protocol() {
        Some(protocol) => format!("{protocol}-{number}"),
        None => format!("port-{number}"),
    };
    // Writing to a `String` cannot fail.
    let _ = writeln!(text, "  - {{name: {name}, port: {number}{app_protocol}}}");
}

/// Published ports have clients without a sidecar.
fn policy(text: &mut String, planned: &Planned) {
    let Planned { service, object, .. } = planned;
    let published: Vec<u16> = planned
        .ports
        .iter()
        .filter(|port| port.published)
        .map(|port| port.number)
        .collect();
    if published.is_empty() && !planned.permissive {
        return;
    }
    let (why, mode) = match planned.permissive {
        true => (
            format!(
                "`{service}` also accepts plaintext, as its label requests; sidecars still use mutual TLS to call it."
            ),
            "PERMISSIVE",
        ),
        false => (
            "Published ports also accept plaintext from external clients; sidecars still use mutual TLS to call them."
                .to_owned(),
            "STRICT",
        ),
    };
    text.push_str(&format!(
        "---\n# {why}\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {object}}}\nspec:\n  \
         selector:\n    matchLabels: {{app: {object}}}\n  mtls: {{mode: {mode}}}\n"
    ));
    if !planned.permissive {
        text.push_str("  portLevelMtls:\n");
        for number in published {
            text.push_str(&format!("    {number}: {{mode: PERMISSIVE}}\n"));
        }
    }
}
