//! Compares the bundled proxy with Envoy, which is the reference.

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::plane::Plane;

/// Differences that occur repeatedly; single ones may be due to load on the machine.
pub async fn lasting<T: Debug + PartialEq>(compared: impl AsyncFn(Plane) -> BTreeMap<String, T>) -> Vec<String> {
    let mut lasting: Option<Vec<String>> = None;
    let mut shown = String::new();
    for _ in 0..3 {
        let (envoy, ours) = tokio::join!(compared(Plane::Envoy), compared(Plane::Topsail));
        let names = envoy
            .keys()
            .chain(ours.keys())
            .filter(|name| envoy.get(*name) != ours.get(*name));
        let differ: BTreeMap<_, _> = names.map(|name| (name, (envoy.get(name), ours.get(name)))).collect();
        shown = format!("{differ:#?}");
        let before = |name: &str| {
            lasting
                .as_ref()
                .is_none_or(|before| before.iter().any(|one| one == name))
        };
        let still = differ.keys().filter(|name| before(name)).map(|name| (**name).clone());
        let still = still.collect::<Vec<_>>();
        if still.is_empty() {
            return still;
        }
        lasting = Some(still);
    }
    let mut all = lasting.unwrap_or_default();
    all.push(shown);
    all
}
