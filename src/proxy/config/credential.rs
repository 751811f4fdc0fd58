//! Request headers for xDS streams.
//!
//! Files are read each time, so that a renewed token is used from the next stream on.

use std::path::Path;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use prost::{Message, Name};

use super::bootstrap::{BootstrapError, read_message};
use super::server::HeaderStep;
use super::{Refusal, check};
use crate::xds::pb::core::{DataSource, data_source::Specifier};
use crate::xds::pb::discovery::DiscoveryResponse;
use crate::xds::pb::tls::{GenericSecret, Secret, secret};

/// Why there is no credential.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    /// The file with the secret resource cannot be used.
    #[error(transparent)]
    Resource(#[from] BootstrapError),
    /// The resource violates Envoy's validation rules.
    #[error("`{0}` is rejected: {1}")]
    Refused(String, Refusal),
    /// The file with the secret itself cannot be read.
    #[error("cannot read `{0}`: {1}")]
    Unreadable(String, std::io::Error),
    /// The resource is not a generic secret.
    #[error("`{0}` contains no generic secret")]
    NoSecret(String),
    /// The value is not a valid header value.
    #[error("invalid value for the header `{0}`")]
    NoHeader(HeaderName),
}

/// Builds the headers: the source's initial metadata, changed by the cluster's HTTP filters.
///
/// # Errors
/// If a credential cannot be obtained.
pub(crate) fn headers(
    metadata: &[(HeaderName, HeaderValue)],
    steps: &[HeaderStep],
) -> Result<HeaderMap, CredentialError> {
    let mut headers = HeaderMap::new();
    for (name, value) in metadata {
        headers.insert(name, value.clone());
    }
    for step in steps {
        match step {
            HeaderStep::Remove(name) => drop(headers.remove(name)),
            HeaderStep::Set(name, format) => {
                let value = expand(format, &headers);
                put(&mut headers, name, &value)?;
            }
            HeaderStep::Secret(name, prefix, file) => {
                let value = format!("{prefix}{}", read_secret(file)?);
                put(&mut headers, name, &value)?;
            }
        }
    }
    Ok(headers)
}

fn put(headers: &mut HeaderMap, name: &HeaderName, value: &str) -> Result<(), CredentialError> {
    let mut value = HeaderValue::from_str(value).map_err(|_| CredentialError::NoHeader(name.clone()))?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

/// Substitutes headers for `%REQ(name)%`.
fn expand(format: &str, headers: &HeaderMap) -> String {
    let mut out = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once("%REQ(") {
        let Some((name, after)) = after.split_once(")%") else {
            break;
        };
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        out += before;
        out += value.unwrap_or_default();
        rest = after;
    }
    out + rest
}

fn read_secret(file: &Path) -> Result<String, CredentialError> {
    let none = || CredentialError::NoSecret(file.display().to_string());
    let response: DiscoveryResponse = read_message(file)?;
    check::rules_of(&DiscoveryResponse::type_url(), &response.encode_to_vec())
        .map_err(|refusal| CredentialError::Refused(file.display().to_string(), refusal))?;
    let any = response.resources.first().ok_or_else(none)?;
    let secret = Secret::decode(&any.value[..]).map_err(|_| none())?;
    let Some(secret::Type::GenericSecret(GenericSecret {
        secret: Some(source), ..
    })) = secret.r#type
    else {
        return Err(none());
    };
    read_source(source).and_then(|text| text.ok_or_else(none))
}

fn read_source(source: DataSource) -> Result<Option<String>, CredentialError> {
    match source.specifier {
        Some(Specifier::InlineString(text)) => Ok(Some(text)),
        Some(Specifier::Filename(file)) => match std::fs::read_to_string(&file) {
            Ok(text) => Ok(Some(text.trim_end().to_owned())),
            Err(error) => Err(CredentialError::Unreadable(file, error)),
        },
        Some(Specifier::InlineBytes(_) | Specifier::EnvironmentVariable(_)) | None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_that_breaks_a_rule_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let resource = dir.path().join("secret.json");
        let document = serde_json::json!({"resources": [{
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "generic_secret": {"secret": {"filename": ""}},
        }]});
        std::fs::write(&resource, document.to_string()).unwrap();
        let steps = [HeaderStep::Secret(
            HeaderName::from_static("x-token"),
            String::new(),
            resource.clone(),
        )];
        assert_eq!(
            headers(&[], &steps).unwrap_err().to_string(),
            format!(
                "`{}` is rejected: resources[0].generic_secret.secret.filename: must have at least 1 character(s)",
                resource.display()
            )
        );
    }

    #[test]
    fn a_token_travels_from_its_file_into_the_header_and_a_renewed_one_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (resource, token) = (dir.path().join("secret.json"), dir.path().join("token"));
        let document = serde_json::json!({"resources": [{
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "name": "t",
            "generic_secret": {"secret": {"filename": token}},
        }]});
        std::fs::write(&resource, document.to_string()).unwrap();
        let x = HeaderName::from_static("x-token");
        let steps = [
            HeaderStep::Secret(x.clone(), String::new(), resource),
            HeaderStep::Set(http::header::AUTHORIZATION, "Bearer %REQ(x-token)%".to_owned()),
            HeaderStep::Remove(x),
        ];
        assert!(matches!(headers(&[], &steps), Err(CredentialError::Unreadable(..))));
        for text in ["first", "second"] {
            std::fs::write(&token, format!("{text}\n")).unwrap();
            let metadata = [(HeaderName::from_static("x-own"), HeaderValue::from_static("own"))];
            let headers = headers(&metadata, &steps).unwrap();
            assert_eq!((headers.len(), &headers["x-own"]), (2, &metadata[0].1));
            assert_eq!(headers[http::header::AUTHORIZATION], format!("Bearer {text}"));
        }
    }
}
