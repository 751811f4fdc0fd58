//! Summary of an injection, as text or JSON.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::version::{Compose, Known};
use super::write::Done;
use crate::compose::{ListenPort, Plan, Planned, Version};

/// The data to summarize.
pub(super) struct Summary<'a> {
    pub(super) plan: &'a Plan,
    pub(super) compose: Compose,
    pub(super) files: &'a [Done],
    /// The command that starts the project.
    pub(super) start: String,
}

impl Summary<'_> {
    /// Writes the summary as text.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for planned in &self.plan.meshed {
            writeln!(out, "{}", line(planned))?;
        }
        for name in &self.plan.left_alone {
            writeln!(out, "{name}: not injected")?;
        }
        writeln!(out, "{}", self.mutual_tls())?;
        writeln!(out, "{}", self.pods())?;
        for file in self.files {
            writeln!(out, "{}: {}", file.path.display(), file.change.word())?;
        }
        writeln!(out, "start with: {}", self.start)
    }

    /// The summary as JSON.
    pub(super) fn json(&self) -> Value {
        let services = self.plan.meshed.iter().map(service);
        let left_alone = self
            .plan
            .left_alone
            .iter()
            .map(|name| json!({"name": name, "sidecar": null}));
        json!({
            "compose": {
                "command": self.compose.command,
                "version": self.compose.version().map(|version| version.to_string()),
                "known": match self.compose.known {
                    Known::Given(_) => "told",
                    Known::Installed(_) => "installed",
                    Known::Unknown => "unknown",
                },
                "takesBack": self.plan.takes_back,
            },
            "services": services.chain(left_alone).collect::<Vec<_>>(),
            "files": self.files.iter().map(Done::json).collect::<Vec<_>>(),
            "start": self.start,
        })
    }

    fn mutual_tls(&self) -> &'static str {
        let mut ports = self
            .plan
            .meshed
            .iter()
            .flat_map(|planned| planned.ports.iter().map(move |port| (planned, port)));
        let any_permissive = self.plan.meshed.iter().any(|planned| planned.permissive);
        match any_permissive || ports.any(|(planned, port)| takes_plaintext(planned, port)) {
            true => "sidecars require mutual TLS; ports marked (plaintext too) also accept clients without a sidecar",
            false => "all ports require mutual TLS",
        }
    }

    /// Explains the start order.
    fn pods(&self) -> String {
        let compose = self.compose.display();
        if self.plan.meshed.iter().all(|planned| planned.pod.is_ok()) {
            return format!(
                "for {compose}: every service runs in its pod's network and starts when its sidecar is ready"
            );
        }
        let first = Version::TAKES_BACK;
        let why = match self.plan.takes_back {
            true => String::new(),
            false => format!(", which cannot reset settings of the project's files (Compose {first} and later can)"),
        };
        format!(
            "for {compose}{why}: a service without a pod starts before its sidecar, and what it sends until then is not \
             intercepted"
        )
    }
}

fn takes_plaintext(planned: &Planned, port: &ListenPort) -> bool {
    port.published || planned.permissive
}

/// For example `web: pod web-pod, sidecar web-sidecar, 8080 auto (plaintext too)`.
fn line(planned: &Planned) -> String {
    let ports: Vec<String> = planned
        .ports
        .iter()
        .map(|port| {
            let mark = match takes_plaintext(planned, port) {
                true => " (plaintext too)",
                false => "",
            };
            format!("{} {}{mark}", port.number, port.protocol)
        })
        .collect();
    let ports = match ports.is_empty() {
        true => "no ports".to_owned(),
        false => ports.join(", "),
    };
    let pod = match &planned.pod {
        Ok(pod) => format!("pod {}", pod.name),
        Err(why) => format!("no pod ({why})"),
    };
    format!("{}: {pod}, sidecar {}, {ports}", planned.service, planned.sidecar)
}

fn service(planned: &Planned) -> Value {
    let ports = planned.ports.iter().map(|port| {
        json!({
            "port": port.number,
            "protocol": port.protocol,
            "plaintext": takes_plaintext(planned, port),
        })
    });
    json!({
        "name": planned.service,
        "object": planned.object,
        "sidecar": planned.sidecar,
        "pod": planned.pod.as_ref().ok().map(|pod| &pod.name),
        "withoutPod": planned.pod.as_ref().err(),
        "ports": ports.collect::<Vec<_>>(),
    })
}
