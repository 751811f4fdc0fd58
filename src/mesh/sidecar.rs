//! Sidecars, lowered: what a proxy listens on and what it may call.

use std::net::IpAddr;
use std::sync::Arc;

use super::Labels;
use super::config::OutboundPolicy;
use super::destination_rule::ConnectionPool;
use super::service::Protocol;
use crate::name::{Hostname, Namespace, ObjectId};

/// A Sidecar.
#[derive(Clone, Debug, PartialEq)]
pub struct Sidecar {
    /// The object.
    pub id: ObjectId,
    /// `workloadSelector.labels`; none: the namespace's (or mesh's) default.
    pub selector: Option<Labels>,
    /// `ingress`; none given: the ports of the workload's services.
    pub ingress: Vec<Ingress>,
    /// `egress`; none given: everything visible.
    pub egress: Vec<Egress>,
    /// `outboundTrafficPolicy.mode`; none means the mesh's.
    pub outbound_policy: Option<OutboundPolicy>,
    /// `inboundConnectionPool`.
    pub inbound_connection_pool: Option<ConnectionPool>,
}

/// A port as listeners write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerPort {
    /// `number`.
    pub number: u16,
    /// `protocol`.
    pub protocol: Protocol,
    /// `name`.
    pub name: Arc<str>,
}

/// An entry of `ingress`.
#[derive(Clone, Debug, PartialEq)]
pub struct Ingress {
    /// `port`.
    pub port: ListenerPort,
    /// `bind`.
    pub bind: Option<IpAddr>,
    /// `captureMode: NONE`: a bound listener of its own.
    pub bound: bool,
    /// `defaultEndpoint`.
    pub default_endpoint: DefaultEndpoint,
    /// `connectionPool`.
    pub connection_pool: Option<ConnectionPool>,
}

/// Where inbound requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefaultEndpoint {
    /// Absent: where the client dialled.
    Original,
    /// `127.0.0.1:PORT` or `[::1]:PORT`.
    Loopback(std::net::SocketAddr),
    /// `0.0.0.0:PORT`, `[::]:PORT` or `:PORT`: the workload's own address.
    Instance(u16),
    /// `unix://PATH`.
    Unix(Arc<str>),
}

/// An entry of `egress`.
#[derive(Clone, Debug, PartialEq)]
pub struct Egress {
    /// `port`; none: every port of the hosts.
    pub port: Option<ListenerPort>,
    /// `bind`.
    pub bind: Option<Bind>,
    /// `captureMode: NONE`: a bound listener.
    pub bound: bool,
    /// `hosts`.
    pub hosts: Vec<HostFilter>,
}

/// `bind` of an egress listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// An address.
    Ip(IpAddr),
    /// `unix://PATH`.
    Unix(Arc<str>),
}

/// An entry of `hosts`: `namespace/host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFilter {
    /// `~ns/host`: what it covers is left out.
    pub exclude: bool,
    /// The namespace; none for `*`. `.` is resolved in lowering.
    pub namespace: Option<Namespace>,
    /// The host, possibly a wildcard.
    pub host: Hostname,
}
