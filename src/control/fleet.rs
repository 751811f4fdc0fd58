//! Letting proxies in: a proxy is who its credential says, not who its node claims to be.

use std::sync::Arc;

use tokio::sync::mpsc;
use tonic::Status;

use super::composer::Tick;
use super::identity::{Grant, GrantError};
use super::roster::{Admission, MemberId, Roster};
use super::secrets::Secrets;
use super::state::Published;
use crate::clock::Clock;
use crate::ir::ResourceName;
use crate::pki::TokenSigner;
use crate::xds::node::NodeClaim;
use crate::xds::resource::Version;
use crate::xds::server::{Credential, Fleet, Member, Observer, Progress};

/// The proxies of the mesh, as the xDS server meets them.
#[derive(Debug)]
pub(super) struct Proxies {
    /// Who is connected.
    pub roster: Arc<Roster>,
    /// Certificates and the trust bundle.
    pub secrets: Arc<Secrets>,
    /// Verifies join tokens.
    pub tokens: TokenSigner,
    /// What is in force.
    pub published: Arc<Published>,
    /// Where the composer hears of joins.
    pub ticks: mpsc::UnboundedSender<Tick>,
    /// The time.
    pub clock: Clock,
}

impl Fleet for Proxies {
    fn join(&self, claim: NodeClaim, credential: Credential) -> Result<Member, Status> {
        let grant = self.grant(&claim, credential).map_err(|error| {
            tracing::warn!(node = %claim.id, "a proxy is refused: {error}");
            match error {
                GrantError::Missing | GrantError::Token(_) => Status::unauthenticated(error.to_string()),
                GrantError::OtherWorkload { .. } | GrantError::Unknown(_) => {
                    Status::permission_denied(error.to_string())
                }
            }
        })?;
        let mesh = self.published.mesh();
        let (view, contradictions) = grant.view(&claim, &mesh);
        for contradiction in contradictions {
            tracing::warn!(node = %claim.id, "{contradiction}");
        }
        let admission = Admission {
            claim,
            grant,
            view,
            since: self.clock.now(),
        };
        let (id, target, refused) = self.roster.enter(admission.clone());
        tracing::info!(node = %admission.claim.id, identity = %admission.grant.identity, "a proxy connects");
        // The composer ends with the server; nobody is left to be told then.
        let _ = self.ticks.send(Tick::Joined(id));
        let observer = ProxyObserver {
            id,
            admission,
            roster: self.roster.clone(),
            secrets: self.secrets.clone(),
            ticks: self.ticks.clone(),
            clock: self.clock.clone(),
        };
        Ok(Member {
            target,
            refused,
            observer: Box::new(observer),
        })
    }
}

impl Proxies {
    fn grant(&self, claim: &NodeClaim, credential: Credential) -> Result<Grant, GrantError> {
        match credential {
            Credential::Token(token) => {
                let claims = self
                    .tokens
                    .verify(&token, self.clock.now())
                    .map_err(GrantError::Token)?;
                Grant::from_token(claims, claim)
            }
            Credential::Certificate(identity) => Grant::from_certificate(identity, claim, &self.published.mesh()),
            Credential::None => Err(GrantError::Missing),
        }
    }
}

/// Follows one stream.
struct ProxyObserver {
    id: MemberId,
    admission: Admission,
    roster: Arc<Roster>,
    secrets: Arc<Secrets>,
    ticks: mpsc::UnboundedSender<Tick>,
    clock: Clock,
}

impl Observer for ProxyObserver {
    fn secret_wanted(&mut self, name: &ResourceName, has: Option<&Version>) {
        if let Some(secret) = self.secrets.wanted(name, &self.admission.grant.identity, has) {
            self.roster.set_secret(self.id, secret);
        }
    }

    fn progress(&mut self, progress: Progress<'_>) {
        for refusal in progress.refusals {
            tracing::error!(
                node = %self.admission.claim.id,
                resource = %refusal.resource.name,
                r#type = %refusal.resource.kind,
                "a proxy refuses a resource: {}",
                reason(&refusal.message),
            );
        }
        if self.roster.progress(self.id, &progress, self.clock.now()) {
            // The composer ends with the server; nobody is left to be told then.
            let _ = self.ticks.send(Tick::Refused);
        }
    }
}

impl Drop for ProxyObserver {
    fn drop(&mut self) {
        tracing::info!(node = %self.admission.claim.id, "a proxy is gone");
        self.roster.leave(self.id);
    }
}

/// What of Envoy's reason a person can use. Broken field rules come with a dump of the whole
/// resource, secrets included, before them.
pub fn reason(message: &str) -> &str {
    match message.rfind("Proto constraint validation failed") {
        Some(at) => &message[at..],
        None => message,
    }
}
