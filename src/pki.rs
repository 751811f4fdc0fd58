//! Identities made real: the CA, the certificates it issues, the trust bundle and the join tokens.
//!
//! Everything that has to survive a restart lives in the [`StateDir`]; leaf keys never touch a disk.
//! ```text
//! StateDir ──load_or_create→ Ca ──issue→ WorkloadCert      (SDS `default`)
//!     │                       ├──bundle→ TrustBundle       (SDS `ROOTCA`)
//!     │                       └──cert_version / recognises (a proxy that reconnects)
//!     └──load_or_create→ TokenSigner ──create / verify→ TokenClaims
//! ```
//! Certificate signing requests have no place yet: proxies get key and certificate by SDS. A signer
//! of requests belongs beside `issue`, with the identity taken from the credential there too.

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
