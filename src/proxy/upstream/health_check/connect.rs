//! Connections for checks, which neither circuit breakers nor the cluster's statistics know of.

use std::io;

use super::state::Checked;
use crate::proxy::tls::{Offer, TlsOverrides};
use crate::proxy::upstream::cluster::{Cluster, Transport};
use crate::proxy::upstream::connect::{self, Connected, MadeFor};
use crate::proxy::upstream::host::Host;

/// A host that is checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) host: &'a Host,
    pub(super) checked: &'a Checked,
}

impl Subject<'_> {
    /// Connects to where the host is checked.
    ///
    /// # Errors
    /// If that fails.
    pub(super) async fn connect(&self) -> io::Result<Connected> {
        let config = self.checked.config();
        let overrides = TlsOverrides {
            sni: None,
            alpn: config.alpn.as_deref(),
            offer: Offer::Nothing,
        };
        let chosen = config
            .transport_labels
            .as_ref()
            .map(|labels| self.cluster.config.transport_for(labels));
        let to = connect::To {
            host: self.host,
            address: &self.checked.address,
            transport: chosen.as_ref().unwrap_or(&self.host.transport),
        };
        connect::establish(self.cluster, to, overrides, MadeFor::default()).await
    }

    /// The `:scheme` of requests.
    pub(super) fn scheme(&self) -> &'static str {
        let is_tls = |transport: &Transport| transport.tls.is_some();
        match is_tls(&self.host.transport) {
            true => "https",
            false => "http",
        }
    }

    /// The host of requests: the endpoint's for checks, what the check says, or the name of the cluster.
    pub(super) fn authority<'s>(&'s self, configured: &'s str) -> &'s str {
        match (self.checked.hostname(), configured) {
            (Some(hostname), _) => hostname,
            (None, "") => &self.cluster.config.name,
            (None, configured) => configured,
        }
    }
}
