//! gRPC statistics of a cluster: `cluster.<name>.grpc.` and `cluster.<name>.grpc-web.`

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;

/// The statuses defined by gRPC: 0 to 16.
const STATUSES: usize = 17;

/// How many undefined statuses have counters of their own: hosts choose them, so there must be a limit.
const OTHERS: usize = 64;

/// How many methods have counters of their own: clients choose them, so there must be a limit. Others are counted
/// together.
const METHODS: usize = 1024;

/// The gRPC calls of a cluster, allocated with the first call.
#[derive(Debug, Default)]
pub(crate) struct GrpcStats {
    together: OnceLock<Arc<CallStats>>,
    methods: ArcSwapOption<HashMap<Box<str>, Arc<CallStats>>>,
}

impl GrpcStats {
    /// Calls that are not counted by method.
    pub(crate) fn together(&self) -> Arc<CallStats> {
        self.together.get_or_init(Arc::default).clone()
    }

    /// Calls of one method, `service/method`.
    pub(crate) fn of_method(&self, method: &str) -> Arc<CallStats> {
        let known = || self.methods.load().as_ref()?.get(method).cloned();
        if let Some(known) = known() {
            return known;
        }
        if self.methods.load().as_ref().is_some_and(|all| all.len() >= METHODS) {
            return self.together();
        }
        let new = Arc::<CallStats>::default();
        self.methods.rcu(|all| {
            let mut all = all.as_deref().cloned().unwrap_or_default();
            all.entry(method.into()).or_insert_with(|| new.clone());
            Some(Arc::new(all))
        });
        // Another worker may have been faster.
        known().unwrap_or(new)
    }

    /// All counters, each group with its prefix, which starts with `protocol` (`grpc` or `grpc-web`).
    pub(super) fn counted(&self, protocol: &str) -> Vec<(String, Arc<CallStats>)> {
        let together = self.together.get().map(|calls| (format!("{protocol}."), calls.clone()));
        let methods = self.methods.load_full().unwrap_or_default();
        let methods = methods.iter().map(|(method, calls)| {
            let prefix = format!("{protocol}.{}.", method.replacen('/', ".", 1));
            (prefix, calls.clone())
        });
        together.into_iter().chain(methods).collect()
    }
}

/// Counters of calls.
#[derive(Debug, Default)]
pub(crate) struct CallStats {
    /// `request_message_count`.
    pub(crate) request_messages: AtomicU64,
    /// `response_message_count`.
    pub(crate) response_messages: AtomicU64,
    success: AtomicU64,
    failure: AtomicU64,
    total: AtomicU64,
    statuses: [AtomicU64; STATUSES],
    /// Undefined statuses, which are rare.
    others: Mutex<BTreeMap<Box<str>, Arc<AtomicU64>>>,
}

impl CallStats {
    /// Counts a call that ended with this status.
    pub(crate) fn ended(&self, status: &str) {
        // As in Envoy, `05` is another status.
        let plain = status.len() == 1 || !status.starts_with(['0', '+']);
        let number = status.parse::<usize>().ok().filter(|_| plain);
        match number.and_then(|number| self.statuses.get(number)) {
            Some(counter) => {
                counter.fetch_add(1, Relaxed);
            }
            None => self.ended_oddly(status),
        }
        let outcome = if number == Some(0) {
            &self.success
        } else {
            &self.failure
        };
        outcome.fetch_add(1, Relaxed);
        self.total.fetch_add(1, Relaxed);
    }

    fn ended_oddly(&self, status: &str) {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if others.len() < OTHERS || others.contains_key(status) {
            others.entry(status.into()).or_default().fetch_add(1, Relaxed);
        }
    }

    /// The counters that are not zero: Envoy creates them on first use.
    pub(super) fn counters(&self, mut tell: impl FnMut(&str, &AtomicU64)) {
        let named = [
            ("success", &self.success),
            ("failure", &self.failure),
            ("total", &self.total),
            ("request_message_count", &self.request_messages),
            ("response_message_count", &self.response_messages),
        ];
        let named = named.map(|(name, counter)| (Cow::from(name), counter)).into_iter();
        let statuses = self.statuses.iter().enumerate();
        let statuses = statuses.map(|(status, counter)| (Cow::from(status.to_string()), counter));
        named
            .chain(statuses)
            .filter(|(_, counter)| counter.load(Relaxed) > 0)
            .for_each(|(name, counter)| tell(&name, counter));
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.iter().for_each(|(name, counter)| tell(name, counter));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(stats: &CallStats) -> Vec<(String, u64)> {
        let mut counted = Vec::new();
        stats.counters(|name, counter| counted.push((name.to_owned(), counter.load(Relaxed))));
        counted
    }

    #[test]
    fn statuses_are_counted_by_name_and_by_what_they_mean() {
        let stats = CallStats::default();
        for status in ["0", "5", "0", "17", "000", "text", "16"] {
            stats.ended(status);
        }
        let wanted = [
            ("success", 2),
            ("failure", 5),
            ("total", 7),
            ("0", 2),
            ("5", 1),
            ("16", 1),
            ("000", 1),
            ("17", 1),
            ("text", 1),
        ];
        assert_eq!(counted(&stats), wanted.map(|(name, count)| (name.to_owned(), count)));
    }

    #[test]
    fn hosts_cannot_have_names_remembered_without_end() {
        let stats = CallStats::default();
        (0..1000).for_each(|number| stats.ended(&format!("odd-{number}")));
        stats.ended("odd-0");
        let counted = counted(&stats);
        assert_eq!(
            counted.iter().filter(|(name, _)| name.starts_with("odd-")).count(),
            OTHERS
        );
        assert!(counted.contains(&("odd-0".to_owned(), 2)) && counted.contains(&("total".to_owned(), 1001)));
    }

    #[test]
    fn methods_are_counted_each_by_itself() {
        let stats = GrpcStats::default();
        assert!(stats.counted("grpc").is_empty());
        stats.of_method("a.B/C").ended("0");
        stats.of_method("a.B/C").ended("1");
        stats.together().ended("2");
        let counted = stats.counted("grpc").into_iter();
        let counted: Vec<_> = counted
            .map(|(prefix, calls)| (prefix, calls.total.load(Relaxed)))
            .collect();
        assert_eq!(counted, [("grpc.".to_owned(), 1), ("grpc.a.B.C.".to_owned(), 2)]);
    }
}
