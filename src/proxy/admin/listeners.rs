//! `/listeners`.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::answer::Answer;
use super::commands::Query;
use crate::proxy::listener::{ListenAddress, Listener};
use crate::proxy::store::Published;

/// A line each, or JSON.
pub(super) fn answer(published: &Published, query: &Query) -> Answer {
    let mut listeners: Vec<_> = published.listeners.values().filter(|one| one.bind.is_some()).collect();
    listeners.sort_by(|a, b| a.name.cmp(&b.name));
    if query.get("format") == Some("json") {
        let statuses: Vec<_> = listeners.into_iter().map(status).collect();
        return Answer::pretty(&json!({"listener_statuses": statuses}));
    }
    let line = |one: &Arc<Listener>| match &one.address {
        ListenAddress::Ip(address) => format!("{}::{address}\n", one.name),
        ListenAddress::Unix(path) => format!("{}::{}\n", one.name, path.display()),
    };
    Answer::text(listeners.into_iter().map(line).collect::<String>())
}

fn status(listener: &Arc<Listener>) -> Value {
    let address = match &listener.address {
        ListenAddress::Ip(address) => socket_address(*address),
        ListenAddress::Unix(path) => json!({"pipe": {"path": path}}),
    };
    json!({"name": listener.name, "local_address": address})
}

/// `core.v3.Address`.
pub(super) fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}
