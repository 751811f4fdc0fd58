//! The Bookinfo workloads that the directory defines, and their addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;

use clap::ValueEnum;

use super::directory::objects;
use super::service::services::Service;
use crate::api::sidecar::Sidecar;
use crate::api::workload_entry::WorkloadEntry;
use crate::api::{Object, Spec};
use crate::diag::{Diagnostic, Severity};
use crate::name::{Namespace, ServiceAccount, WorkloadName};

/// A Bookinfo workload: an application and its sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Workload {
    /// Name of its WorkloadEntry.
    pub name: WorkloadName,
    /// Its Bookinfo service, from the label `app`.
    pub service: Service,
    /// Its label `version`.
    pub version: String,
    /// Its service account.
    pub account: ServiceAccount,
    /// Its address.
    pub ip: IpAddr,
    /// Inbound listener of its sidecar.
    pub inbound: SocketAddr,
    /// Address the application listens on.
    pub application: SocketAddr,
    /// Outbound listener of its sidecar, if it calls other services.
    pub outbound: Option<SocketAddr>,
}

/// Why a directory cannot be used for the demo.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkloadsError {
    /// There is no `productpage`.
    #[error(
        "{directory} does not describe Bookinfo: it has no WorkloadEntry with the label `app: productpage`; \
         start from a copy of examples/bookinfo/config{}", listed(.problems)
    )]
    NoPage {
        /// The directory.
        directory: String,
        /// Errors in its files.
        problems: Vec<String>,
    },
    /// The addresses of a workload cannot be determined.
    #[error("{place}: cannot start workload {name}: {why}")]
    Unplaced {
        /// Location of its WorkloadEntry.
        place: String,
        /// The workload.
        name: WorkloadName,
        /// The cause.
        why: String,
    },
}

fn listed(problems: &[String]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

/// Reads the workloads of a directory, in file order. Interception mode is NONE, so the Sidecar of a workload
/// defines where its proxy and its application listen.
///
/// # Errors
/// If there is no `productpage`, or a workload has no suitable Sidecar.
pub(super) fn read(directory: &Path) -> Result<Vec<Workload>, WorkloadsError> {
    let (objects, diagnostics) = objects(directory);
    let sidecars: Vec<(&Namespace, &Sidecar)> = objects.iter().filter_map(sidecar).collect();
    let mut workloads = Vec::new();
    for object in &objects {
        let Spec::WorkloadEntry(entry) = &object.spec else {
            continue;
        };
        let app = entry.labels.get("app").map(|app| Service::from_str(app, false));
        let Some(Ok(service)) = app else { continue };
        let name = WorkloadName {
            name: object.id.name.clone(),
            namespace: object.id.namespace.clone(),
        };
        let own = sidecars
            .iter()
            .find(|(namespace, sidecar)| **namespace == name.namespace && selects(sidecar, entry));
        let placed = place(service, &name, entry, own.map(|(_, sidecar)| *sidecar));
        workloads.push(placed.map_err(|why| WorkloadsError::Unplaced {
            place: object.place("").display(),
            name,
            why,
        })?);
    }
    if workloads
        .iter()
        .any(|workload| workload.service == Service::Productpage)
    {
        return Ok(workloads);
    }
    let errors = diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Error);
    Err(WorkloadsError::NoPage {
        directory: directory.display().to_string(),
        problems: errors.map(one_line).collect(),
    })
}

fn one_line(diagnostic: &Diagnostic) -> String {
    let place = diagnostic
        .place()
        .map(|place| format!("{}: ", place.display()))
        .unwrap_or_default();
    format!(
        "{place}{}[{}]: {}",
        diagnostic.severity.as_str(),
        diagnostic.code.as_str(),
        diagnostic.message
    )
}

fn sidecar(object: &Object) -> Option<(&Namespace, &Sidecar)> {
    match &object.spec {
        Spec::Sidecar(sidecar) => Some((&object.id.namespace, sidecar)),
        Spec::ConfigMap(_)
        | Spec::Service(_)
        | Spec::EndpointSlice(_)
        | Spec::Endpoints(_)
        | Spec::ServiceEntry(_)
        | Spec::WorkloadEntry(_)
        | Spec::WorkloadGroup(_)
        | Spec::VirtualService(_)
        | Spec::DestinationRule(_)
        | Spec::PeerAuthentication(_) => None,
    }
}

fn selects(sidecar: &Sidecar, entry: &WorkloadEntry) -> bool {
    let none = BTreeMap::new();
    let labels = sidecar
        .workload_selector
        .as_ref()
        .map_or(&none, |selector| &selector.labels);
    labels.iter().all(|(key, value)| entry.labels.get(key) == Some(value))
}

fn place(
    service: Service,
    name: &WorkloadName,
    entry: &WorkloadEntry,
    sidecar: Option<&Sidecar>,
) -> Result<Workload, String> {
    let ip = IpAddr::from_str(&entry.address)
        .map_err(|_| format!("its address `{}` is not an IP address", entry.address))?;
    let sidecar = sidecar.ok_or("no Sidecar selects it to define where its proxy and its application listen")?;
    let ingress = sidecar.ingress.first().ok_or("its Sidecar has no `ingress`")?;
    let application = ingress.default_endpoint.parse().map_err(|_| {
        format!(
            "`defaultEndpoint` of its Sidecar must be ADDRESS:PORT, not `{}`",
            ingress.default_endpoint
        )
    })?;
    let port = ingress.port.as_ref().map_or(0, |port| port.number);
    let egress = sidecar
        .egress
        .iter()
        .find_map(|egress| Some((egress.port.as_ref()?.number, &egress.bind)));
    let outbound = egress
        .map(|(port, bind)| listener(bind, Ipv4Addr::LOCALHOST.into(), port))
        .transpose()?;
    let account = if entry.service_account.is_empty() {
        "default"
    } else {
        &entry.service_account
    };
    Ok(Workload {
        name: name.clone(),
        service,
        version: entry.labels.get("version").cloned().unwrap_or_else(|| "v1".to_owned()),
        account: account.parse().map_err(|error| format!("{error}"))?,
        ip,
        inbound: listener(&ingress.bind, ip, port)?,
        application,
        outbound,
    })
}

/// Address of a listener of a Sidecar.
fn listener(bind: &str, default: IpAddr, port: u32) -> Result<SocketAddr, String> {
    let ip = if bind.is_empty() { Ok(default) } else { bind.parse() };
    match (ip, u16::try_from(port)) {
        (Ok(ip), Ok(port @ 1..)) => Ok(SocketAddr::new(ip, port)),
        (_, _) => Err(format!(
            "a listener of its Sidecar needs an IP address and a port, but has `{bind}` and {port}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ENTRY: &str = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: page}\n\
        spec: {address: 127.0.9.1, labels: {app: productpage}}\n";

    fn directory(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (at, text) in files.iter().enumerate() {
            fs::write(folder.path().join(format!("{at}.yaml")), text).unwrap();
        }
        folder
    }

    #[test]
    fn the_sample_has_six_workloads() {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bookinfo/config");
        let workloads = read(&sample).unwrap();
        let names: Vec<String> = workloads.iter().map(|workload| workload.name.to_string()).collect();
        assert_eq!(
            names,
            [
                "productpage-v1",
                "details-v1",
                "reviews-v1",
                "reviews-v2",
                "reviews-v3",
                "ratings-v1"
            ]
            .map(|name| format!("{name}.default"))
        );
        let reviews = &workloads[3];
        assert_eq!((reviews.service, reviews.version.as_str()), (Service::Reviews, "v2"));
        assert_eq!(reviews.account.as_str(), "bookinfo-reviews");
        assert_eq!(reviews.inbound, "127.0.10.4:9080".parse().unwrap());
        assert_eq!(reviews.application, "127.0.0.1:19084".parse().unwrap());
        assert_eq!(reviews.outbound, Some("127.0.11.4:9080".parse().unwrap()));
        assert_eq!(workloads[1].outbound, None);
    }

    #[test]
    fn absent_fields_have_istios_defaults() {
        let sidecar = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: page}\n\
            spec:\n  ingress: [{port: {number: 80, name: http, protocol: HTTP}, defaultEndpoint: '127.0.0.1:1'}]\n  \
            egress: [{hosts: ['*/*'], port: {number: 81, name: http, protocol: HTTP}}]\n";
        let page = read(directory(&[ENTRY, sidecar]).path()).unwrap().remove(0);
        assert_eq!((page.version.as_str(), page.account.as_str()), ("v1", "default"));
        assert_eq!(page.inbound, "127.0.9.1:80".parse().unwrap());
        assert_eq!(page.outbound, Some("127.0.0.1:81".parse().unwrap()));
    }

    #[test]
    fn a_workload_without_a_sidecar_is_reported_with_its_location() {
        let folder = directory(&[ENTRY]);
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("0.yaml:3:") && error.contains("page.default") && error.contains("no Sidecar"),
            "{error}"
        );
    }

    #[test]
    fn other_directories_are_reported_with_their_errors() {
        let broken = directory(&["apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {nam: page}\n"]);
        let error = read(broken.path()).unwrap_err().to_string();
        assert!(
            error.contains("`app: productpage`") && error.contains("examples/bookinfo/config"),
            "{error}"
        );
        assert!(error.contains("0.yaml:3:") && error.contains("error["), "{error}");
    }
}
