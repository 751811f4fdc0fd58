//! `/certs`: certificates and trusted roots in use.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::answer::Answer;
use crate::proxy::slot::Slot;
use crate::proxy::store::Published;
use crate::proxy::tls::{Certificate, TrustAnchors, Verification};

/// The secrets of a TLS context.
#[derive(Clone, Debug, Default)]
pub(super) struct Secrets {
    /// Our certificate.
    pub(super) certificate: Option<Arc<Slot<Certificate>>>,
    /// What the peer is verified with.
    pub(super) trust: Option<Arc<Slot<TrustAnchors>>>,
}

impl Secrets {
    fn new(certificate: Option<&Arc<Slot<Certificate>>>, verification: &Verification) -> Self {
        Self {
            certificate: certificate.cloned(),
            trust: verification.trust.clone(),
        }
    }

    fn is(&self, other: &Self) -> bool {
        let of = |secrets: &Self| {
            let certificate = secrets.certificate.as_ref().map(|slot| Arc::as_ptr(slot).addr());
            (certificate, secrets.trust.as_ref().map(|slot| Arc::as_ptr(slot).addr()))
        };
        of(self) == of(other)
    }
}

/// The secrets of all TLS contexts in force, without duplicates.
pub(super) fn secrets(published: &Published) -> Vec<Secrets> {
    let mut all: Vec<Secrets> = Vec::new();
    let mut add = |one: Secrets| {
        if !all.iter().any(|other| other.is(&one)) {
            all.push(one);
        }
    };
    let mut listeners: Vec<_> = published.listeners.values().collect();
    listeners.sort_by(|a, b| a.name.cmp(&b.name));
    for chain in listeners.iter().flat_map(|one| one.filter_chains()) {
        if let Some(tls) = &chain.tls {
            add(Secrets::new(Some(&tls.certificate), &tls.verification));
        }
    }
    let mut clusters: Vec<_> = published
        .clusters
        .values()
        .filter_map(|slot| slot.load_full())
        .collect();
    clusters.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    for config in clusters.iter().map(|one| &one.config) {
        let special = config.transports.iter().map(|one| &one.transport);
        for transport in special.chain([&config.transport]) {
            if let Some(tls) = &transport.tls {
                add(Secrets::new(tls.certificate.as_ref(), &tls.verification));
            }
        }
    }
    all
}

/// `envoy.admin.v3.Certificates`.
pub(super) fn answer(published: &Published) -> Answer {
    let now = SystemTime::now();
    let all: Vec<_> = secrets(published).iter().filter_map(|one| pair(one, now)).collect();
    if all.is_empty() {
        return Answer::pretty(&json!({}));
    }
    Answer::pretty(&json!({"certificates": all}))
}

/// Days until the first certificate in force expires, roots included (`server.days_until_first_cert_expiring`); without
/// any, the maximum that Envoy shows.
pub(crate) fn days_left(published: &Published) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64);
    let days = |der: &[u8]| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let left = certificate.validity().not_after.timestamp().saturating_sub(now).max(0);
        u64::try_from(left / 86_400).ok()
    };
    let of = |secrets: &Secrets| {
        let trust = secrets.trust.as_ref().and_then(|slot| slot.load_full());
        let own = secrets.certificate.as_ref().and_then(|slot| slot.load_full());
        let roots = trust
            .iter()
            .flat_map(|trust| &trust.roots)
            .filter_map(|root| days(root))
            .min();
        let leaf = own.and_then(|own| own.key.cert.first().and_then(|leaf| days(leaf)));
        roots.into_iter().chain(leaf).min()
    };
    let first = secrets(published).iter().filter_map(of).min();
    first.unwrap_or(u32::MAX.into())
}

fn pair(secrets: &Secrets, now: SystemTime) -> Option<Value> {
    let mut shown = json!({});
    if let Some(trust) = secrets.trust.as_ref().and_then(|slot| slot.load_full()) {
        let roots = trust.roots.iter();
        shown["ca_cert"] = roots.filter_map(|root| details(root, now)).collect();
    }
    if let Some(certificate) = secrets.certificate.as_ref().and_then(|slot| slot.load_full()) {
        // As in Envoy, the first certificate of a chain.
        let own = certificate.key.cert.first();
        shown["cert_chain"] = own.and_then(|own| details(own, now)).into_iter().collect();
    }
    shown
        .as_object()
        .is_some_and(|shown| !shown.is_empty())
        .then_some(shown)
}

/// `envoy.admin.v3.CertificateDetails`.
fn details(der: &[u8], now: SystemTime) -> Option<Value> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    let left = validity.not_after.timestamp().saturating_sub(seconds).max(0) / 86_400;
    let mut details = json!({
        "path": "<inline>",
        "serial_number": serial(certificate.raw_serial()),
        "subject_alt_names": names(&certificate),
        "days_until_expiration": left.to_string(),
        "valid_from": rfc3339(validity.not_before.timestamp()),
        "expiration_time": rfc3339(validity.not_after.timestamp()),
    });
    if let (Some(details), true) = (details.as_object_mut(), left == 0) {
        details.remove("days_until_expiration");
    }
    Some(details)
}

/// In hex, without the leading zero byte of DER.
fn serial(raw: &[u8]) -> String {
    let digits = match raw {
        [0, rest @ ..] if !rest.is_empty() => rest,
        raw => raw,
    };
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn names(certificate: &X509Certificate<'_>) -> Value {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.iter().flat_map(|extension| &extension.value.general_names);
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(json!({"dns": name})),
        GeneralName::URI(name) => Some(json!({"uri": name})),
        GeneralName::IPAddress(bytes) => ip(bytes).map(|ip| json!({"ip_address": ip})),
        _ => None,
    };
    names.filter_map(name).collect()
}

fn ip(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(std::net::IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).map(std::net::IpAddr::from);
    v4.or(v6).ok().map(|ip| ip.to_string())
}

fn rfc3339(seconds: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(seconds).ok()?.format(&Rfc3339).ok()
}
