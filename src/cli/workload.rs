//! The flags that say which workload is meant.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};

use super::state::StateArguments;
use super::value;
use crate::ir::node::InterceptionMode;
use crate::name::{ServiceAccount, WorkloadName};
use crate::pki::{TokenGrant, TokenSigner};

/// `--workload`, `--service-account`, `--label` and `--ip`.
#[derive(Args)]
pub(super) struct WorkloadArguments {
    /// The workload; the namespace is `default` unless the name has a dot
    #[arg(long, value_name = "NAME.NAMESPACE")]
    pub workload: WorkloadName,

    /// The service account it runs as: the last part of its SPIFFE identity
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub service_account: ServiceAccount,

    /// A label of the workload; may be repeated. Those of a WorkloadEntry of this name take its place
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = value::label)]
    pub labels: Vec<(String, String)>,

    /// An address of the workload; may be repeated. That of a WorkloadEntry of this name takes its place
    #[arg(long = "ip", value_name = "IP")]
    pub addresses: Vec<IpAddr>,
}

impl WorkloadArguments {
    /// The labels; of one that is repeated the last counts.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        self.labels.iter().cloned().collect()
    }

    /// A join token for the workload, as the server of that state directory makes it.
    pub(super) fn token(&self, state: &StateArguments, ttl: Option<Duration>) -> anyhow::Result<JoinToken> {
        let grant = TokenGrant {
            workload: self.workload.clone(),
            service_account: self.service_account.clone(),
            labels: self.labels(),
            addresses: self.addresses.clone(),
        };
        let (ttl, now) = (ttl.unwrap_or(TokenSigner::DEFAULT_TTL), SystemTime::now());
        let signer = TokenSigner::load_or_create(&state.open()?, &state.trust_domain)?;
        Ok(JoinToken {
            text: signer.create(&grant, ttl, now)?,
            expires: now + ttl,
        })
    }
}

/// A token and its end.
pub(super) struct JoinToken {
    /// The token.
    pub text: String,
    /// When it expires.
    pub expires: SystemTime,
}

/// How traffic reaches a proxy.
#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "UPPERCASE")]
pub(super) enum Mode {
    Redirect,
    Tproxy,
    None,
}

impl From<Mode> for InterceptionMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Redirect => InterceptionMode::Redirect,
            Mode::Tproxy => InterceptionMode::Tproxy,
            Mode::None => InterceptionMode::None,
        }
    }
}
