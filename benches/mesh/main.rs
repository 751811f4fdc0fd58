//! Cost of the control plane: `cargo bench --bench mesh [-- QUICK|SECTION…]`.
//!
//! Uses the built `topsail serve`, files on disk, TLS, a real Envoy, and simulated proxies that
//! speak delta xDS like Envoy. Latencies are from closing a file to the server receiving the last
//! ACK, by the same clock. Prints a Markdown table.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on ends there")]

mod client;
mod directory;
mod envoy;
mod server;
mod table;
#[path = "../process/usage.rs"]
mod usage;

use std::time::{Duration, Instant};

use client::Fleet;
use directory::{Directory, Layout};
use envoy::RealEnvoy;
use server::Server;
use table::{Spread, Table};

/// Settings of a run.
struct Scale {
    services: usize,
    many_services: usize,
    proxies: usize,
    edits: usize,
}

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let quick = words.iter().any(|word| word == "quick");
    let wanted = |section: &str| words.iter().all(|word| word == "quick") || words.iter().any(|word| word == section);
    let scale = match quick {
        true => Scale {
            services: 100,
            many_services: 1_000,
            proxies: 20,
            edits: 20,
        },
        false => Scale {
            services: 1_000,
            many_services: 10_000,
            proxies: 1_000,
            edits: 200,
        },
    };
    let mut table = Table::new();
    if wanted("base") {
        base(&mut table);
    }
    if wanted("envoy") {
        for layout in [Layout::Spread, Layout::OnePort] {
            one_envoy(&scale, layout, &mut table).await;
        }
    }
    if wanted("fleet") {
        for layout in [Layout::Spread, Layout::OnePort] {
            fleet(&scale, layout, &mut table).await;
        }
    }
    if wanted("edit") {
        edits(&scale, &mut table).await;
    }
    if wanted("cold") {
        cold_start(&scale, &mut table).await;
    }
    table.print();
}

/// Memory of an idle server.
fn base(table: &mut Table) {
    let directory = Directory::empty();
    let server = Server::start(&directory);
    server.wait_until_ready();
    table.row(
        "memory of the server, nothing to serve",
        &format!("{:.1} MB", server.rss_mb()),
        "< 25 MB",
    );
}

/// Latency from file write to last ACK, with one Envoy.
async fn one_envoy(scale: &Scale, layout: Layout, table: &mut Table) {
    let directory = Directory::generate(scale.services, layout);
    let server = Server::start(&directory);
    server.wait_until_ready();
    let envoy = RealEnvoy::start(&server).await;
    server.wait_until_converged(None).await;
    let times = measure_edits(scale, &directory, &server).await;
    drop(envoy);
    let goal = if layout == Layout::Spread {
        "p50 < 10 ms, p99 < 25 ms"
    } else {
        "-"
    };
    let name = format!("file write to ACK, {} services {layout}, 1 Envoy", scale.services);
    table.row(&name, &Spread::of(times).millis(), goal);
}

/// Latency from file write to last ACK, and memory, with many simulated proxies.
async fn fleet(scale: &Scale, layout: Layout, table: &mut Table) {
    let directory = Directory::generate(scale.services, layout);
    let server = Server::start(&directory);
    server.wait_until_ready();
    let before = server.rss_mb();
    let fleet = Fleet::connect(&server, scale.proxies).await;
    server.wait_until_converged(Some(scale.proxies)).await;
    let edits = Scale {
        edits: scale.edits.min(50),
        ..*scale
    };
    let times = measure_edits(&edits, &directory, &server).await;
    let per_proxy = (server.rss_mb() - before) * 1024.0 / scale.proxies as f64;
    fleet.disconnect().await;
    let goal = if layout == Layout::Spread { "max < 250 ms" } else { "-" };
    let name = format!(
        "file write to last ACK, {} services {layout}, {} proxies",
        scale.services, scale.proxies
    );
    table.row(&name, &Spread::of(times).millis(), goal);
    let goal = if layout == Layout::Spread { "< 100 KB" } else { "-" };
    let name = format!(
        "memory of the server for each of {} proxies, {} services {layout}",
        scale.proxies, scale.services
    );
    table.row(
        &name,
        &format!("{per_proxy:.0} KB (server {before:.0} MB without them)"),
        goal,
    );
}

/// Cost of an edit to the server: in a small and a large mesh, and with all services on one port.
async fn edits(scale: &Scale, table: &mut Table) {
    let small = edit_cost(scale, scale.services, Layout::Spread, table).await;
    let large = edit_cost(scale, scale.many_services, Layout::Spread, table).await;
    table.row("ratio of the two", &format!("{:.2}", large / small), "< 2");
    edit_cost(scale, scale.services, Layout::OnePort, table).await;
}

/// CPU time of an edit in seconds, and its latency if the proxy applies nothing.
async fn edit_cost(scale: &Scale, services: usize, layout: Layout, table: &mut Table) -> f64 {
    let directory = Directory::generate(services, layout);
    let server = Server::start(&directory);
    server.wait_until_ready();
    let fleet = Fleet::connect(&server, 1).await;
    server.wait_until_converged(Some(1)).await;
    let before = server.cpu_seconds();
    let times = measure_edits(scale, &directory, &server).await;
    let cost = (server.cpu_seconds() - before) / scale.edits as f64;
    fleet.disconnect().await;
    let name = format!("CPU time of a one-object edit, {services} services {layout}, 1 simulated proxy");
    table.row(&name, &format!("{:.2} ms (mean of {})", cost * 1e3, scale.edits), "-");
    let name = format!("file write to ACK, {services} services {layout}, 1 simulated proxy");
    table.row(&name, &Spread::of(times).millis(), "-");
    cost
}

/// From process start to the first response.
async fn cold_start(scale: &Scale, table: &mut Table) {
    let directory = Directory::generate(scale.many_services, Layout::Spread);
    drop(Server::start(&directory)); // makes the state directory, so that no CA is made below
    let started = Instant::now();
    let server = Server::start(&directory);
    let fleet = Fleet::connect(&server, 1).await;
    let first = fleet.first_response().await.duration_since(started);
    server.wait_until_converged(Some(1)).await;
    fleet.disconnect().await;
    let name = format!("cold start with {} services to the first response", scale.many_services);
    table.row(
        &name,
        &format!("{:.2} s (server then {:.0} MB)", first.as_secs_f64(), server.rss_mb()),
        "reported",
    );
}

/// Edits VirtualServices one by one and measures the time until all proxies are in sync.
async fn measure_edits(scale: &Scale, directory: &Directory, server: &Server) -> Vec<Duration> {
    let mut times = Vec::new();
    for edit in 0..scale.edits {
        let before = server.converged().await.unwrap_or_default().generation;
        let closed = directory.edit(edit);
        times.push(server.wait_for_generation_after(before, closed).await);
    }
    times
}
