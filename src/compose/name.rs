//! Names: of services in compose and of the objects that stand for them in the mesh.

use crate::name::is_dns_label;

/// The control plane's service.
pub(super) const SERVER: &str = "topsail";
/// The service that makes what sidecars join with, and ends.
pub(super) const INIT: &str = "topsail-init";

/// The service that is the sidecar of another.
pub(super) fn sidecar(service: &str) -> String {
    format!("{service}-sidecar")
}

/// The service that holds the network of another.
pub(super) fn pod(service: &str) -> String {
    format!("{service}-pod")
}

/// The longest name: a member's has its address after it, of up to 40 characters.
const MAX_LEN: usize = 63 - 40;

/// The name of a service's objects: what Kubernetes takes for one. Compose allows `_`, `.` and capital letters, too.
///
/// # Errors
/// What is wrong with it.
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
