//! Queries the Docker engine about images.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

/// The TCP ports that an image exposes; `None` if there is no engine or it does not have the image.
pub(super) fn exposed_ports(image: &str) -> Option<Vec<u16>> {
    let output = Command::new("docker")
        .args([
            "image",
            "inspect",
            "--format",
            "{{json .Config.ExposedPorts}}",
            "--",
            image,
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output.status.success().then(|| ports(&output.stdout))
}

/// Parses `ExposedPorts`: `{"80/tcp": {}}` or `null`.
fn ports(json: &[u8]) -> Vec<u16> {
    let exposed: Option<BTreeMap<String, serde_json::Value>> = serde_json::from_slice(json).unwrap_or_default();
    let names = exposed.into_iter().flatten().map(|(name, _)| name);
    let mut ports: Vec<u16> = names
        .filter_map(|name| name.strip_suffix("/tcp")?.parse().ok())
        .collect();
    ports.sort_unstable();
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_ports_are_sorted() {
        assert_eq!(ports(br#"{"8080/tcp":{},"80/tcp":{},"53/udp":{}}"#), [80, 8080]);
        assert!(ports(b"null\n").is_empty());
        assert!(ports(b"?").is_empty());
    }
}
