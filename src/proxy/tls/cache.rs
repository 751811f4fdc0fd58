//! A cache of what was built from secrets, valid until they change.

use std::io;
use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};

use super::{Certificate, TrustAnchors};
use crate::proxy::slot::Slot;

/// A secret has not been received yet.
#[derive(Debug, thiserror::Error)]
#[error("the secret `{0}` has not been received")]
pub(super) struct NotReady(Arc<str>);

/// A configuration, and the secrets it was built from.
#[derive(Debug)]
pub(super) struct Made<C> {
    certificate: Option<Arc<Certificate>>,
    trust: Option<Arc<TrustAnchors>>,
    /// The configuration.
    pub(super) config: C,
}

impl<C> Made<C> {
    /// Our certificate.
    pub(super) fn certificate(&self) -> Option<&Arc<Certificate>> {
        self.certificate.as_ref()
    }
}

/// The last configuration.
#[derive(Debug)]
pub(super) struct Cache<C>(ArcSwapOption<Made<C>>);

impl<C> Default for Cache<C> {
    fn default() -> Self {
        Self(ArcSwapOption::empty())
    }
}

impl<C> Cache<C> {
    /// The configuration for the present secrets, rebuilt if they have changed. Two threads may do so at the same time:
    /// either result is kept.
    ///
    /// # Errors
    /// If a secret is missing, or the configuration cannot be built.
    pub(super) fn get(
        &self,
        certificate: Option<&Arc<Slot<Certificate>>>,
        trust: Option<&Arc<Slot<TrustAnchors>>>,
        make: impl FnOnce(Option<&Arc<Certificate>>, Option<&Arc<TrustAnchors>>) -> Result<C, rustls::Error>,
    ) -> io::Result<Arc<Made<C>>> {
        let certificate = certificate.map(current).transpose()?;
        let certificate = certificate.as_ref().and_then(|guard| guard.as_ref());
        let trust = trust.map(current).transpose()?;
        let trust = trust.as_ref().and_then(|guard| guard.as_ref());
        if let Some(made) = &*self.0.load()
            && same(made.certificate.as_ref(), certificate)
            && same(made.trust.as_ref(), trust)
        {
            return Ok(made.clone());
        }
        let made = Arc::new(Made {
            config: make(certificate, trust).map_err(io::Error::other)?,
            certificate: certificate.cloned(),
            trust: trust.cloned(),
        });
        self.0.store(Some(made.clone()));
        Ok(made)
    }
}

fn current<T>(slot: &Arc<Slot<T>>) -> io::Result<Guard<Option<Arc<T>>>> {
    let value = slot.get();
    if value.is_none() {
        return Err(io::Error::other(NotReady(slot.name().clone())));
    }
    Ok(value)
}

fn same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}
