//! The demo's processes, their arguments and their addresses.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::part::Recipe;
use super::ports::Wanted;
use super::service::services::Service;
use super::workloads::Workload;
use crate::envoy::{Launch, Program};

/// Port of a sidecar's admin interface.
const SIDECAR_ADMIN: u16 = 15000;
/// The bootstrap's other ports.
const BOOTSTRAP_PORTS: [(u16, &str); 2] = [(15021, "readiness"), (15090, "metrics")];

/// Everything that is decided before a process is started.
#[derive(Debug)]
pub(super) struct Setup {
    /// Path of the `topsail` binary.
    pub this_program: PathBuf,
    /// The demo's temporary directory.
    pub folder: PathBuf,
    /// The live configuration directory.
    pub directory: PathBuf,
    /// The workloads.
    pub workloads: Vec<Workload>,
    /// xDS address of the control plane.
    pub xds: SocketAddr,
    /// Admin address of the control plane.
    pub admin: SocketAddr,
}

impl Setup {
    /// All addresses that will be listened on.
    pub(super) fn wanted(&self) -> Vec<Wanted> {
        let wanted = |address, purpose: String| Wanted { address, purpose };
        let plane = [
            wanted(self.xds, "control plane, xDS".into()),
            wanted(self.admin, "control plane, admin".into()),
        ];
        let of_workload = |workload: &Workload| {
            let (name, ip) = (&workload.name, workload.ip);
            let mut own = vec![
                wanted(workload.application, format!("application {name}")),
                wanted(workload.inbound, format!("sidecar of {name}, inbound")),
                wanted(sidecar_admin(workload), format!("sidecar of {name}, admin")),
            ];
            own.extend(
                workload
                    .outbound
                    .map(|outbound| wanted(outbound, format!("sidecar of {name}, outbound"))),
            );
            own.extend(
                BOOTSTRAP_PORTS
                    .map(|(port, what)| wanted(SocketAddr::new(ip, port), format!("sidecar of {name}, {what}"))),
            );
            own
        };
        plane
            .into_iter()
            .chain(self.workloads.iter().flat_map(of_workload))
            .collect()
    }

    /// The control plane process.
    pub(super) fn control_plane(&self) -> Recipe {
        let (xds, admin) = (self.xds.to_string(), self.admin.to_string());
        let mut arguments: Vec<OsString> = ["serve", "--xds", &xds, "--admin", &admin, "--config"]
            .map(Into::into)
            .into();
        arguments.extend([self.directory.clone().into(), "--state".into(), self.state().into()]);
        self.recipe(
            "control plane".to_owned(),
            &self.this_program,
            arguments,
            "control-plane",
        )
    }

    /// The application of a workload.
    pub(super) fn application(&self, workload: &Workload) -> Recipe {
        let (service, listen) = (workload.service.to_string(), workload.application.to_string());
        let mut arguments: Vec<OsString> = [
            "demo-service",
            &service,
            "--version",
            &workload.version,
            "--listen",
            &listen,
        ]
        .map(Into::into)
        .into();
        for (called, outbound) in calls(workload.service)
            .iter()
            .zip(workload.outbound.into_iter().cycle())
        {
            arguments.extend(["--call".into(), format!("{called}={outbound}").into()]);
        }
        let log = format!("application-{}", workload.name);
        self.recipe(
            format!("application {}", workload.name),
            &self.this_program,
            arguments,
            &log,
        )
    }

    /// The `topsail` arguments that generate the bootstrap of a workload's sidecar.
    pub(super) fn bootstrap(&self, workload: &Workload) -> Vec<OsString> {
        let (name, ip, xds) = (workload.name.to_string(), workload.ip.to_string(), self.xds.to_string());
        let (account, port) = (workload.account.to_string(), SIDECAR_ADMIN.to_string());
        let texts = [
            "bootstrap",
            "--mode",
            "NONE",
            "--workload",
            &name,
            "--service-account",
            &account,
            "--ip",
            &ip,
        ];
        let more = ["--admin-port", &port, "--server", &xds, "--state"];
        texts
            .into_iter()
            .chain(more)
            .map(OsString::from)
            .chain([self.state().into()])
            .collect()
    }

    /// Path of that bootstrap.
    pub(super) fn bootstrap_file(&self, workload: &Workload) -> PathBuf {
        self.folder.join(format!("{}.yaml", workload.name))
    }

    /// The sidecar of a workload.
    pub(super) fn sidecar(&self, workload: &Workload, program: &Program) -> Recipe {
        let log = format!("sidecar-{}", workload.name);
        let launch = Launch {
            program: program.clone(),
            bootstrap: self.bootstrap_file(workload),
            admin: sidecar_admin(workload),
            log: self.log(&log),
            reject_unknown_fields: false,
            user: None,
        };
        let name = format!("sidecar of {}", workload.name);
        self.recipe(name, program.path(), launch.arguments(), &log)
    }

    /// Directory of the logs.
    pub(super) fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    /// Inbound listener of `productpage`.
    pub(super) fn page(&self) -> Option<SocketAddr> {
        let page = self
            .workloads
            .iter()
            .find(|workload| workload.service == Service::Productpage)?;
        Some(page.inbound)
    }

    fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    fn recipe(&self, name: String, program: &Path, arguments: Vec<OsString>, log: &str) -> Recipe {
        Recipe {
            name,
            program: program.to_owned(),
            arguments,
            log: self.log(log),
        }
    }
}

/// Admin address of a workload's sidecar.
pub(super) fn sidecar_admin(workload: &Workload) -> SocketAddr {
    SocketAddr::new(workload.ip, SIDECAR_ADMIN)
}

/// The services that a service may call.
fn calls(service: Service) -> &'static [Service] {
    match service {
        Service::Productpage => &[Service::Details, Service::Reviews, Service::Ratings],
        Service::Reviews => &[Service::Ratings],
        Service::Details | Service::Ratings => &[],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::workloads;
    use super::*;

    fn setup() -> Setup {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bookinfo/config");
        Setup {
            this_program: "/bin/topsail".into(),
            folder: "/tmp/demo".into(),
            workloads: workloads::read(&directory).unwrap(),
            directory: "config".into(),
            xds: "127.0.0.1:15012".parse().unwrap(),
            admin: "127.0.0.1:15014".parse().unwrap(),
        }
    }

    fn words(arguments: &[OsString]) -> String {
        arguments
            .iter()
            .map(|argument| argument.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn addresses_are_unique_and_have_a_purpose() {
        let wanted = setup().wanted();
        let addresses: BTreeSet<SocketAddr> = wanted.iter().map(|wanted| wanted.address).collect();
        // Two of the control plane, five of each of six workloads, and three outbound listeners.
        assert_eq!((wanted.len(), addresses.len()), (2 + 6 * 5 + 3, 2 + 6 * 5 + 3));
        let purpose = |address: &str| {
            wanted
                .iter()
                .find(|wanted| wanted.address == address.parse().unwrap())
                .map(|wanted| wanted.purpose.as_str())
        };
        assert_eq!(
            purpose("127.0.11.4:9080"),
            Some("sidecar of reviews-v2.default, outbound")
        );
        assert_eq!(
            purpose("127.0.10.4:15090"),
            Some("sidecar of reviews-v2.default, metrics")
        );
        assert_eq!(purpose("127.0.0.1:15014"), Some("control plane, admin"));
    }

    #[test]
    fn processes_have_valid_arguments() {
        let setup = setup();
        let (page, reviews) = (&setup.workloads[0], &setup.workloads[3]);
        assert_eq!(
            words(&setup.control_plane().arguments),
            "serve --xds 127.0.0.1:15012 --admin 127.0.0.1:15014 --config config --state /tmp/demo/state"
        );
        assert_eq!(
            words(&setup.application(reviews).arguments),
            "demo-service reviews --version v2 --listen 127.0.0.1:19084 --call ratings=127.0.11.4:9080"
        );
        assert_eq!(
            words(&setup.application(page).arguments)
                .matches("=127.0.11.1:9080")
                .count(),
            3
        );
        assert_eq!(
            words(&setup.bootstrap(reviews)),
            "bootstrap --mode NONE --workload reviews-v2.default --service-account bookinfo-reviews --ip 127.0.10.4 \
             --admin-port 15000 --server 127.0.0.1:15012 --state /tmp/demo/state"
        );
        let sidecar = setup.sidecar(reviews, &Program::Envoy("/bin/envoy".into()));
        assert_eq!(sidecar.log, Path::new("/tmp/demo/logs/sidecar-reviews-v2.default.log"));
        assert!(words(&sidecar.arguments).contains("-c /tmp/demo/reviews-v2.default.yaml"));
        let sidecar = setup.sidecar(reviews, &Program::Topsail("/bin/topsail".into()));
        assert_eq!(
            words(&sidecar.arguments),
            "proxy --bootstrap /tmp/demo/reviews-v2.default.yaml --concurrency 1 --log-level warn"
        );
        assert_eq!(setup.page(), Some("127.0.10.1:9080".parse().unwrap()));
    }
}
