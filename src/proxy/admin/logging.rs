//! `/logging`: log levels, by Envoy's names of loggers.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use axum::http::Method;

use super::answer::Answer;
use super::commands::Query;
use crate::telemetry;

/// Envoy's loggers that have an equivalent, with its module.
const LOGGERS: [(&str, &str); 14] = [
    ("admin", "topsail::proxy::admin"),
    ("config", "topsail::proxy::config"),
    ("connection", "topsail::proxy::connection"),
    ("conn_handler", "topsail::proxy::listener"),
    ("filter", "topsail::proxy::tcp"),
    ("grpc", "topsail::xds::client"),
    ("h2", "h2"),
    ("http", "topsail::proxy::http"),
    ("main", "topsail::proxy::run"),
    ("rustls", "rustls"),
    ("secret", "topsail::proxy::tls"),
    ("tracing", "topsail::proxy::trace"),
    ("upstream", "topsail::proxy::upstream"),
    ("worker", "topsail::proxy::worker"),
];

/// Envoy's levels and ours.
const LEVELS: [(&str, &str); 7] = [
    ("trace", "trace"),
    ("debug", "debug"),
    ("info", "info"),
    ("warning", "warn"),
    ("error", "error"),
    ("critical", "error"),
    ("off", "off"),
];

const USAGE: &str = "\
usage: /logging?<name>=<level> (change single level)
usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)
usage: /logging?level=<level> (change all levels)
levels: trace debug info warning error critical off
";

/// Levels set by `/logging` since the start; empty: those of the command line.
static CHOSEN: Mutex<Chosen> = Mutex::new(Chosen {
    level: None,
    loggers: BTreeMap::new(),
});

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Chosen {
    level: Option<&'static str>,
    loggers: BTreeMap<&'static str, &'static str>,
}

/// Shows or changes levels.
pub(super) fn answer(method: &Method, query: &Query) -> Result<Answer, Answer> {
    let mut chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut next = chosen.clone();
    for (name, value) in query.all() {
        next.change(name, value)
            .map_err(|error| Answer::bad(format!("error: {error}\n\n{USAGE}")))?;
    }
    if next != *chosen {
        if *method != Method::POST {
            let text = format!("Method {method} not allowed, POST required.");
            return Err(Answer::text(text).with(axum::http::StatusCode::METHOD_NOT_ALLOWED));
        }
        let filter = next.filter().parse().map_err(Answer::bad)?;
        telemetry::change(&filter).map_err(|error| Answer::bad(format!("error: {error}\n")))?;
        *chosen = next;
    }
    Ok(Answer::text(chosen.list()))
}

impl Chosen {
    fn change(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "level" => {
                self.level = Some(level(value)?);
                self.loggers.clear();
            }
            "paths" => {
                for part in value.split(',').filter(|part| !part.is_empty()) {
                    let (name, value) = part.split_once(':').ok_or("a name and a level are needed")?;
                    self.loggers.insert(logger(name)?, level(value)?);
                }
            }
            name => drop(self.loggers.insert(logger(name)?, level(value)?)),
        }
        Ok(())
    }

    /// As a filter directive of the command line.
    fn filter(&self) -> String {
        let ours = |level: &str| {
            LEVELS
                .iter()
                .find(|(name, _)| *name == level)
                .map_or("info", |(_, ours)| *ours)
        };
        let mut filter = ours(self.level.unwrap_or("info")).to_owned();
        for (name, level) in &self.loggers {
            if let Some((_, module)) = LOGGERS.iter().find(|(logger, _)| logger == name) {
                filter.push_str(&format!(",{module}={}", ours(level)));
            }
        }
        filter
    }

    fn list(&self) -> String {
        let all = self.level.unwrap_or("info");
        let lines = LOGGERS.iter().map(|(name, _)| {
            let level = self.loggers.get(name).unwrap_or(&all);
            format!("  {name}: {level}\n")
        });
        format!("active loggers:\n{}\n", lines.collect::<String>())
    }
}

fn level(text: &str) -> Result<&'static str, &'static str> {
    let found = LEVELS.iter().find(|(name, _)| *name == text);
    found.map(|(name, _)| *name).ok_or("unknown logger level")
}

fn logger(text: &str) -> Result<&'static str, &'static str> {
    let found = LOGGERS.iter().find(|(name, _)| *name == text);
    found.map(|(name, _)| *name).ok_or("unknown logger name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_all_and_of_some_become_a_filter() {
        let mut chosen = Chosen::default();
        assert_eq!(chosen.filter(), "info");
        chosen.change("paths", "http:debug,upstream:trace").unwrap();
        chosen.change("admin", "critical").unwrap();
        assert_eq!(
            chosen.filter(),
            "info,topsail::proxy::admin=error,topsail::proxy::http=debug,topsail::proxy::upstream=trace"
        );
        assert!(chosen.list().contains("  http: debug\n") && chosen.list().contains("  main: info\n"));
        chosen.change("level", "warning").unwrap();
        assert_eq!(chosen.filter(), "warn");
    }

    #[test]
    fn what_is_unknown_is_said() {
        let mut chosen = Chosen::default();
        assert_eq!(chosen.change("level", "loud").unwrap_err(), "unknown logger level");
        assert_eq!(
            chosen.change("paths", "nobody:info").unwrap_err(),
            "unknown logger name"
        );
        assert_eq!(
            chosen.change("paths", "http").unwrap_err(),
            "a name and a level are needed"
        );
    }
}
