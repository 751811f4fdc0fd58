//! `/listeners`: names and addresses.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::answer::Answer;
use super::commands::Query;
use crate::proxy::connection::Address;
use crate::proxy::listener::Listener;
use crate::proxy::store::Published;

/// One line each, or JSON.
pub(super) fn answer(published: &Published, query: &Query) -> Answer {
    let mut listeners: Vec<_> = published.listeners.values().filter(|one| one.bind.is_some()).collect();
    listeners.sort_by(|a, b| a.name.cmp(&b.name));
    if query.get("format") == Some("json") {
        let statuses: Vec<_> = listeners.into_iter().map(status).collect();
        return Answer::pretty(&json!({"listener_statuses": statuses}));
    }
    let lines = listeners.into_iter().flat_map(|listener| {
        let addresses = listener.addresses.iter();
        addresses.map(|one| format!("{}::{}\n", listener.name, one.address))
    });
    Answer::text(lines.collect::<String>())
}

fn status(listener: &Arc<Listener>) -> Value {
    let shown = listener.addresses.iter().map(|one| match &one.address {
        Address::Ip(address) => socket_address(*address),
        Address::Unix(path) => json!({"pipe": {"path": path}}),
    });
    let mut shown = shown.collect::<Vec<_>>().into_iter();
    let mut status = json!({"name": listener.name, "local_address": shown.next()});
    let more: Vec<_> = shown.collect();
    if !more.is_empty() {
        status["additional_local_addresses"] = more.into();
    }
    status
}

/// `core.v3.Address`.
pub(super) fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}
