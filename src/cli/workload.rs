//! Flags that select a workload.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};

use super::state::StateArguments;
use super::{Usage, value};
use crate::ir::node::InterceptionMode;
use crate::name::{InvalidName, ServiceAccount, WorkloadName};
use crate::pki::{Bearer, TokenGrant, TokenSigner};

/// `--workload` or `--group`, `--service-account`, `--label` and `--ip`.
#[derive(Args)]
pub(super) struct WorkloadArguments {
    /// Workload name; without .NAMESPACE, the namespace is `default`
    #[arg(long, value_name = "NAME.NAMESPACE", required_unless_present = "group")]
    workload: Option<WorkloadName>,

    /// Group to join instead of a named workload: each member auto-registers with the address it connects from and, while
    /// connected, is an endpoint of the services that select the group's labels
    #[arg(long, value_name = "NAME.NAMESPACE", conflicts_with = "workload")]
    group: Option<WorkloadName>,

    /// Service account, the last segment of the SPIFFE ID. A WorkloadGroup named like the group overrides it [default:
    /// default]
    #[arg(long, value_name = "NAME")]
    pub service_account: Option<ServiceAccount>,

    /// Workload label; repeatable. The labels of a WorkloadEntry or WorkloadGroup of this name override it
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = value::label)]
    pub labels: Vec<(String, String)>,

    /// Workload address; repeatable. The address of a WorkloadEntry of this name overrides it
    #[arg(long = "ip", value_name = "IP")]
    pub addresses: Vec<IpAddr>,
}

/// The service account of workloads without one.
pub(super) const DEFAULT_ACCOUNT: &str = "default";

impl WorkloadArguments {
    /// The labels; the last of several with the same key wins.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        self.labels.iter().cloned().collect()
    }

    /// The bearer of the token: the workload or the group.
    pub(super) fn bearer(&self) -> Result<Bearer, Usage> {
        match (&self.workload, &self.group) {
            (Some(name), None) => Ok(Bearer::Workload {
                name: name.clone(),
                addresses: self.addresses.clone(),
            }),
            (None, Some(group)) => Ok(Bearer::Group(group.clone())),
            _ => Err(Usage("either --workload or --group is required".to_owned())),
        }
    }

    /// The given service account, otherwise [`DEFAULT_ACCOUNT`].
    pub(super) fn account(&self) -> Result<ServiceAccount, InvalidName> {
        self.service_account.clone().map_or_else(|| DEFAULT_ACCOUNT.parse(), Ok)
    }

    /// A join token for the workload or group, signed with the key in the state directory.
    pub(super) fn token(&self, state: &StateArguments, ttl: Option<Duration>) -> anyhow::Result<JoinToken> {
        let grant = TokenGrant {
            bearer: self.bearer()?,
            service_account: self.account()?,
            labels: self.labels(),
        };
        let (ttl, now) = (ttl.unwrap_or(TokenSigner::DEFAULT_TTL), SystemTime::now());
        let signer = TokenSigner::load_or_create(&state.open()?, &state.trust_domain)?;
        Ok(JoinToken {
            text: signer.create(&grant, ttl, now)?,
            expires: now + ttl,
        })
    }
}

/// A token and its expiry.
pub(super) struct JoinToken {
    /// The serialized token.
    pub text: String,
    /// When it expires.
    pub expires: SystemTime,
}

/// Traffic interception mode.
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
