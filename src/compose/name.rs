//! Names of services in compose files and of the corresponding mesh objects.

use crate::name::is_dns_label;

/// Service name of the control plane.
pub(super) const SERVER: &str = "topsail";
/// Service name of the one-shot container that creates tokens.
pub(super) const INIT: &str = "topsail-init";

/// Service name of a sidecar.
pub(super) fn sidecar(service: &str) -> String {
    format!("{service}-sidecar")
}

/// Service name of a pod.
pub(super) fn pod(service: &str) -> String {
    format!("{service}-pod")
}

/// Maximum length: the name of a group member has its address appended, up to 40 characters.
const MAX_LEN: usize = 63 - 40;

/// The name of a service's objects, which must be valid in Kubernetes. Compose also allows `_`, `.`
/// and capital letters.
///
/// # Errors
///
/// Why the name is invalid.
pub(super) fn object(service: &str) -> Result<String, String> {
    let name = service.to_ascii_lowercase().replace(['_', '.'], "-");
    let name = name.trim_matches('-').to_owned();
    if name.len() > MAX_LEN {
        return Err(format!("it has more than {MAX_LEN} characters"));
    }
    match is_dns_label(&name) {
        true => Ok(name),
        false => Err("letters, digits, `-`, `_` and `.` are allowed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_compose_become_names_of_objects() {
        for (service, name) in [("web", "web"), ("My_DB.1", "my-db-1"), ("_x_", "x")] {
            assert_eq!(object(service).as_deref(), Ok(name));
        }
        for wrong in ["", "_", "ü", "a b", &"a".repeat(24)] {
            assert!(object(wrong).is_err(), "{wrong}");
        }
    }
}
