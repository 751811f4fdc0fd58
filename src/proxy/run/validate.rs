//! Validation of a bootstrap without starting (`--mode validate`).

use std::time::Instant;

use super::{Options, ProxyError, read};
use crate::proxy::config::{self, At, Refusal, bootstrap};
use crate::proxy::store::Store;

/// Reads a bootstrap and compiles its resources. Opens no sockets, but files of secrets and access logs.
///
/// # Errors
/// What [`run`](super::run) would refuse.
pub fn validate(options: &Options) -> Result<(), ProxyError> {
    let bootstrap = read(options)?;
    config::server::server(&bootstrap)?;
    config::server::admin_address(bootstrap.admin.as_ref())?;
    config::stats::naming(bootstrap.stats_config.as_ref()).at("stats_config")?;
    let mut store = Store::new(config::trace::node(&bootstrap), config::server::clusters(&bootstrap));
    let (fixed, now) = (bootstrap::fixed(&bootstrap), Instant::now());
    let mut refused = store.put_fixed(&fixed.secrets, fixed.clusters, now);
    for (index, listener) in fixed.listeners.iter().enumerate() {
        let compiled = store.listener(None, listener);
        refused.extend(compiled.at_index("static_resources.listeners", index).err());
    }
    Ok(Refusal::none_of(refused)?)
}
