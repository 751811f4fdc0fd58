//! Size of the images apart from the programs, and measurements for docs/compose.md, which have no bounds.
//! `.ci/image` checks the size of the published image.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::bookinfo::Bookinfo;
use crate::engine::{Compose, Container, PROJECTS, Project, TAG, docker};
use crate::harness::{eventually, get};

/// Number of sequential requests, each on its own connection, that a latency is measured with.
const REQUESTS: usize = 1000;

/// Maximum size in bytes of the image `topsail` without the program.
const BASE: u64 = 4_500_000;

#[test]
fn the_image_holds_little_beside_the_program() {
    let image = format!("topsail-base:{TAG}");
    let size: u64 = docker(&["image", "inspect", "--format", "{{.Size}}", &image])
        .parse()
        .unwrap();
    assert!(size < BASE, "{size} bytes");
}

/// `.ci/docker figures -- --ignored`, with `TOPSAIL_PROFILE=dist`.
#[tokio::test]
#[ignore = "takes minutes, and programs that are optimised"]
async fn figures() {
    let bare = bare().await;
    println!("without a mesh: {}", shown(&bare));
    for dataplane in ["envoy", "rust"] {
        let (bookinfo, first_page) = Bookinfo::up(dataplane, Compose::Second).await;
        let meshed = latencies(bookinfo.page).await;
        let added = |share: f64| at(&meshed, share).saturating_sub(at(&bare, share));
        println!(
            "{dataplane}: first page {first_page:.1?} after `up`; {}; added p50 {:.2?}, p99 {:.2?}; \
             resident memory of a sidecar {:.1} MiB (data plane alone {:.1} MiB)",
            shown(&meshed),
            added(0.5),
            added(0.99),
            resident(&bookinfo.project, ""),
            resident(&bookinfo.project, bookinfo.data_plane),
        );
        bookinfo.down_leaves_nothing().await;
    }
}

/// Latencies of two containers of the sample that call each other without a mesh.
async fn bare() -> Vec<Duration> {
    let image = format!("topsail-bookinfo:{TAG}");
    let network = format!("{}-bare", *PROJECTS);
    docker(&["network", "create", &network]);
    let details = [
        "run",
        "--detach",
        "--rm",
        "--network",
        &network,
        "--network-alias",
        "details",
        &image,
    ];
    let details = docker(&[&details, &["details", "--listen", "0.0.0.0:9080"][..]].concat());
    let page = [
        "run",
        "--detach",
        "--rm",
        "--network",
        &network,
        "--publish",
        "127.0.0.1:0:9080",
        &image,
    ];
    let call = [
        "productpage",
        "--listen",
        "0.0.0.0:9080",
        "--call",
        "details=details:9080",
    ];
    let page = docker(&[&page, &call[..]].concat());
    let address = docker(&["port", &page, "9080"]).parse().unwrap();
    let latencies = latencies(address).await;
    docker(&["kill", &page, &details]);
    eventually("the containers are gone", async || {
        let left = docker(&["ps", "--all", "--quiet", "--filter", &format!("network={network}")]);
        left.is_empty().then_some(()).ok_or(left)
    })
    .await;
    docker(&["network", "rm", &network]);
    latencies
}

/// Sorted latencies of productpage forwarding a response of details.
async fn latencies(page: SocketAddr) -> Vec<Duration> {
    let call = get(page, "productpage", "/api/v1/products/0");
    eventually("details answers", async || match call.send().await?.status.as_u16() {
        200 => Ok(()),
        status => Err(status.to_string()),
    })
    .await;
    let mut latencies = Vec::new();
    for _ in 0..REQUESTS {
        let start = Instant::now();
        call.expect(200).await;
        latencies.push(start.elapsed());
    }
    latencies.sort();
    latencies
}

fn at(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

fn shown(sorted: &[Duration]) -> String {
    format!("p50 {:.2?}, p99 {:.2?}", at(sorted, 0.5), at(sorted, 0.99))
}

/// Resident memory in MiB of the processes of `details-sidecar` whose command line contains `text`.
fn resident(project: &Project, text: &str) -> f64 {
    let sidecar: Container = project.container("details-sidecar");
    let of_process = |id: rustix::process::Pid| {
        let status = fs::read_to_string(format!("/proc/{}/status", id.as_raw_nonzero())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    };
    sidecar.processes(text).into_iter().map(of_process).sum()
}
