//! Protocol versions, cipher suites and key exchange groups, by OpenSSL's names.

use std::sync::{Arc, LazyLock};

use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{CipherSuite, NamedGroup, ProtocolVersion, SupportedCipherSuite, SupportedProtocolVersion};

/// TLS versions, newest first.
static VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// TLS 1.3 suites, which cannot be configured. AES-128 comes first, as in BoringSSL: it is the fastest.
static TLS13: [SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// TLS 1.2 suites, in the default order of preference.
static TLS12: [(&str, SupportedCipherSuite); 6] = [
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// Key exchange groups.
static GROUPS: [(&str, &dyn SupportedKxGroup); 4] = [
    ("X25519", kx_group::X25519),
    ("P-256", kx_group::SECP256R1),
    ("P-384", kx_group::SECP384R1),
    ("X25519MLKEM768", kx_group::X25519MLKEM768),
];

static DEFAULT: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let tls12 = TLS12.iter().map(|(_, suite)| *suite);
    Arc::new(CryptoProvider {
        cipher_suites: TLS13.into_iter().chain(tls12).collect(),
        ..default_provider()
    })
});

/// The default cryptography.
pub(super) fn provider() -> &'static Arc<CryptoProvider> {
    &DEFAULT
}

/// Versions, suites and groups in use (`TlsParameters`).
#[derive(Clone, Debug)]
pub(crate) struct Protocols {
    pub(super) versions: &'static [&'static SupportedProtocolVersion],
    pub(super) provider: Arc<CryptoProvider>,
}

impl Default for Protocols {
    fn default() -> Self {
        Self {
            versions: &VERSIONS,
            provider: provider().clone(),
        }
    }
}

impl Protocols {
    /// The cryptography that loads keys.
    pub(crate) fn provider() -> &'static CryptoProvider {
        provider()
    }

    /// The versions `from` to `to` (2: TLS 1.2, 3: TLS 1.3) with these TLS 1.2 suites and groups; empty: the defaults.
    /// `[a|b]`, which lets BoringSSL choose, counts as `a` then `b`. Unknown names are ignored: a peer that insists on
    /// one cannot connect.
    ///
    /// # Errors
    /// If nothing is left.
    pub(crate) fn new(from: u8, to: u8, suites: &[String], groups: &[String]) -> Result<Self, String> {
        let versions = match (from, to) {
            (2, 3) => &VERSIONS[..],
            (3, 3) => &VERSIONS[..1],
            (2, 2) => &VERSIONS[1..],
            _ => return Err("the minimum version is above the maximum".to_owned()),
        };
        if suites.is_empty() && groups.is_empty() {
            return Ok(Self {
                versions,
                ..Self::default()
            });
        }
        let mut provider = CryptoProvider::clone(provider());
        if !suites.is_empty() {
            let wanted: Vec<_> = suites.iter().flat_map(|name| alternatives(name)).collect();
            let known: Vec<_> = wanted.iter().filter_map(|name| named(&TLS12, name)).collect();
            if known.is_empty() {
                return Err(format!(
                    "none of the cipher suites {} is implemented",
                    wanted.join(", ")
                ));
            }
            provider.cipher_suites = TLS13.into_iter().chain(known).collect();
        }
        if !groups.is_empty() {
            provider.kx_groups = groups.iter().filter_map(|name| named(&GROUPS, name)).collect();
            if provider.kx_groups.is_empty() {
                return Err(format!("none of the groups {} is implemented", groups.join(", ")));
            }
        }
        Ok(Self {
            versions,
            provider: Arc::new(provider),
        })
    }
}

fn alternatives(name: &str) -> impl Iterator<Item = &str> {
    name.trim_matches(['[', ']']).split('|')
}

fn named<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// The OpenSSL name of a suite; empty if it is unsupported.
pub(super) fn suite_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => {
            let found = TLS12.iter().find(|(_, suite)| suite.suite() == other);
            found.map_or("", |(name, _)| name)
        }
    }
}

/// The number of suites.
pub(super) const SUITES: usize = TLS13.len() + TLS12.len();

/// The number of groups.
pub(super) const GROUPS_LEN: usize = GROUPS.len();

/// The index of a suite.
pub(super) fn suite_place(suite: CipherSuite) -> Option<usize> {
    let all = TLS13.iter().chain(TLS12.iter().map(|(_, suite)| suite));
    all.map(SupportedCipherSuite::suite).position(|one| one == suite)
}

/// The names of all suites, by index.
pub(super) fn suite_names() -> impl Iterator<Item = &'static str> {
    let all = TLS13.iter().chain(TLS12.iter().map(|(_, suite)| suite));
    all.map(|suite| suite_name(suite.suite()))
}

/// The index of a group.
pub(super) fn group_place(group: NamedGroup) -> Option<usize> {
    GROUPS.iter().position(|(_, one)| one.name() == group)
}

/// The OpenSSL name of a group; empty if it is unsupported.
pub(super) fn group_name(group: NamedGroup) -> &'static str {
    let found = GROUPS.iter().find(|(_, one)| one.name() == group);
    found.map_or("", |(name, _)| name)
}

/// The names of all groups, by index.
pub(super) fn group_names() -> impl Iterator<Item = &'static str> {
    GROUPS.iter().map(|(name, _)| *name)
}

/// OpenSSL's and Envoy's name of a version.
pub(super) fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn suites_that_are_not_known_are_left_out_if_others_remain() {
        let suites = strings(&[
            "[ECDHE-RSA-CHACHA20-POLY1305|ECDHE-RSA-AES256-GCM-SHA384]",
            "AES128-GCM-SHA256",
        ]);
        let protocols = Protocols::new(2, 3, &suites, &strings(&["P-256", "P-521"])).unwrap();
        let names: Vec<_> = protocols.provider.cipher_suites[3..]
            .iter()
            .map(|suite| suite_name(suite.suite()))
            .collect();
        assert_eq!(names, ["ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-RSA-AES256-GCM-SHA384"]);
        assert_eq!(protocols.provider.kx_groups.len(), 1);
        let error = Protocols::new(2, 3, &strings(&["AES128-GCM-SHA256"]), &[]).unwrap_err();
        assert_eq!(error, "none of the cipher suites AES128-GCM-SHA256 is implemented");
        assert!(Protocols::new(3, 2, &[], &[]).is_err());
    }

    #[test]
    fn the_usual_suites_are_one_object() {
        let (one, other) = (Protocols::default(), Protocols::new(3, 3, &[], &[]).unwrap());
        assert!(Arc::ptr_eq(&one.provider, &other.provider));
        assert_eq!(one.versions.len(), 2);
        assert_eq!(other.versions, [&rustls::version::TLS13]);
    }
}
