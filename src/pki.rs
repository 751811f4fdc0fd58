//! PKI: the CA, workload certificates, the trust bundle and join tokens.
//!
//! Everything that must survive a restart is in the [`StateDir`]; leaf keys are never stored.
//!
//! ```text
//! StateDir ──load_or_create→ Ca ──issue→ WorkloadCert      (SDS `default`)
//!     │                       ├──bundle→ TrustBundle       (SDS `ROOTCA`)
//!     │                       └──cert_version / recognises (a proxy that reconnects)
//!     └──load_or_create→ TokenSigner ──create / verify→ TokenClaims
//! ```
//!
//! Certificate signing requests are not supported: proxies get their key and certificate by SDS.

mod bundle;
mod ca;
mod calendar;
mod issue;
mod pem;
mod renewal;
mod state;
mod token;
mod version;

pub use bundle::{BundleError, TrustBundle};
pub use ca::{Ca, CaError, FileProblem, SignError};
pub use issue::{IssueError, IssueOptions, PrivateKeyPem, WorkloadCert, server_identity};
pub use renewal::{Validity, renew_at};
pub use state::{StateClaim, StateDir, StateError, StateLock};
pub use token::{Bearer, TokenClaims, TokenError, TokenGrant, TokenKeyError, TokenSigner};
