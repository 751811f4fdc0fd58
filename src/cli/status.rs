//! `topsail status`: shows the sync state of each proxy.

mod answer;
mod table;

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use http::StatusCode;
use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::format::Form;
use super::output::Output;
use super::value::Endpoint;
use super::{Command, Outcome};
use crate::envoy;
use answer::Answer;

/// Request timeout.
const PATIENCE: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
For each resource type (CDS, EDS, SDS, LDS, RDS) a proxy is SYNCED (it has ACKed everything sent to it), STALE (an \
update is in flight), NACKED (it rejected an update and keeps the previous version) or NOT SENT (it never subscribed). \
The table is followed by the groups with auto-registered members, rejected resources, expired join tokens and the \
problems found in the directory, with file and line.

Exit codes: 0 no proxy is STALE or NACKED, 1 some proxy is, or the server is unreachable, 2 usage error. With \
--ready: 0 the server is serving a configuration, 1 it is not.

Examples:
  Query the server on this host:
    topsail status

  Use as a container health check:
    topsail status --ready

  List the proxies that rejected a resource:
    topsail status -o json | jq -r '.proxies[] | select(.refusals != []) | .workload'";

/// Arguments of `topsail status`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Admin address of the server
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "TOPSAIL_ADMIN",
        hide_env_values = true,
        default_value = "127.0.0.1:15014"
    )]
    admin: Endpoint,

    /// Output format
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t = Form::Text)]
    output: Form,

    /// Only check whether the server is ready to serve proxies, regardless of their sync status
    #[arg(long, conflicts_with = "output")]
    ready: bool,
}

impl Command for Arguments {
    fn run(self, output: &mut Output) -> anyhow::Result<Outcome> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        if self.ready {
            let ready = runtime
                .block_on(async { self.ask(self.address()?, "/ready").await })?
                .is_some();
            writeln!(output.out, "{}", if ready { "ready" } else { "loading" })?;
            return Ok(if ready { Outcome::Fine } else { Outcome::Findings });
        }
        let answer = runtime.block_on(self.everything())?;
        let status: Answer = serde_json::from_value(answer.clone()).with_context(|| self.unexpected())?;
        match self.output {
            Form::Text => output.out.write_all(table::text(&status, output.color).as_bytes())?,
            Form::Json => writeln!(output.out, "{answer:#}")?,
        }
        Ok(if status.is_synced() {
            Outcome::Fine
        } else {
            Outcome::Findings
        })
    }
}

impl Arguments {
    /// The combined responses of the server as one JSON object.
    async fn everything(&self) -> anyhow::Result<Value> {
        let address = self.address()?;
        let generation: Option<Value> = self.get(address, "/api/v1/generation").await?;
        let proxies: Option<Value> = self.get(address, "/api/v1/proxies").await?;
        let diagnostics: Option<Value> = self.get(address, "/api/v1/diagnostics").await?;
        let registered: Option<Value> = self.get(address, "/api/v1/registered").await?;
        Ok(json!({"generation": generation, "proxies": proxies, "registered": registered, "diagnostics": diagnostics}))
    }

    fn address(&self) -> anyhow::Result<SocketAddr> {
        let Endpoint { host, port } = &self.admin;
        let mut addresses = (host.to_string(), *port)
            .to_socket_addrs()
            .with_context(|| format!("cannot look up {host}"))?;
        addresses.next().with_context(|| format!("{host} has no address"))
    }

    /// Like [`Arguments::ask`], with the body parsed as JSON.
    async fn get<T: DeserializeOwned>(&self, address: SocketAddr, path: &str) -> anyhow::Result<Option<T>> {
        match self.ask(address, path).await? {
            Some(body) => serde_json::from_slice(&body)
                .map(Some)
                .with_context(|| self.unexpected()),
            None => Ok(None),
        }
    }

    /// The body of a response; `None` if the server has nothing to return yet.
    async fn ask(&self, address: SocketAddr, path: &str) -> anyhow::Result<Option<Bytes>> {
        let late = || format!("{address} does not respond: is it the admin address of `topsail serve`?");
        let answer = timeout(PATIENCE, envoy::get(address, path)).await.with_context(late)?;
        let (status, body) = answer.context(
            "cannot connect to the server; is `topsail serve` running? Use `--admin HOST:PORT` to specify its admin address",
        )?;
        match status {
            StatusCode::OK => Ok(Some(body)),
            StatusCode::SERVICE_UNAVAILABLE => Ok(None),
            _ => bail!("{}: {path} returned {status}", self.unexpected()),
        }
    }

    fn unexpected(&self) -> String {
        let Endpoint { host, port } = &self.admin;
        format!("{host}:{port} is not the admin address of this version of Topsail")
    }
}
