//! Answers the admin server's queries about the control thread's state.

use std::cell::RefCell;
use std::time::Instant;

use tokio::sync::mpsc;

use super::control::Control;
use super::{DRAIN_TIME, until};
use crate::proxy::admin::{Ask, Drain, Dump, Held, PendingTarget};
use crate::proxy::store::Name;
use crate::xds::ResourceType;

/// Answers queries until the proxy is asked to stop.
pub(super) async fn answer(control: &RefCell<Control>, mut asks: mpsc::UnboundedReceiver<Ask>) {
    let mut closing = None;
    loop {
        tokio::select! {
            ask = asks.recv() => match ask {
                // The asker may have gone.
                Some(Ask::Dump(to)) => drop(to.send(control.borrow().dump())),
                Some(Ask::Drain(drain)) => {
                    control.borrow_mut().drain_listeners(drain);
                    if drain.graceful {
                        closing = Some((Instant::now() + DRAIN_TIME, drain));
                    }
                }
                Some(Ask::Quit) => return tracing::info!("shutting down on request of the admin interface"),
                None => return std::future::pending().await,
            },
            () = until(closing.map(|(end, _)| end)) => {
                if let Some((_, drain)) = closing.take() {
                    control.borrow_mut().drain_listeners(Drain { graceful: false, ..drain });
                }
            }
        }
    }
}

impl Control {
    /// Everything that `/config_dump` and the like show.
    pub(super) fn dump(&self) -> Dump {
        let held = self.store.seen().into_iter().map(|seen| {
            let version = match seen.fixed {
                true => None,
                false => self.version(seen.kind, &seen.name),
            };
            Held {
                version: version.map_or_else(|| "".into(), |version| version.as_str().into()),
                updated: self.updated(seen.kind, &seen.name),
                kind: seen.kind,
                name: seen.name,
                body: seen.body,
                fixed: seen.fixed,
                warming: seen.warming,
            }
        });
        let unready = self.store.waiting().map(|waiting| PendingTarget {
            name: match waiting.kind {
                ResourceType::Listener => format!("init manager Listener {}", waiting.name),
                _ => format!("init manager Cluster {}", waiting.name),
            },
            targets: waiting.missing.iter().map(target).collect(),
        });
        Dump {
            resources: held.collect(),
            unready: unready.collect(),
        }
    }
}

/// A resource that has not arrived, by the name of Envoy's init target.
fn target((kind, name): &(ResourceType, &Name)) -> String {
    match kind {
        ResourceType::Secret => format!("SdsApi {name}"),
        ResourceType::Route => format!("RdsRouteConfigSubscription RDS init {name}"),
        other => format!("{other} {name}"),
    }
}
