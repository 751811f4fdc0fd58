//! Where the current version of something lies that is replaced as a whole.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};

/// The place of a named resource. It exists from the moment something names the resource, filled or not, so
/// that what names it need not be changed when it comes, changes or goes.
///
/// The control thread writes; workers read without a lock.
pub(crate) struct Slot<T> {
    name: Arc<str>,
    value: ArcSwapOption<T>,
}

impl<T> Slot<T> {
    /// An empty place.
    pub(crate) fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            value: ArcSwapOption::empty(),
        }
    }

    /// A place that is filled.
    pub(crate) fn filled(name: impl Into<Arc<str>>, value: Arc<T>) -> Self {
        let slot = Self::new(name);
        slot.set(Some(value));
        slot
    }

    /// The name of the resource.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The current version, for a short look.
    pub(crate) fn get(&self) -> Guard<Option<Arc<T>>> {
        self.value.load()
    }

    /// The current version, to keep.
    pub(crate) fn take(&self) -> Option<Arc<T>> {
        self.value.load_full()
    }

    /// Puts another version in its place, or none.
    pub(crate) fn set(&self, value: Option<Arc<T>>) {
        self.value.store(value);
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.value.load().is_some() { "filled" } else { "empty" };
        write!(f, "`{}` ({state})", self.name)
    }
}
