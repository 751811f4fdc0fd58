//! Admission of proxies: authenticates xDS clients and tracks their streams. A proxy's identity
//! comes from its credential, never from its node metadata.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use tonic::Status;

use super::composer::ComposerEvent;
use super::identity::{Grant, GrantError, identity_of};
use super::roster::{Admission, MemberId, Roster};
use super::secrets::Secrets;
use super::state::Published;
use crate::clock::Clock;
use crate::ir::ResourceName;
use crate::name::{SpiffeId, WorkloadName};
use crate::pki::{Bearer, TokenClaims, TokenSigner};
use crate::tls::PeerInfo;
use crate::xds::joining::Probe;
use crate::xds::node::NodeClaim;
use crate::xds::resource::{ResourceType, Version};
use crate::xds::server::{Arrival, BearerCaller, Credential, Fleet, Member, Observer, Progress, Scope};
use crate::xds::session::SyncState;

/// The [xDS server's](crate::xds::server) view of the control plane.
#[derive(Debug)]
pub(super) struct Proxies {
    /// Connected proxies.
    pub roster: Arc<Roster>,
    /// Issues workload certificates; holds the trust bundle.
    pub secrets: Arc<Secrets>,
    /// Verifies join tokens.
    pub tokens: TokenSigner,
    /// The published state.
    pub published: Arc<Published>,
    /// Sends events to the composer.
    pub events: mpsc::UnboundedSender<ComposerEvent>,
    /// Time source.
    pub clock: Clock,
}

impl Fleet for Proxies {
    fn admit(&self, credential: &Credential, peer: Option<&PeerInfo>) -> Result<(), Status> {
        let admitted = match credential {
            Credential::Certificate(_) => Ok(()),
            Credential::Token(token) => {
                let verified = self.tokens.verify(token, self.clock.now());
                verified.map(drop).map_err(GrantError::Token)
            }
            Credential::None => Err(GrantError::Missing),
        };
        admitted.map_err(|error| {
            let peer = peer.map(|peer| tracing::field::display(peer.addr));
            tracing::warn!(peer, "rejected a proxy: {error}");
            refusal(&error)
        })
    }

    fn renew(&self, caller: &BearerCaller) -> Result<String, Status> {
        let claims = self.borne(caller)?;
        let renewed = self.tokens.create(&claims.grant, claims.lifetime(), self.clock.now());
        let renewed = renewed.map_err(|error| {
            tracing::error!(bearer = %claims.grant.bearer, %error, "failed to renew a join token");
            Status::internal("failed to renew the token; see the server log")
        })?;
        tracing::info!(bearer = %claims.grant.bearer, id = claims.id, "renewed a join token");
        Ok(renewed)
    }

    fn leave(&self, caller: &BearerCaller) -> Result<(), Status> {
        if let Some((member, _)) = self.member(caller)? {
            // Sending fails only after the composer has stopped, at shutdown.
            let _ = self.events.send(ComposerEvent::Leaving(member));
        }
        Ok(())
    }

    fn ready(&self, caller: &BearerCaller, run: u64, ready: bool) -> Result<Option<Probe>, Status> {
        let Some((member, group)) = self.member(caller)? else {
            return Ok(None);
        };
        let state = self.published.state();
        let name = member.to_string();
        let connected = || state.registered.iter().any(|row| row.connected && row.workload == name);
        if ready && !connected() {
            let why = format!("{name} is not connected: it is registered once its data plane connects");
            return Err(Status::failed_precondition(why));
        }
        // Sending fails only after the composer has stopped, at shutdown.
        let _ = self.events.send(ComposerEvent::Application { member, run, ready });
        let group = state.mesh.workload_group(&group);
        Ok(group.and_then(|group| group.probe.as_ref()).map(Probe::from))
    }

    fn join(&self, arrival: Arrival) -> Result<Member, Status> {
        let Arrival {
            claim,
            credential,
            peer,
            scope,
        } = arrival;
        let loaded = self.published.state().generation.is_some();
        // Certificates and groups are resolved against WorkloadEntries and WorkloadGroups, so the
        // directory must be loaded.
        if !loaded && (matches!(credential, Credential::Certificate(_)) || claim.group.is_some()) {
            return Err(Status::unavailable("the configuration is still being loaded"));
        }
        let address = peer.as_ref().map(|peer| peer.addr.ip());
        let mut grant = self.grant(&claim, credential, address).map_err(|error| {
            tracing::warn!(node = %claim.id, "rejected a proxy: {error}");
            refusal(&error)
        })?;
        if scope == Scope::Secrets {
            // A stream that carries none of the workload's own configuration cannot make it ready.
            grant.member = None;
        }
        let mesh = self.published.mesh();
        let (view, contradictions) = grant.view(&claim, &mesh);
        for contradiction in contradictions.iter().filter(|_| loaded) {
            tracing::warn!(node = %claim.id, "{contradiction}");
        }
        let admission = Admission {
            claim,
            grant,
            view,
            since: self.clock.now(),
        };
        let (node, identity) = (admission.claim.id.clone(), admission.grant.identity.clone());
        let member = admission.grant.member.is_some();
        let (id, target, refused) = self.roster.enter(admission);
        tracing::info!(%node, %identity, "proxy connected");
        // Sending fails only after the composer has stopped, at shutdown.
        let _ = self.events.send(ComposerEvent::Joined(id));
        let observer = ProxyObserver {
            id,
            node,
            identity,
            roster: self.roster.clone(),
            secrets: self.secrets.clone(),
            events: self.events.clone(),
            clock: self.clock.clone(),
            awaits_ack: member,
            member: peer.filter(|_| member),
        };
        Ok(Member {
            target,
            refused,
            observer: Box::new(observer),
        })
    }
}

impl Proxies {
    /// Verifies the join token of a request. A client certificate on the same connection must have
    /// the token's identity, so a leaked token cannot be used with another workload's certificate.
    fn borne(&self, caller: &BearerCaller) -> Result<TokenClaims, Status> {
        let token = caller.token.as_ref().ok_or_else(|| refusal(&GrantError::Missing))?;
        let verified = self.tokens.verify(token, self.clock.now());
        let claims = verified.map_err(|error| refusal(&GrantError::Token(error)))?;
        let identity = identity_of(&claims, &self.published.mesh());
        let shown = caller.peer.as_ref().and_then(|peer| peer.identity.as_ref());
        match shown {
            Some(shown) if *shown != identity => Err(Status::permission_denied(format!(
                "the token is for {identity}, but the client certificate is for {shown}"
            ))),
            Some(_) | None => Ok(claims),
        }
    }

    /// The member that sends a request, and its WorkloadGroup. `None` for tokens that are not for a
    /// group: only auto-registered workloads can be told apart from others with the same token.
    fn member(&self, caller: &BearerCaller) -> Result<Option<(WorkloadName, WorkloadName)>, Status> {
        let Bearer::Group(group) = self.borne(caller)?.grant.bearer else {
            return Ok(None);
        };
        let peer = caller.peer.as_ref().map(|peer| peer.addr.ip());
        let peer = peer.ok_or_else(|| refusal(&GrantError::NoAddress))?;
        let member = WorkloadName::member(&group, peer).map_err(|why| {
            let group = group.clone();
            refusal(&GrantError::Name { group, why })
        })?;
        Ok(Some((member, group)))
    }

    fn grant(&self, claim: &NodeClaim, credential: Credential, peer: Option<IpAddr>) -> Result<Grant, GrantError> {
        match credential {
            Credential::Token(token) => {
                let claims = self
                    .tokens
                    .verify(&token, self.clock.now())
                    .map_err(GrantError::Token)?;
                Grant::from_token(claims, claim, peer, &self.published.mesh())
            }
            Credential::Certificate(identity) => Grant::from_certificate(identity, claim, peer, &self.published.mesh()),
            Credential::None => Err(GrantError::Missing),
        }
    }
}

/// Converts an error to a gRPC status for the client.
fn refusal(error: &GrantError) -> Status {
    match error {
        GrantError::Missing | GrantError::Token(_) => Status::unauthenticated(error.to_string()),
        GrantError::OtherWorkload { .. }
        | GrantError::OtherGroup { .. }
        | GrantError::OtherMember { .. }
        | GrantError::OtherAddress { .. }
        | GrantError::NoAddress
        | GrantError::Name { .. }
        | GrantError::Unknown(_) => Status::permission_denied(error.to_string()),
    }
}

/// Observes one xDS stream.
struct ProxyObserver {
    id: MemberId,
    node: Arc<str>,
    identity: SpiffeId,
    roster: Arc<Roster>,
    secrets: Arc<Secrets>,
    events: mpsc::UnboundedSender<ComposerEvent>,
    clock: Clock,
    /// Whether an auto-registered workload has yet to ACK its first configuration.
    awaits_ack: bool,
    /// The connection of an auto-registered workload.
    member: Option<PeerInfo>,
}

impl Observer for ProxyObserver {
    fn secret_wanted(&mut self, name: &ResourceName, has: Option<&Version>) {
        let known = self.roster.secret(self.id, name);
        if has.is_none() && known.is_some_and(|secret| !secret.body.is_empty()) {
            return;
        }
        if let Some(secret) = self.secrets.wanted(name, &self.identity, has) {
            self.roster.set_secret(self.id, secret);
        }
    }

    fn progress(&mut self, progress: Progress<'_>) {
        for refusal in progress.refusals {
            tracing::error!(
                node = %self.node,
                resource = %refusal.resource.name,
                r#type = %refusal.resource.kind,
                "a proxy rejected a resource: {}",
                reason(&refusal.message),
            );
        }
        if self.awaits_ack && is_configured(&progress) {
            self.awaits_ack = false;
            self.tell(ComposerEvent::Acked(self.id));
        }
        if self.roster.progress(self.id, &progress, self.clock.now()) {
            self.tell(ComposerEvent::Refused);
        }
    }
}

/// Whether a client has ACKed everything it has subscribed to, clusters and listeners included.
/// Listeners are sent last, and a proxy subscribes to what they reference before it ACKs them.
fn is_configured(progress: &Progress<'_>) -> bool {
    let asked = |kind: ResourceType| {
        let mut states = progress.states.iter();
        states.any(|(of, state)| *of == kind && *state != SyncState::NotSent)
    };
    progress.up_to_date && asked(ResourceType::Cluster) && asked(ResourceType::Listener)
}

impl ProxyObserver {
    /// Sending fails only after the composer has stopped, at shutdown.
    fn tell(&self, event: ComposerEvent) {
        let _ = self.events.send(event);
    }

    /// Reports that the stream of an auto-registered workload ended and, once it is observed, that
    /// the peer closed the connection: a proxy that shuts down may end its stream first.
    fn member_is_gone(&self, peer: PeerInfo) {
        self.tell(ComposerEvent::Left(self.id));
        if peer.has_closed() {
            return self.tell(ComposerEvent::Closed(self.id));
        }
        let (id, events) = (self.id, self.events.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { peer.closes().await && events.send(ComposerEvent::Closed(id)).is_ok() });
        }
    }
}

impl Drop for ProxyObserver {
    fn drop(&mut self) {
        tracing::info!(node = %self.node, "proxy disconnected");
        self.roster.leave(self.id, self.clock.now());
        if let Some(peer) = self.member.take() {
            self.member_is_gone(peer);
        }
    }
}

/// The useful part of Envoy's NACK message, limited in length. For validation failures Envoy
/// prepends a dump of the whole resource, secrets included, which is removed.
pub fn reason(message: &str) -> String {
    const LONGEST: usize = 1_000;
    let useful = match message.rfind("Proto constraint validation failed") {
        Some(at) => &message[at..],
        None if message.contains("goo.gle/debug") => {
            "a field violates Envoy's validation rules (the reason was truncated)"
        }
        None => message,
    };
    match useful.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} …", &useful[..end]),
        None => useful.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resource_dump_is_removed_from_nack_messages() {
        let dump = "goo.gle/debugstr name: \"x\" key: \"secret\": Proto constraint validation failed (A.B: too short)";
        assert_eq!(reason(dump), "Proto constraint validation failed (A.B: too short)");
        assert!(!reason("goo.gle/debugstr key: \"secret\"").contains("secret"));
        assert_eq!(reason("no such thing"), "no such thing");
        assert!(reason(&"é".repeat(5_000)).len() < 2_100);
    }
}
