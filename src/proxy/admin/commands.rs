//! The paths of the admin interface.

use std::sync::atomic::Ordering::Relaxed;

use axum::extract::Query as Extract;
use axum::http::{Method, StatusCode, Uri};
use serde_json::json;
use tokio::sync::oneshot;

use super::answer::Answer;
use super::ask::{Ask, Drain, Dump};
use super::{Admin, certs, clusters, config_dump, listeners, logging, runtime, server_info, stats};
use crate::proxy::access_log::Sink;
use crate::proxy::http::filter::health_check;
use crate::proxy::stats::collect::State;
use crate::proxy::stats::memory;

/// A path.
struct Command {
    path: &'static str,
    /// Whether it changes something and needs `POST`.
    post: bool,
    help: &'static str,
    parameters: &'static [(&'static str, &'static str)],
    does: Handler,
}

/// The handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handler {
    Certs,
    Clusters,
    ConfigDump,
    DrainListeners,
    HealthCheck { fail: bool },
    Help,
    Home,
    HotRestartVersion,
    InitDump,
    Listeners,
    Logging,
    Memory,
    Prometheus,
    Quit,
    Ready,
    ReopenLogs,
    ResetCounters,
    Runtime,
    ServerInfo,
    Stats,
}

/// All paths.
const COMMANDS: [Command; 21] = [
    get("/", "Admin home page", &[], Handler::Home),
    get("/certs", "print certs on machine", &[], Handler::Certs),
    get(
        "/clusters",
        "upstream cluster status",
        &[
            ("filter", "Regular expression for filtering clusters by name"),
            ("format", "File format to use; One of (text, json)"),
        ],
        Handler::Clusters,
    ),
    get(
        "/config_dump",
        "dump current configuration",
        &[
            ("resource", "The resource to dump"),
            (
                "name_regex",
                "Dump only resources whose names match the regular expression",
            ),
            (
                "mask",
                "The mask to apply. When both resource and mask are specified, the mask is applied to every element",
            ),
            ("include_eds", "Dump endpoints as well"),
        ],
        Handler::ConfigDump,
    ),
    post(
        "/drain_listeners",
        "drain listeners",
        &[
            (
                "graceful",
                "Go on accepting for the drain time, while connections are told to end",
            ),
            ("inboundonly", "Drain the inbound listeners only"),
        ],
        Handler::DrainListeners,
    ),
    post(
        "/healthcheck/fail",
        "cause the server to fail health checks",
        &[],
        Handler::HealthCheck { fail: true },
    ),
    post(
        "/healthcheck/ok",
        "cause the server to pass health checks",
        &[],
        Handler::HealthCheck { fail: false },
    ),
    get("/help", "print out list of admin commands", &[], Handler::Help),
    get(
        "/hot_restart_version",
        "print the hot restart compatibility version",
        &[],
        Handler::HotRestartVersion,
    ),
    get("/init_dump", "dump what is waited for", &[], Handler::InitDump),
    get(
        "/listeners",
        "print listener info",
        &[("format", "File format to use; One of (text, json)")],
        Handler::Listeners,
    ),
    get(
        "/logging",
        "query logging levels; with POST, change them",
        &[
            (
                "level",
                "The level of all loggers; One of (trace, debug, info, warning, error, critical, off)",
            ),
            (
                "paths",
                "Levels of several loggers: <logger_name1>:<level1>,<logger_name2>:<level2>",
            ),
        ],
        Handler::Logging,
    ),
    get("/memory", "print current allocation/heap usage", &[], Handler::Memory),
    post("/quitquitquit", "exit the server", &[], Handler::Quit),
    get(
        "/ready",
        "print server state, return 200 if LIVE, otherwise return 503",
        &[],
        Handler::Ready,
    ),
    post("/reopen_logs", "reopen access logs", &[], Handler::ReopenLogs),
    post(
        "/reset_counters",
        "reset all counters to zero",
        &[],
        Handler::ResetCounters,
    ),
    get("/runtime", "print runtime values", &[], Handler::Runtime),
    get(
        "/server_info",
        "print server version/status information",
        &[],
        Handler::ServerInfo,
    ),
    get("/stats", "print server stats", &stats::PARAMETERS, Handler::Stats),
    get(
        "/stats/prometheus",
        "print server stats in prometheus format",
        &stats::PARAMETERS,
        Handler::Prometheus,
    ),
];

const fn get(
    path: &'static str,
    help: &'static str,
    parameters: &'static [(&'static str, &'static str)],
    does: Handler,
) -> Command {
    Command {
        path,
        post: false,
        help,
        parameters,
        does,
    }
}

const fn post(
    path: &'static str,
    help: &'static str,
    parameters: &'static [(&'static str, &'static str)],
    does: Handler,
) -> Command {
    Command {
        post: true,
        ..get(path, help, parameters, does)
    }
}

/// Query parameters.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Those of a URI.
    pub(super) fn of(uri: &Uri) -> Result<Self, Answer> {
        match Extract::try_from_uri(uri) {
            Ok(Extract(pairs)) => Ok(Self(pairs)),
            Err(error) => Err(Answer::bad(error.to_string())),
        }
    }

    /// The value of a parameter, which may be empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| &**value)
    }

    /// Whether a parameter is present.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All parameters.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// A parameter as a regular expression.
    ///
    /// # Errors
    /// If it is not one.
    pub(super) fn regex(&self, name: &str) -> Result<Option<regex::Regex>, Answer> {
        let pattern = self.get(name).filter(|pattern| !pattern.is_empty());
        let compiled = pattern.map(regex::Regex::new).transpose();
        compiled.map_err(|error| Answer::bad(format!("Invalid regex: {error}\n")))
    }
}

/// Handles a request.
pub(super) async fn answer(admin: &Admin, method: &Method, path: &str, query: &Query) -> Answer {
    let Some(command) = COMMANDS.iter().find(|command| command.path == path) else {
        return Answer::text(format!("invalid path. {}", help())).with(StatusCode::NOT_FOUND);
    };
    let allowed = match *method {
        Method::POST => true,
        Method::GET | Method::HEAD => !command.post,
        _ => false,
    };
    if !allowed {
        let needed = if command.post { "POST" } else { "GET" };
        let text = format!("Method {method} not allowed, {needed} required.");
        return Answer::text(text).with(StatusCode::METHOD_NOT_ALLOWED);
    }
    run(admin, command.does, method, query).await.unwrap_or_else(|bad| bad)
}

async fn run(admin: &Admin, does: Handler, method: &Method, query: &Query) -> Result<Answer, Answer> {
    Ok(match does {
        Handler::Certs => certs::answer(&admin.published.load()),
        Handler::Clusters => clusters::answer(&admin.published.load(), query)?,
        Handler::ConfigDump => config_dump::answer(admin, query, dump(admin).await?).await?,
        Handler::DrainListeners => {
            let drain = Drain {
                inbound_only: query.has("inboundonly"),
                graceful: query.has("graceful"),
            };
            ask(admin, Ask::Drain(drain))?
        }
        Handler::HealthCheck { fail } => {
            health_check::FAILING.store(fail, Relaxed);
            Answer::text("OK\n")
        }
        Handler::Help => Answer::text(help()),
        Handler::Home => Answer::html(home()),
        // As Envoy says without it.
        Handler::HotRestartVersion => Answer::text("disabled"),
        Handler::InitDump => init_dump(&dump(admin).await?),
        Handler::Listeners => listeners::answer(&admin.published.load(), query),
        Handler::Logging => logging::answer(method, query)?,
        Handler::Memory => Answer::pretty(&memory::json()),
        Handler::Prometheus => stats::prometheus(admin, query)?,
        Handler::Quit => ask(admin, Ask::Quit)?,
        Handler::Ready => ready(admin.state()),
        Handler::ReopenLogs => {
            Sink::reopen_files();
            Answer::text("OK\n")
        }
        Handler::ResetCounters => stats::reset(admin),
        Handler::Runtime => runtime::answer(admin).await?,
        Handler::ServerInfo => server_info::answer(admin).await?,
        Handler::Stats => stats::answer(admin, query)?,
    })
}

fn ask(admin: &Admin, ask: Ask) -> Result<Answer, Answer> {
    match admin.asks.send(ask) {
        Ok(()) => Ok(Answer::text("OK\n")),
        Err(_) => Err(ending()),
    }
}

async fn dump(admin: &Admin) -> Result<Dump, Answer> {
    let (send, receive) = oneshot::channel();
    ask(admin, Ask::Dump(send))?;
    receive.await.map_err(|_| ending())
}

fn ending() -> Answer {
    Answer::text("the proxy is shutting down\n").with(StatusCode::SERVICE_UNAVAILABLE)
}

fn ready(state: State) -> Answer {
    let status = match state {
        State::Live => StatusCode::OK,
        State::Draining | State::Initializing => StatusCode::SERVICE_UNAVAILABLE,
    };
    Answer::text(format!("{}\n", server_info::word(state))).with(status)
}

fn init_dump(dump: &Dump) -> Answer {
    if dump.unready.is_empty() {
        return Answer::pretty(&json!({}));
    }
    let unready = dump.unready.iter();
    let unready: Vec<_> = unready
        .map(|one| json!({"name": one.name, "target_names": one.targets}))
        .collect();
    Answer::pretty(&json!({"unready_targets_dumps": unready}))
}

fn help() -> String {
    let mut out = "admin commands are:\n".to_owned();
    for command in &COMMANDS {
        let post = if command.post { " (POST)" } else { "" };
        out.push_str(&format!("  {}{post}: {}\n", command.path, command.help));
        for (name, help) in command.parameters {
            out.push_str(&format!("      {name}: {help}\n"));
        }
    }
    out
}

fn home() -> String {
    let row = |command: &Command| {
        let (path, help) = (command.path, command.help);
        match command.post {
            true => format!("<tr><td>{path} (POST)</td><td>{help}</td></tr>\n"),
            false => format!("<tr><td><a href=\"{path}\">{path}</a></td><td>{help}</td></tr>\n"),
        }
    };
    let rows: String = COMMANDS.iter().map(row).collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><title>Topsail proxy</title></head>\n<body>\n<table>\n{rows}</table>\n\
         </body>\n</html>\n"
    )
}
