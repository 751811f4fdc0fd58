//! Starts the demo's processes in order and waits until they are ready.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::try_join_all;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{self, Instant, MissedTickBehavior};

use super::DataPlane;
use super::part::{Parts, Recipe, tail};
use super::setup::{Setup, sidecar_admin};
use super::workloads::Workload;
use crate::cli::file;
use crate::cli::output::Output;
use crate::envoy::{self, Finder, Program};

/// Poll interval while a process starts.
const POLL: Duration = Duration::from_millis(10);
/// How long a process may take to become ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts all processes, reporting progress, and returns when requests can be sent.
///
/// # Errors
/// If Envoy is not available, or a process does not become ready; the error includes the last lines of its
/// log.
pub(super) async fn start(
    setup: &Setup,
    plane: DataPlane,
    parts: &mut Parts,
    output: &mut Output,
) -> anyhow::Result<()> {
    let program = match plane {
        DataPlane::Topsail => Program::Topsail(setup.this_program.clone()),
        DataPlane::Envoy => Program::Envoy(find_envoy(output).await?),
    };
    std::fs::create_dir(setup.logs()).with_context(|| setup.logs().display().to_string())?;
    print_line(output, &format!("starting the control plane on {} …", setup.xds))?;
    let control_plane = setup.control_plane();
    parts.start(&control_plane)?;
    for workload in &setup.workloads {
        parts.start(&setup.application(workload))?;
    }
    until(parts, &control_plane, async || answers_ready(setup.admin).await).await?;
    print_line(
        output,
        &format!("starting {} applications and their sidecars …", setup.workloads.len()),
    )?;
    try_join_all(setup.workloads.iter().map(|workload| bootstrap(setup, workload))).await?;
    for workload in &setup.workloads {
        parts.start(&setup.sidecar(workload, &program))?;
    }
    for workload in &setup.workloads {
        let application = setup.application(workload);
        until(parts, &application, async || {
            TcpStream::connect(workload.application).await.is_ok()
        })
        .await?;
        let sidecar = setup.sidecar(workload, &program);
        until(parts, &sidecar, async || answers_ready(sidecar_admin(workload)).await).await?;
    }
    Ok(())
}

async fn find_envoy(output: &mut Output) -> anyhow::Result<PathBuf> {
    let (progress, mut said) = mpsc::unbounded_channel();
    let find = move || Finder::from_env().find(&|text| drop(progress.send(text.to_owned())));
    let finding = tokio::task::spawn_blocking(find);
    while let Some(text) = said.recv().await {
        print_line(output, &text)?;
    }
    let envoy = finding.await??;
    print_line(output, &format!("Envoy: {}", envoy.display()))?;
    Ok(envoy)
}

/// Prints a progress line.
pub(super) fn print_line(output: &mut Output, text: &str) -> std::io::Result<()> {
    writeln!(output.out, "{text}")?;
    output.out.flush()
}

/// Writes the bootstrap of a sidecar, private to this user because it names the token file.
async fn bootstrap(setup: &Setup, workload: &Workload) -> anyhow::Result<()> {
    let mut command = tokio::process::Command::new(&setup.this_program);
    command
        .args(setup.bootstrap(workload))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let made = command.output().await?;
    if !made.status.success() {
        bail!(
            "no bootstrap for {}: {}",
            workload.name,
            String::from_utf8_lossy(&made.stderr).trim()
        );
    }
    file::replace(&setup.bootstrap_file(workload), &made.stdout, 0o600)
}

async fn answers_ready(admin: SocketAddr) -> bool {
    matches!(envoy::get(admin, "/ready").await, Ok((status, _)) if status.is_success())
}

/// Waits until a process is ready, failing if any process exits.
async fn until(parts: &mut Parts, recipe: &Recipe, is_up: impl AsyncFn() -> bool) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut tick = time::interval(POLL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while start.elapsed() < PATIENCE {
        tick.tick().await;
        parts.check()?;
        if let Ok(true) = time::timeout(PATIENCE, is_up()).await {
            return Ok(());
        }
    }
    bail!(
        "the {} is not ready after {PATIENCE:?}{}",
        recipe.name,
        end_of(&recipe.log)
    )
}

fn end_of(log: &Path) -> String {
    match tail(log) {
        lines if lines.is_empty() => String::new(),
        lines => format!("; the end of its log:\n{lines}"),
    }
}
