//! The part of the admin API's responses that is displayed.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::diag::Severity;

/// The combined responses.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    /// The current generation; `None` until the directory has been read.
    pub generation: Option<Generation>,
    /// Connected proxies.
    pub proxies: Vec<Proxy>,
    /// Auto-registered workloads.
    pub registered: Vec<Registered>,
    /// Diagnostics of the directory.
    pub diagnostics: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Generation {
    pub number: u64,
    pub objects: usize,
}

#[derive(Debug, Deserialize)]
pub(super) struct Proxy {
    pub workload: String,
    pub user_agent: String,
    pub generation: Option<u64>,
    pub acked_generation: Option<u64>,
    pub token_expired: bool,
    pub types: BTreeMap<String, Sync>,
    pub refusals: Vec<Refusal>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Registered {
    pub workload: String,
    pub group: String,
    pub ready: bool,
    pub connected: bool,
}

/// Sync state of a resource type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Sync {
    Synced,
    Stale,
    Nacked,
    NotSent,
}

#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    pub message: String,
    pub objects: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Finding {
    pub code: String,
    pub severity: Severity,
    pub message: String,
    pub file: Option<String>,
    pub line: Option<usize>,
    pub column: Option<usize>,
}

impl Answer {
    /// Whether a generation is served and every proxy is in sync with it.
    pub(super) fn is_synced(&self) -> bool {
        let behind = |state: &Sync| match state {
            Sync::Stale | Sync::Nacked => true,
            Sync::Synced | Sync::NotSent => false,
        };
        let is_synced = |proxy: &Proxy| proxy.refusals.is_empty() && !proxy.types.values().any(behind);
        self.generation.is_some() && self.proxies.iter().all(is_synced)
    }
}
