//! Join tokens, which authenticate a proxy that has no certificate yet.
//!
//! A token is a JWT signed with ES256 by a dedicated key in the state directory (`token-key.pem`);
//! deleting that file and restarting the server revokes all tokens. The token has everything its
//! bearer may be, i.e. name, service account, labels and addresses, so node metadata cannot widen
//! it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};

use super::issue::random_serial;
use super::{SignError, StateDir, StateError, ca, calendar};
use crate::name::{InvalidName, Namespace, ServiceAccount, SpiffeId, TrustDomain, WorkloadName};

/// Audience (`aud`) of join tokens.
const AUDIENCE: &str = "topsail-xds";
const KEY_FILE: &str = "token-key.pem";
/// Maximum lifetime of a token, that of the root certificate.
const MAX_TTL: Duration = Duration::from_secs(3650 * 24 * 3600);

/// What a token authorizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenGrant {
    /// The workload or group it is for.
    pub bearer: Bearer,
    /// Service account; that of a WorkloadGroup takes precedence.
    pub service_account: ServiceAccount,
    /// Labels; used only without a WorkloadEntry or WorkloadGroup of the same name.
    pub labels: BTreeMap<String, String>,
}

/// The workload or group a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bearer {
    /// One workload.
    Workload {
        /// Its name.
        name: WorkloadName,
        /// Addresses; used only without a WorkloadEntry of the same name.
        addresses: Vec<IpAddr>,
    },
    /// Any member of a WorkloadGroup, at any address; bearers are registered automatically.
    Group(WorkloadName),
}

impl Bearer {
    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        match self {
            Bearer::Workload { name, .. } | Bearer::Group(name) => &name.namespace,
        }
    }
}

impl std::fmt::Display for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bearer::Workload { name, .. } => write!(f, "{name}"),
            Bearer::Group(name) => write!(f, "the members of the group {name}"),
        }
    }
}

/// The claims of a verified token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenClaims {
    /// What the token authorizes.
    pub grant: TokenGrant,
    /// The trust domain it is for.
    pub trust_domain: TrustDomain,
    /// Time of issue (`iat`).
    pub issued_at: SystemTime,
    /// Expiry (`exp`).
    pub expires_at: SystemTime,
    /// Token id (`jti`), for logs.
    pub id: String,
}

impl TokenClaims {
    /// Reads the claims of a token *without verification*, for its bearer, who only needs to know
    /// its own identity.
    ///
    /// # Errors
    ///
    /// If it is not a join token, whoever signed it.
    pub fn told_to_bearer(token: &str) -> Result<Self, TokenError> {
        let malformed = |why: &dyn std::fmt::Display| TokenError::Malformed(why.to_string());
        let mut parts = token.split('.');
        let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(malformed(&"it does not have the three parts of a JWT"));
        };
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|e| malformed(&e))?;
        let claims: Claims = serde_json::from_slice(&payload).map_err(|e| malformed(&e))?;
        if claims.aud != AUDIENCE {
            return Err(TokenError::WrongAudience(claims.aud));
        }
        let trust_domain = claims.iss.parse().map_err(|e: InvalidName| malformed(&e))?;
        claims.validated(&trust_domain)
    }

    /// Its total lifetime.
    pub fn lifetime(&self) -> Duration {
        self.expires_at.duration_since(self.issued_at).unwrap_or_default()
    }

    /// Whether it has passed half of its lifetime.
    pub fn is_half_over(&self, now: SystemTime) -> bool {
        self.issued_at + self.lifetime() / 2 <= now
    }

    /// The SPIFFE ID for which the bearer may get a certificate.
    pub fn identity(&self) -> SpiffeId {
        SpiffeId {
            trust_domain: self.trust_domain.clone(),
            namespace: self.grant.bearer.namespace().clone(),
            service_account: self.grant.service_account.clone(),
        }
    }
}

/// Why a token is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a join token.
    #[error("the token is malformed: {0}")]
    Malformed(String),
    /// The signature is invalid: the token was altered, or signed with another key.
    #[error(
        "the token was not signed by this server or has been altered; create a new one with `topsail token create`"
    )]
    WrongSignature,
    /// The audience is wrong.
    #[error("the token has the audience `{0}`, expected {AUDIENCE}")]
    WrongAudience(String),
    /// The trust domain is another one.
    #[error("the token is for the trust domain `{token}`, not `{ours}`")]
    WrongTrustDomain {
        /// That of the token.
        token: String,
        /// That of the server.
        ours: TrustDomain,
    },
    /// It has expired.
    #[error("the token for {bearer} expired at {}; create a new one with `topsail token create`", calendar::display(*.since))]
    Expired {
        /// The workload or group it is for.
        bearer: Bearer,
        /// Time of expiry.
        since: SystemTime,
    },
}

/// Why the token key is unusable or a token cannot be issued.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    /// An error of the state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The key file is invalid.
    #[error("{KEY_FILE} in the state directory is not an ECDSA P-256 key ({0}): remove it to generate a new one")]
    Unusable(String),
    /// The lifetime is zero or exceeds ten years.
    #[error("invalid token lifetime of {} s: must be between 1 s and 3650 days", .0.as_secs())]
    Lifetime(Duration),
    /// Generating or signing failed.
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// Issues and verifies join tokens.
pub struct TokenSigner {
    trust_domain: TrustDomain,
    signing: EncodingKey,
    verifying: DecodingKey,
}

impl std::fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSigner")
            .field("trust_domain", &self.trust_domain)
            .finish_non_exhaustive()
    }
}

impl TokenSigner {
    /// Default lifetime of a token.
    pub const DEFAULT_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

    /// Loads the key, or creates it; safe to call from several processes at once.
    ///
    /// # Errors
    ///
    /// If the state directory fails or the key is invalid.
    pub fn load_or_create(state: &StateDir, trust_domain: &TrustDomain) -> Result<Self, TokenKeyError> {
        // The crate selects its crypto provider by Cargo features, which another dependency may
        // change, and panics if the choice is ambiguous. A provider installed earlier is fine as
        // well.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let pem = match state.read(KEY_FILE)? {
            Some(pem) => pem,
            None => new_key(state)?,
        };
        let unusable = |why: &dyn std::fmt::Display| TokenKeyError::Unusable(why.to_string());
        let key = ca::private_key(&pem).map_err(|e| unusable(&e))?;
        let pair = KeyPair::from_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256).map_err(|e| unusable(&e))?;
        Ok(Self {
            trust_domain: trust_domain.clone(),
            signing: EncodingKey::from_ec_pem(&pem).map_err(|e| unusable(&e))?,
            verifying: DecodingKey::from_ec_der(pair.public_key_raw()),
        })
    }

    /// Issues a token, valid from `now`.
    ///
    /// # Errors
    ///
    /// If the lifetime is invalid.
    pub fn create(&self, grant: &TokenGrant, ttl: Duration, now: SystemTime) -> Result<String, TokenKeyError> {
        if ttl < Duration::from_secs(1) || ttl > MAX_TTL {
            return Err(TokenKeyError::Lifetime(ttl));
        }
        let (workload, group, addresses) = match &grant.bearer {
            Bearer::Workload { name, addresses } => (Some(name.to_string()), None, addresses.clone()),
            Bearer::Group(name) => (None, Some(name.to_string()), Vec::new()),
        };
        let claims = Claims {
            iss: self.trust_domain.to_string(),
            aud: AUDIENCE.to_owned(),
            iat: calendar::unix_seconds(now),
            exp: calendar::unix_seconds(now + ttl),
            jti: random_serial()?.iter().map(|byte| format!("{byte:02x}")).collect(),
            workload,
            group,
            service_account: grant.service_account.to_string(),
            labels: grant.labels.clone(),
            addresses,
        };
        let header = Header::new(Algorithm::ES256);
        let token = jsonwebtoken::encode(&header, &claims, &self.signing);
        Ok(token.map_err(|e| SignError::from(e.to_string().as_str()))?)
    }

    /// Verifies a token and returns its claims.
    ///
    /// # Errors
    ///
    /// Why the token is rejected. Claims of a token with an invalid signature are not disclosed.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<TokenClaims, TokenError> {
        let claims = self.signed_claims(token)?;
        if claims.aud != AUDIENCE {
            return Err(TokenError::WrongAudience(claims.aud));
        }
        if claims.iss != self.trust_domain.as_str() {
            return Err(TokenError::WrongTrustDomain {
                token: claims.iss,
                ours: self.trust_domain.clone(),
            });
        }
        let claims = claims.validated(&self.trust_domain)?;
        if claims.expires_at <= now {
            return Err(TokenError::Expired {
                bearer: claims.grant.bearer,
                since: claims.expires_at,
            });
        }
        Ok(claims)
    }

    /// Verifies signature and format only. Times are checked by the caller, as the crate would use
    /// the system clock.
    fn signed_claims(&self, token: &str) -> Result<Claims, TokenError> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        match jsonwebtoken::decode(token, &self.verifying, &validation) {
            Ok(data) => Ok(data.claims),
            Err(error) => Err(match error.kind() {
                ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => TokenError::WrongSignature,
                _ => TokenError::Malformed(error.to_string()),
            }),
        }
    }
}

/// Creates the key unless another process has done so.
fn new_key(state: &StateDir) -> Result<Vec<u8>, TokenKeyError> {
    let lock = state.lock()?;
    if let Some(pem) = state.read(KEY_FILE)? {
        return Ok(pem);
    }
    let pem = KeyPair::generate()
        .map_err(SignError::from)?
        .serialize_pem()
        .into_bytes();
    lock.write(KEY_FILE, &pem)?;
    Ok(pem)
}

/// The JWT payload. Unknown fields are an error: they may be restrictions added by a later version.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iss: String,
    aud: String,
    iat: u64,
    exp: u64,
    jti: String,
    /// Exactly one of this and `group` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workload: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    service_account: String,
    labels: BTreeMap<String, String>,
    addresses: Vec<IpAddr>,
}

impl Claims {
    fn validated(self, trust_domain: &TrustDomain) -> Result<TokenClaims, TokenError> {
        let malformed = |e: InvalidName| TokenError::Malformed(e.to_string());
        let time = |seconds| {
            calendar::from_unix_seconds(seconds)
                .ok_or_else(|| TokenError::Malformed(format!("{seconds} is not a time")))
        };
        let bearer = match (self.workload, self.group) {
            (Some(workload), None) => Bearer::Workload {
                name: workload.parse().map_err(malformed)?,
                addresses: self.addresses,
            },
            (None, Some(group)) if self.addresses.is_empty() => Bearer::Group(group.parse().map_err(malformed)?),
            _ => {
                let why = "it is for neither a workload nor the members of a group";
                return Err(TokenError::Malformed(why.to_owned()));
            }
        };
        Ok(TokenClaims {
            grant: TokenGrant {
                bearer,
                service_account: self.service_account.parse().map_err(malformed)?,
                labels: self.labels,
            },
            trust_domain: trust_domain.clone(),
            issued_at: time(self.iat)?,
            expires_at: time(self.exp)?,
            id: self.jti,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const TTL: Duration = TokenSigner::DEFAULT_TTL;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn signer(dir: &tempfile::TempDir, trust_domain: &str) -> TokenSigner {
        let state = StateDir::open(dir.path()).unwrap();
        TokenSigner::load_or_create(&state, &trust_domain.parse().unwrap()).unwrap()
    }

    fn grant() -> TokenGrant {
        TokenGrant {
            bearer: Bearer::Workload {
                name: "reviews-v1.shop".parse().unwrap(),
                addresses: vec!["127.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
            },
            service_account: "reviews".parse().unwrap(),
            labels: [("app", "reviews"), ("version", "v1")]
                .map(|(k, v)| (k.into(), v.into()))
                .into(),
        }
    }

    #[test]
    fn tokens_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let token = signer(&dir, "cluster.local").create(&grant(), TTL, now()).unwrap();
        let claims = signer(&dir, "cluster.local").verify(&token, now()).unwrap();
        assert_eq!(claims.grant, grant());
        assert_eq!(
            claims.identity().to_string(),
            "spiffe://cluster.local/ns/shop/sa/reviews"
        );
        assert_eq!((claims.issued_at, claims.expires_at), (now(), now() + TTL));
        assert_eq!(claims.id.len(), 32);
    }

    #[test]
    fn a_token_can_be_issued_for_a_group() {
        let dir = tempfile::tempdir().unwrap();
        let signer = signer(&dir, "cluster.local");
        let group = TokenGrant {
            bearer: Bearer::Group("reviews.shop".parse().unwrap()),
            ..grant()
        };
        let token = signer.create(&group, TTL, now()).unwrap();
        assert_eq!(signer.verify(&token, now()).unwrap().grant, group);
    }

    #[test]
    fn a_bearer_can_read_its_own_claims() {
        let dir = tempfile::tempdir().unwrap();
        let token = signer(&dir, "mesh.example").create(&grant(), TTL, now()).unwrap();
        let told = TokenClaims::told_to_bearer(&token).unwrap();
        assert_eq!(told.identity().to_string(), "spiffe://mesh.example/ns/shop/sa/reviews");
        assert_eq!((told.grant.clone(), told.lifetime()), (grant(), TTL));
        assert!(!told.is_half_over(now()) && told.is_half_over(now() + TTL / 2));
        let payload = URL_SAFE_NO_PAD.encode(r#"{"aud": "somebody else"}"#);
        for no_token in ["", "a.b", "a.b.c.d", "a.!.c", "a.e30.c", &format!("a.{payload}.c")] {
            assert!(TokenClaims::told_to_bearer(no_token).is_err(), "{no_token}");
        }
    }

    #[test]
    fn an_expired_token_is_refused_with_its_expiry_time() {
        let dir = tempfile::tempdir().unwrap();
        let signer = signer(&dir, "cluster.local");
        let token = signer.create(&grant(), TTL, now()).unwrap();
        assert!(signer.verify(&token, now() + TTL - Duration::from_secs(1)).is_ok());
        let error = signer.verify(&token, now() + TTL).unwrap_err();
        let (bearer, since) = (grant().bearer, now() + TTL);
        assert_eq!(error, TokenError::Expired { bearer, since });
        assert!(error.to_string().contains("2027-02-14T08:00:00Z"), "{error}");
    }

    #[test]
    fn another_servers_token_is_refused() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let token = signer(&theirs, "cluster.local").create(&grant(), TTL, now()).unwrap();
        let error = signer(&ours, "cluster.local").verify(&token, now()).unwrap_err();
        assert_eq!(error, TokenError::WrongSignature);
        let error = signer(&theirs, "other.example").verify(&token, now()).unwrap_err();
        assert!(matches!(error, TokenError::WrongTrustDomain { .. }), "{error}");
    }

    #[test]
    fn altered_and_unsigned_tokens_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let signer = signer(&dir, "cluster.local");
        let token = signer.create(&grant(), TTL, now()).unwrap();
        let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else {
            panic!("three parts")
        };
        let other = signer.create(&grant(), 2 * TTL, now()).unwrap();
        let other_payload = other.split('.').nth(1).unwrap();
        let swapped = format!("{header}.{other_payload}.{signature}");
        assert_eq!(signer.verify(&swapped, now()), Err(TokenError::WrongSignature));
        // {"typ":"JWT","alg":"none"}, and HS256 with the public key as its secret
        let none = format!("eyJ0eXAiOiJKV1QiLCJhbGciOiJub25lIn0.{payload}.");
        assert!(signer.verify(&none, now()).is_err());
        let secret = EncodingKey::from_secret(signer.verifying.as_bytes());
        let claims = serde_json::json!({"iss": "cluster.local"});
        let forged = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &secret).unwrap();
        assert_eq!(signer.verify(&forged, now()), Err(TokenError::WrongSignature));
        for junk in ["", ".", "..", "a.b.c", "token", &token[..token.len() / 2]] {
            assert!(
                matches!(signer.verify(junk, now()), Err(TokenError::Malformed(_))),
                "{junk}"
            );
        }
    }

    #[test]
    fn other_audiences_and_unknown_claims_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let signer = signer(&dir, "cluster.local");
        let mut claims = serde_json::json!({
            "iss": "cluster.local", "aud": "kubernetes", "iat": 1, "exp": 1_900_000_000, "jti": "1",
            "workload": "a.b", "service_account": "c", "labels": {}, "addresses": [],
        });
        let sign = |claims: &serde_json::Value| {
            jsonwebtoken::encode(&Header::new(Algorithm::ES256), claims, &signer.signing).unwrap()
        };
        let error = signer.verify(&sign(&claims), now()).unwrap_err();
        assert_eq!(error, TokenError::WrongAudience("kubernetes".to_owned()));
        claims["aud"] = AUDIENCE.into();
        assert!(signer.verify(&sign(&claims), now()).is_ok());
        claims["group"] = "a.b".into();
        assert!(
            matches!(signer.verify(&sign(&claims), now()), Err(TokenError::Malformed(_))),
            "of a workload and of a group"
        );
        claims.as_object_mut().unwrap().remove("group");
        claims["not_on_mondays"] = true.into();
        assert!(matches!(
            signer.verify(&sign(&claims), now()),
            Err(TokenError::Malformed(_))
        ));
    }

    #[test]
    fn lifetimes_have_limits() {
        let dir = tempfile::tempdir().unwrap();
        let signer = signer(&dir, "cluster.local");
        for ttl in [Duration::ZERO, Duration::MAX] {
            let error = signer.create(&grant(), ttl, now()).unwrap_err();
            assert!(matches!(error, TokenKeyError::Lifetime(_)), "{error}");
        }
    }

    #[test]
    fn concurrent_creation_yields_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let tokens: Vec<String> = std::thread::scope(|threads| {
            let make = || signer(&dir, "cluster.local").create(&grant(), TTL, now()).unwrap();
            let started: Vec<_> = (0..8).map(|_| threads.spawn(make)).collect();
            started.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let signer = signer(&dir, "cluster.local");
        assert!(tokens.iter().all(|token| signer.verify(token, now()).is_ok()));
    }

    #[test]
    fn an_invalid_key_file_is_reported_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let wrong_curve = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)
            .unwrap()
            .serialize_pem();
        for content in ["", "junk", &wrong_curve] {
            state.write(KEY_FILE, content.as_bytes()).unwrap();
            let error = TokenSigner::load_or_create(&state, &TrustDomain::default()).unwrap_err();
            assert!(error.to_string().contains("token-key.pem"), "{error}");
        }
    }
}
