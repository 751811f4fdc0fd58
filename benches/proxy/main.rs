//! Cost of the bundled proxy compared with Envoy: `cargo bench --bench proxy [-- [quick]
//! [build=PROGRAM] [SCENARIO…]]`.
//!
//! One run on one machine with one configuration: a control plane serves the same mesh to both
//! proxies. A proxy (or a pair) has a CPU and one worker; backend and load share the other CPU.
//! nginx and HAProxy are included for plain HTTP/1.1, and another build of `topsail` if given, to
//! measure the effect of a change. Latencies without a proxy show the share of the load generator
//! and the machine. Needs `wrk`, `h2load` (nghttp2-client), `nginx`, `haproxy`, `taskset`,
//! `unshare` and `ip`.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on ends there")]

mod backend;
mod chain;
mod documents;
mod figures;
mod load;
mod mesh;
mod pace;
mod peers;
mod process;
#[path = "../process/usage.rs"]
mod usage;

use std::time::Duration;

use figures::{Row, Table};
use load::Load;
use mesh::{Contender, Mesh};
use process::Cpu;

/// Settings of a run.
#[derive(Clone, Copy)]
struct Scale {
    repetitions: usize,
    seconds: u64,
    idle_connections: usize,
}

/// A scenario: a path through the mesh and a load.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Scenario {
    name: &'static str,
    way: Way,
    load: Load,
}

/// A path through the mesh.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Through the client's sidecar.
    Sidecar,
    /// Through both sidecars, with mutual TLS.
    Pair,
    /// Through a proxy with access logs.
    Logging,
    /// Through a pair of proxies with mutual TLS, a hundred routes, retries and access logs.
    FullChain,
}

impl Way {
    async fn start(self, contender: &Contender) -> Mesh {
        match self {
            Way::Sidecar => Mesh::start(contender, false).await,
            Way::Pair => Mesh::start(contender, true).await,
            Way::Logging => Mesh::logging(contender).await,
            Way::FullChain => Mesh::full_chain(contender).await,
        }
    }
}

const SCENARIOS: [Scenario; 12] = [
    Scenario {
        name: "http1",
        way: Way::Sidecar,
        load: Load::Http1 { routes: false },
    },
    Scenario {
        name: "http1 routes",
        way: Way::Sidecar,
        load: Load::Http1 { routes: true },
    },
    Scenario {
        name: "http1 log",
        way: Way::Logging,
        load: Load::Http1 { routes: false },
    },
    Scenario {
        name: "http2",
        way: Way::Sidecar,
        load: Load::Http2,
    },
    Scenario {
        name: "grpc",
        way: Way::Sidecar,
        load: Load::Grpc,
    },
    Scenario {
        name: "tcp",
        way: Way::Sidecar,
        load: Load::Tcp,
    },
    Scenario {
        name: "tcp bulk",
        way: Way::Sidecar,
        load: Load::Bulk,
    },
    Scenario {
        name: "pair http1",
        way: Way::Pair,
        load: Load::Http1 { routes: false },
    },
    Scenario {
        name: "full chain",
        way: Way::FullChain,
        load: Load::Http1 { routes: true },
    },
    Scenario {
        name: "pair grpc",
        way: Way::Pair,
        load: Load::Grpc,
    },
    Scenario {
        name: "pair tcp",
        way: Way::Pair,
        load: Load::Tcp,
    },
    Scenario {
        name: "pair bulk",
        way: Way::Pair,
        load: Load::Bulk,
    },
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let scale = match words.iter().any(|word| word == "quick") {
        true => Scale {
            repetitions: 1,
            seconds: 2,
            idle_connections: 1_000,
        },
        false => Scale {
            repetitions: 5,
            seconds: 3,
            idle_connections: 10_000,
        },
    };
    let mut contenders = vec![Contender::envoy(), Contender::topsail()];
    contenders.extend(
        words
            .iter()
            .filter_map(|word| word.strip_prefix("build="))
            .map(Contender::other_build),
    );
    let is_scenario = |word: &&String| *word != "quick" && !word.starts_with("build=");
    let wanted: Vec<_> = words.iter().filter(is_scenario).collect();
    process::require(&["wrk", "h2load", "nginx", "haproxy", "taskset", "unshare", "ip"]);
    process::enter_own_network();
    process::raise_file_limit();
    process::pin_to(process::LOAD_CPU);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run(&contenders, &wanted, scale));
}

/// Runs the given scenarios, or all, and prints the results.
async fn run(contenders: &[Contender], wanted: &[&String], scale: Scale) {
    backend::start().await;
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| *word == name);
    let mut table = Table::new();
    for scenario in SCENARIOS.iter().filter(|one| is_wanted(one.name)) {
        measure(contenders, *scenario, scale, &mut table).await;
    }
    if is_wanted("memory") {
        memory(contenders, scale, &mut table).await;
    }
    table.print();
}

/// Measures all contenders in turn, restarted for each repetition, so that drift affects all
/// equally.
async fn measure(contenders: &[Contender], scenario: Scenario, scale: Scale, table: &mut Table) {
    let load = scenario.load;
    let mut rows: Vec<Row> = Vec::new();
    for _ in 0..scale.repetitions {
        for contender in contenders {
            let mesh = scenario.way.start(contender).await;
            let (target, pids) = (mesh.target(load), mesh.sidecars());
            sample(load, contender.name, target, &pids, scale, &mut rows).await;
        }
        if scenario.name == "http1" {
            for peer in [peers::Peer::Nginx, peers::Peer::Haproxy] {
                let running = peers::start(peer);
                sample(load, peer.name(), running.target(), &[running.pid()], scale, &mut rows).await;
            }
        }
        if load.has_rate() {
            let rate = half_of_envoy(&rows);
            let time = Duration::from_secs(scale.seconds);
            let outcome = load.paced(backend::ADDRESS, rate, time).await;
            figures::push(&mut rows, "no proxy", HALF, &outcome, Cpu::NONE);
        }
    }
    table.add(scenario.name, rows);
}

/// The load whose latencies are compared.
const HALF: &str = "half of Envoy's max";

/// Half of Envoy's maximum rate, in requests per second.
fn half_of_envoy(rows: &[Row]) -> u64 {
    (figures::median_rate(rows, "Envoy") / 2.0) as u64
}

/// Measures the maximum rate, and latencies at a fixed lower rate.
async fn sample(
    load: Load,
    name: &'static str,
    target: std::net::SocketAddr,
    pids: &[u32],
    scale: Scale,
    rows: &mut Vec<Row>,
) {
    const LOW_RATE: u64 = 2_000;
    let time = Duration::from_secs(scale.seconds);
    // Warm-up.
    load.maximum(target, Duration::from_secs(1)).await;
    let mut before = Cpu::of(pids);
    let mut used = || {
        let now = Cpu::of(pids);
        now.since(std::mem::replace(&mut before, now))
    };
    let maximum = load.maximum(target, time).await;
    figures::push(rows, name, "max", &maximum, used());
    if load.has_rate() {
        let paced = load.paced(target, LOW_RATE, time).await;
        figures::push(rows, name, "2,000/s", &paced, used());
        // Latencies of all contenders at half of Envoy's maximum.
        let paced = load.paced(target, half_of_envoy(rows), time).await;
        figures::push(rows, name, HALF, &paced, used());
    }
}

/// Resident memory, idle and with many connections.
async fn memory(contenders: &[Contender], scale: Scale, table: &mut Table) {
    for contender in contenders {
        let mesh = Mesh::start(contender, false).await;
        let pids = mesh.sidecars();
        // Wait until memory has settled.
        tokio::time::sleep(Duration::from_secs(6)).await;
        let idle = process::rss_mb(&pids);
        let connections =
            load::idle_connections(mesh.target(Load::Http1 { routes: false }), scale.idle_connections).await;
        let many = process::rss_mb(&pids);
        table.memory(contender.name, idle, connections.len(), many);
    }
}
