//! The bootstrap file, which is Envoy's.

use std::path::Path;

use prost::{Message, Name};

use crate::xds::pb::bootstrap::Bootstrap;
use crate::xds::transcode::{self, Fault};

/// Why a bootstrap, or a file that it names, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The file cannot be read.
    #[error("`{0}` cannot be read: {1}")]
    Unreadable(String, std::io::Error),
    /// It is neither YAML nor JSON.
    #[error("`{0}` is no YAML: {1}")]
    NoYaml(String, Box<serde_saphyr::Error>),
    /// It is not the message it should be.
    #[error("`{0}` is no `{1}`: {2}")]
    NoMessage(String, String, Fault),
}

/// Reads a bootstrap, YAML or JSON.
///
/// # Errors
/// When there is none in the file.
pub(crate) fn read(path: &Path) -> Result<Bootstrap, BootstrapError> {
    read_message(path)
}

/// Reads a message in its JSON form from a file, YAML or JSON.
///
/// # Errors
/// When there is none in the file.
pub(crate) fn read_message<M: Message + Name + Default>(path: &Path) -> Result<M, BootstrapError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| BootstrapError::Unreadable(name.clone(), error))?;
    parse(&name, &text)
}

/// Reads a message in its JSON form, of the file `name`.
///
/// # Errors
/// When the text is none.
pub(super) fn parse<M: Message + Name + Default>(name: &str, text: &str) -> Result<M, BootstrapError> {
    // As in Envoy, `y` and `on` are texts: a cluster may be called so.
    let options = serde_saphyr::options! { strict_booleans: true };
    let value: serde_json::Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| BootstrapError::NoYaml(name.to_owned(), Box::new(error)))?;
    let wrong = |fault| BootstrapError::NoMessage(name.to_owned(), M::full_name(), fault);
    let wire = transcode::to_wire(&M::full_name(), &value).map_err(wrong)?;
    M::decode(&wire[..]).map_err(|error| {
        wrong(Fault {
            path: String::new(),
            why: error.to_string(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_old_yaml_takes_for_truth_values_stay_names() {
        let text = "static_resources:\n  clusters:\n  - name: y\n  - name: off\n";
        let bootstrap: Bootstrap = parse("x", text).unwrap();
        let names = bootstrap.static_resources.unwrap().clusters;
        assert_eq!(names.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["y", "off"]);
    }

    #[test]
    fn an_error_names_the_field() {
        let error = parse::<Bootstrap>("b.yaml", "admin: {address: {socket_address: {port: 1}}}").unwrap_err();
        let expected = "`b.yaml` is no `envoy.config.bootstrap.v3.Bootstrap`: `admin.address.socket_address.port`: there is no such field";
        assert_eq!(error.to_string(), expected);
    }
}
