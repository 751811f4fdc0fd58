//! The limit of downstream connections of the process (`global_downstream_max_connections`).

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// A limit and the connections that count against it, shared by all workers.
#[derive(Debug)]
pub(crate) struct ConnectionLimit {
    most: u64,
    open: AtomicU64,
}

/// A connection that counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Admitted(Arc<ConnectionLimit>);

impl ConnectionLimit {
    /// A limit of `most` connections.
    pub(crate) fn new(most: u64) -> Self {
        Self {
            most,
            open: AtomicU64::new(0),
        }
    }

    /// Counts one more connection; `None` at the limit.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Admitted> {
        let one_more = |open: u64| (open < self.most).then_some(open + 1);
        let counted = self.open.fetch_update(Relaxed, Relaxed, one_more);
        counted.is_ok().then(|| Admitted(self.clone()))
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_and_who_goes_makes_room() {
        let limit = Arc::new(ConnectionLimit::new(2));
        let (first, second) = (limit.admit(), limit.admit());
        assert!(first.is_some() && second.is_some() && limit.admit().is_none());
        drop(first);
        let third = limit.admit();
        assert!(third.is_some() && limit.admit().is_none());
    }
}
