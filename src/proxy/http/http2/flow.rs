//! Flow-control windows (RFC 9113 section 5.2) of streams and connections.

/// The initial window size.
pub(super) const INITIAL: u32 = 65_535;

/// The largest window size.
pub(super) const MOST: u32 = u32::MAX >> 1;

/// A receive window.
///
/// `size` is always the sum of what the peer may still send, what is buffered here, and what was forwarded but not yet
/// given back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receiving {
    size: u32,
    left: u32,
    /// Forwarded and not yet given back: a WINDOW_UPDATE is sent when this is half of the window.
    freed: u32,
}

impl Receiving {
    pub(super) fn new(size: u32) -> Self {
        Self {
            size,
            left: size,
            freed: 0,
        }
    }

    /// Whether the window is accounted for, with `held` bytes buffered.
    #[cfg(any(test, fuzzing))]
    pub(super) fn is_whole_with(&self, held: usize) -> bool {
        u64::from(self.left) + u64::from(self.freed) + held as u64 == u64::from(self.size)
    }

    /// Takes window for received data; `false`: the peer exceeded it.
    pub(super) fn take(&mut self, len: u32) -> bool {
        let left = self.left.checked_sub(len);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    /// Gives window back for forwarded data. Returns the increment to send, if one is due.
    pub(super) fn free(&mut self, len: u32) -> Option<u32> {
        self.freed += len;
        if self.freed == 0 || self.freed < self.size / 2 {
            return None;
        }
        self.left += self.freed;
        Some(std::mem::take(&mut self.freed))
    }
}

/// A send window; negative if the peer has reduced the initial window size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending(i32);

impl Sending {
    pub(super) fn new(size: u32) -> Self {
        Self(i32::try_from(size).unwrap_or(i32::MAX))
    }

    /// How much may be sent.
    pub(super) fn room(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    /// Takes window for data, for which there must be room.
    pub(super) fn take(&mut self, len: usize) {
        debug_assert!(len <= self.room());
        self.0 -= i32::try_from(len).unwrap_or(i32::MAX);
    }

    /// Widens it; `false`: it would exceed the maximum.
    pub(super) fn widen(&mut self, by: i64) -> bool {
        let widened = i32::try_from(i64::from(self.0) + by);
        self.0 = widened.unwrap_or(self.0);
        widened.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_byte_of_a_window_is_lost(size in 1..1000_u32, steps in prop::collection::vec((any::<bool>(), 0..400_u32), 0..200)) {
            let mut window = Receiving::new(size);
            // What the peer believes to be left, and what we hold.
            let (mut believed, mut held) = (size, 0);
            for (comes, len) in steps {
                if comes {
                    prop_assert_eq!(window.take(len), len <= believed);
                    if len <= believed {
                        (believed, held) = (believed - len, held + len);
                    }
                } else {
                    let len = len.min(held);
                    held -= len;
                    believed += window.free(len).unwrap_or(0);
                }
                prop_assert!(believed + held <= size);
            }
            believed += window.free(held).unwrap_or(0);
            // Whoever holds nothing lets the peer send at least half.
            prop_assert!(believed >= size.div_ceil(2), "{} of {}", believed, size);
        }
    }

    #[test]
    fn a_window_may_become_less_than_nothing_and_not_too_much() {
        let mut window = Sending::new(10);
        window.take(8);
        assert!(window.widen(-5));
        assert_eq!(window.room(), 0);
        assert!(window.widen(4));
        assert_eq!(window.room(), 1);
        assert!(!window.widen(MOST.into()));
        assert!(window.widen(i64::from(MOST) - 1));
        assert_eq!(window.room(), MOST as usize);
    }
}
