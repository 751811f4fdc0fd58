//! Follows the state of the control plane through its admin API.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{self, MissedTickBehavior};

use super::directory::last_change;
use super::hint::{self, Hint};
use crate::envoy;

/// Poll interval.
const POLL: Duration = Duration::from_millis(200);
/// Request timeout.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A change that takes longer than this to be ACKed is not attributed to the edit.
const MAX_EDIT_TO_ACK: Duration = Duration::from_secs(60);

/// The last known state of the control plane.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PlaneState {
    /// Whether it responds; if not, the other fields are from the last response.
    pub answers: bool,
    /// The current generation.
    pub generation: Option<u64>,
    /// Number of objects in force.
    pub objects: u64,
    /// Time from the last edit to the last proxy's ACK.
    pub edit_to_ack: Option<Duration>,
    /// Diagnostics of the directory, one line each.
    pub problems: Vec<String>,
    /// Sync state (`SYNCED`, `STALE`, …) by workload.
    pub proxies: BTreeMap<String, &'static str>,
    /// The line to suggest editing.
    pub hint: Option<Hint>,
}

/// Polls the control plane and the directory until the receiver is dropped.
pub(super) async fn follow(admin: SocketAddr, directory: PathBuf, states: watch::Sender<PlaneState>) {
    let mut edits = Edits::default();
    let mut seen = None;
    let mut tick = time::interval(POLL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !states.is_closed() {
        tick.tick().await;
        let mut state = states.borrow().clone();
        let changed = last_change(&directory);
        if changed != seen {
            seen = changed;
            state.hint = hint::find(&directory).or(state.hint);
        }
        state.answers = match ask(admin).await {
            Some(answers) => {
                answers.read_into(&mut state);
                state.edit_to_ack = edits.acked(&answers.generation, changed);
                true
            }
            None => {
                // After a restart, the first generation is not the result of an edit.
                edits.edited = None;
                false
            }
        };
        states.send_if_modified(|former| {
            *former != state && {
                *former = state;
                true
            }
        });
    }
}

struct Answers {
    generation: Value,
    diagnostics: Value,
    proxies: Value,
}

async fn ask(admin: SocketAddr) -> Option<Answers> {
    let get = async |path| {
        let (status, body) = envoy::get(admin, path).await.ok()?;
        status.is_success().then(|| serde_json::from_slice(&body).ok())?
    };
    let answers = async {
        Some(Answers {
            generation: get("/api/v1/generation").await?,
            diagnostics: get("/api/v1/diagnostics").await?,
            proxies: get("/api/v1/proxies").await?,
        })
    };
    time::timeout(TIMEOUT, answers).await.ok()?
}

impl Answers {
    fn read_into(&self, state: &mut PlaneState) {
        state.generation = self.generation["number"].as_u64();
        state.objects = self.generation["objects"].as_u64().unwrap_or_default();
        state.problems = self
            .diagnostics
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(problem)
            .collect();
        state.proxies = self
            .proxies
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(proxy)
            .collect();
    }
}

/// Formats a diagnostic as `path:line:column: error[CODE]: message`; `None` for severity info.
fn problem(diagnostic: &Value) -> Option<String> {
    let text = |name: &str| diagnostic[name].as_str().unwrap_or_default();
    let place = match diagnostic["file"].as_str() {
        Some(file) => format!("{file}:{}:{}: ", diagnostic["line"], diagnostic["column"]),
        None => String::new(),
    };
    let severity = text("severity");
    (severity != "info").then(|| format!("{place}{severity}[{}]: {}", text("code"), text("message")))
}

/// A workload and its worst sync state.
fn proxy(status: &Value) -> Option<(String, &'static str)> {
    const WORST_FIRST: [&str; 3] = ["NACKED", "STALE", "SYNCED"];
    let states: Vec<&str> = status["types"]
        .as_object()?
        .values()
        .filter_map(Value::as_str)
        .collect();
    let worst = WORST_FIRST.into_iter().find(|state| states.contains(state));
    Some((status["workload"].as_str()?.to_owned(), worst.unwrap_or("NOT SENT")))
}

/// Measures the time from an edit to its ACKs.
#[derive(Debug, Default)]
struct Edits {
    /// The generation seen last, and when the directory was edited to produce it; `None` for the first
    /// generation, which is not the result of an edit.
    edited: Option<(u64, Option<SystemTime>)>,
    took: Option<Duration>,
}

impl Edits {
    /// Time from the last edit to its last ACK. `changed` is the time of the directory's last change.
    fn acked(&mut self, generation: &Value, changed: Option<SystemTime>) -> Option<Duration> {
        let number = generation["number"].as_u64()?;
        match self.edited {
            None => self.edited = Some((number, None)),
            Some((known, _)) if known != number => self.edited = Some((number, changed)),
            Some(_) => {}
        }
        let converged = &generation["converged"];
        if let (Some((_, Some(edited))), Some(acked)) = (self.edited, converged["generation"].as_u64())
            && acked == number
        {
            // A proxy that reconnects later ACKs the same generation again.
            self.edited = Some((number, None));
            let at = UNIX_EPOCH + Duration::from_micros(converged["at"].as_u64().unwrap_or_default());
            self.took = at
                .duration_since(edited)
                .ok()
                .filter(|took| *took < MAX_EDIT_TO_ACK)
                .or(self.took);
        }
        self.took
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn admin_responses_are_parsed() {
        let answers = Answers {
            generation: json!({"number": 3, "hash": "ab", "objects": 24, "accepted_at": 1}),
            diagnostics: json!([
                {"severity": "error", "code": "TS0002", "message": "no field `x`", "file": "a.yaml", "line": 2, "column": 3},
                {"severity": "info", "code": "TS0003", "message": "nothing", "file": "a.yaml", "line": 1, "column": 1},
                {"severity": "warning", "code": "TS0004", "message": "odd", "file": null, "line": null, "column": null},
            ]),
            proxies: json!([
                {"workload": "a.default", "types": {"CDS": "SYNCED", "RDS": "STALE", "SDS": "NOT_SENT"}},
                {"workload": "b.default", "types": {"CDS": "SYNCED", "RDS": "NACKED", "EDS": "STALE"}},
                {"workload": "c.default", "types": {"CDS": "SYNCED", "EDS": "NOT_SENT"}},
                {"workload": "d.default", "types": {}},
            ]),
        };
        let mut state = PlaneState::default();
        answers.read_into(&mut state);
        assert_eq!((state.generation, state.objects), (Some(3), 24));
        assert_eq!(
            state.problems,
            ["a.yaml:2:3: error[TS0002]: no field `x`", "warning[TS0004]: odd"]
        );
        let proxies: Vec<_> = state
            .proxies
            .iter()
            .map(|(name, state)| (name.as_str(), *state))
            .collect();
        let expected = [
            ("a.default", "STALE"),
            ("b.default", "NACKED"),
            ("c.default", "SYNCED"),
            ("d.default", "NOT SENT"),
        ];
        assert_eq!(proxies, expected);
    }

    #[test]
    fn edits_are_timed_until_the_last_ack() {
        let edited = UNIX_EPOCH + Duration::from_secs(1000);
        let generation = |number: u64, acked: u64, millis: u64| json!({"number": number, "converged": {"generation": acked, "at": 1_000_000_000 + millis * 1000}});
        let mut edits = Edits::default();
        assert_eq!(
            edits.acked(&generation(1, 1, 5), Some(edited)),
            None,
            "the first is no edit"
        );
        assert_eq!(edits.acked(&generation(2, 1, 5), Some(edited)), None, "not ACKed yet");
        assert_eq!(
            edits.acked(&generation(2, 2, 8), Some(edited)),
            Some(Duration::from_millis(8))
        );
        assert_eq!(
            edits.acked(&generation(2, 2, 9000), Some(edited)),
            Some(Duration::from_millis(8)),
            "only once"
        );
        let comment = Some(edited + Duration::from_secs(9));
        assert_eq!(
            edits.acked(&generation(2, 2, 8), comment),
            Some(Duration::from_millis(8)),
            "nothing was sent for it"
        );
        assert_eq!(edits.acked(&json!(null), None), None);
    }

    #[tokio::test]
    async fn a_stopped_server_does_not_respond() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let (sender, mut states) = watch::channel(PlaneState {
            answers: true,
            ..PlaneState::default()
        });
        let following = tokio::spawn(follow(nobody, "nowhere".into(), sender));
        states.changed().await.unwrap();
        assert!(!states.borrow().answers);
        drop(states);
        following.await.unwrap();
    }
}
