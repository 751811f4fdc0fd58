//! `/stats`, `/stats/prometheus` and `/reset_counters`.

use std::time::Instant;

use super::Admin;
use super::answer::Answer;
use super::commands::Query;
use crate::proxy::stats::{Kind, Snapshot, collect, prometheus as format, text};

/// Query parameters.
pub(super) const PARAMETERS: [(&str, &str); 5] = [
    ("usedonly", "Only include stats that are not zero"),
    ("filter", "Regular expression for filtering stats"),
    ("invert_filter", "Invert the filter regex"),
    (
        "type",
        "Stat types to include; One of (All, Counters, Gauges, Histograms, TextReadouts)",
    ),
    ("format", "Format to use; One of (text, json, prometheus)"),
];

/// `/stats`.
pub(super) fn answer(admin: &Admin, query: &Query) -> Result<Answer, Answer> {
    match query.get("format") {
        None | Some("text") => Ok(Answer::text(text::lines(&snapshot(admin, query)?))),
        Some("json") => Ok(Answer::json(&text::json(&snapshot(admin, query)?))),
        Some("prometheus") => prometheus(admin, query),
        Some(_) => Err(Answer::bad("usage: /stats?format=(json|prometheus|text)\n\n")),
    }
}

/// `/stats/prometheus`.
pub(super) fn prometheus(admin: &Admin, query: &Query) -> Result<Answer, Answer> {
    Ok(Answer::text(format::render(&snapshot(admin, query)?, &admin.naming)))
}

/// `/reset_counters`.
pub(super) fn reset(admin: &Admin) -> Answer {
    collect::reset(&admin.published.load(), &admin.server);
    Answer::text("OK\n")
}

fn snapshot(admin: &Admin, query: &Query) -> Result<Snapshot, Answer> {
    let filter = query.regex("filter")?;
    let mut snapshot = collect::collect(&admin.published.load(), &admin.server, admin.state(), Instant::now());
    snapshot.retain(|name| admin.naming.shows(name));
    if let Some(filter) = filter {
        let wanted = !query.has("invert_filter");
        snapshot.retain(|name| filter.is_match(name) == wanted);
    }
    match query.get("type") {
        None | Some("All") => {}
        Some("Counters") => snapshot.retain_kind(Some(Kind::Counter)),
        Some("Gauges") => snapshot.retain_kind(Some(Kind::Gauge)),
        Some("Histograms") => snapshot.metrics.clear(),
        // The proxy has none.
        Some("TextReadouts") => snapshot.retain_kind(None),
        Some(_) => return Err(Answer::bad("invalid &type= param\n")),
    }
    if query.has("usedonly") {
        snapshot.retain_used();
    }
    Ok(snapshot)
}
