//! `http[]`: matches and an action.

use super::{actions, headers, matches};
use crate::api::FieldPath;
use crate::api::virtual_service as api;
use crate::mesh::lower::report::Report;
use crate::mesh::virtual_service::{
    Destination, HttpAction, HttpForward, HttpRoute, Mirror, Redirect, WeightedDestination,
};
use crate::name::{Hostname, Percent};

/// The routes, in order.
pub(super) fn routes(report: &mut Report<'_>, at: &FieldPath, routes: &[api::HttpRoute]) -> Vec<HttpRoute> {
    let routes = routes.iter().enumerate();
    routes
        .map(|(index, entry)| route(report, &at.index(index), entry))
        .collect()
}

fn route(report: &mut Report<'_>, at: &FieldPath, entry: &api::HttpRoute) -> HttpRoute {
    conflicts(report, at, entry);
    let headers = headers::changes(report, &at.field("headers"), entry.headers.as_ref());
    let rewritten = entry
        .rewrite
        .as_ref()
        .is_some_and(|rewrite| !rewrite.authority.is_empty());
    if rewritten && headers.authority.is_some() {
        report
            .error(
                &at.field("rewrite").field("authority"),
                "the request's host is rewritten here and in `headers`",
            )
            .help("keep one of them");
    }
    HttpRoute {
        name: entry.name.as_str().into(),
        matches: matches::http(report, &at.field("match"), &entry.matches),
        action: action(report, at, entry),
        headers,
        fault: entry
            .fault
            .as_ref()
            .map(|fault| actions::fault(report, &at.field("fault"), fault)),
        cors: entry
            .cors_policy
            .as_ref()
            .map(|cors| actions::cors(report, &at.field("corsPolicy"), cors)),
    }
}

/// Reports mutually exclusive actions, and routes without any.
fn conflicts(report: &mut Report<'_>, at: &FieldPath, entry: &api::HttpRoute) {
    let (redirect, direct) = (entry.redirect.is_some(), entry.direct_response.is_some());
    let pairs = [
        (redirect, "redirect", !entry.route.is_empty(), "route"),
        (redirect, "redirect", entry.fault.is_some(), "fault"),
        (redirect, "redirect", entry.rewrite.is_some(), "rewrite"),
        (redirect, "redirect", direct, "directResponse"),
        (direct, "directResponse", !entry.route.is_empty(), "route"),
        (direct, "directResponse", entry.fault.is_some(), "fault"),
        (direct, "directResponse", entry.rewrite.is_some(), "rewrite"),
        (entry.mirror.is_some(), "mirror", !entry.mirrors.is_empty(), "mirrors"),
    ];
    for (_, first, _, second) in pairs.iter().filter(|(first, _, second, _)| *first && *second) {
        report.error(
            &at.field(*second),
            format!("`{second}` and `{first}` are mutually exclusive"),
        );
    }
    if entry.route.is_empty() && !redirect && !direct {
        report
            .error(at, "this route has no destination")
            .help("set `route`, `redirect` or `directResponse`");
    }
}

fn action(report: &mut Report<'_>, at: &FieldPath, entry: &api::HttpRoute) -> HttpAction {
    // Fields that belong to another action are validated too.
    let forward = forward(report, at, entry);
    let redirect = entry
        .redirect
        .as_ref()
        .map(|redirect| redirect_to(report, &at.field("redirect"), redirect, entry));
    let direct = entry
        .direct_response
        .as_ref()
        .map(|direct| actions::direct_response(report, &at.field("directResponse"), direct));
    match (redirect, direct) {
        (Some(redirect), _) => HttpAction::Redirect(redirect),
        (None, Some(direct)) => HttpAction::Direct(direct),
        (None, None) => HttpAction::Forward(Box::new(forward)),
    }
}

fn redirect_to(
    report: &mut Report<'_>,
    at: &FieldPath,
    redirect: &api::HttpRedirect,
    entry: &api::HttpRoute,
) -> Redirect {
    if !redirect.prefix_rewrite.is_empty() {
        let prefixed = |m: &api::HttpMatch| matches!(m.uri, Some(api::StringMatch::Prefix(_)));
        if !entry.matches.iter().all(prefixed) {
            report
                .error(
                    &at.field("prefixRewrite"),
                    "every match of this route must have a `uri.prefix` for this to replace",
                )
                .help("use `uri` to replace the whole path");
        }
    }
    actions::redirect(report, at, redirect)
}

fn forward(report: &mut Report<'_>, at: &FieldPath, entry: &api::HttpRoute) -> HttpForward {
    HttpForward {
        destinations: destinations(report, &at.field("route"), &entry.route),
        rewrite: entry
            .rewrite
            .as_ref()
            .map(|rewrite| actions::rewrite(report, &at.field("rewrite"), rewrite)),
        timeout: report.duration(&at.field("timeout"), entry.timeout),
        retries: entry
            .retries
            .as_ref()
            .map(|retries| actions::retries(report, &at.field("retries"), retries)),
        mirrors: mirrors(report, at, entry),
    }
}

fn destinations(
    report: &mut Report<'_>,
    at: &FieldPath,
    entries: &[api::HttpRouteDestination],
) -> Vec<WeightedDestination> {
    let mut found = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let at = at.index(index);
        let headers = headers::changes(report, &at.field("headers"), entry.headers.as_ref());
        let weight = weight(report, &at, entry.weight);
        if let Some(destination) = required_destination(report, &at, entry.destination.as_ref()) {
            found.push(WeightedDestination {
                destination,
                weight,
                headers,
            });
        }
    }
    total_weight(report, at, entries.iter().map(|entry| entry.weight));
    found
}

/// A non-negative weight.
pub(super) fn weight(report: &mut Report<'_>, at: &FieldPath, weight: i32) -> u32 {
    u32::try_from(weight).unwrap_or_else(|_| {
        report.error(&at.field("weight"), format!("the weight {weight} is negative"));
        0
    })
}

/// Checks the sum of several weights: not 0, and at most Envoy's limit of 32 bits.
pub(super) fn total_weight(report: &mut Report<'_>, at: &FieldPath, weights: impl ExactSizeIterator<Item = i32>) {
    let several = weights.len() > 1;
    let total: u64 = weights.map(|weight| u64::try_from(weight).unwrap_or(0)).sum();
    if several && total == 0 {
        report
            .error(at, "no destination of this route has a weight")
            .help("set a `weight` for each destination; weights are relative to their sum");
    }
    if u32::try_from(total).is_err() {
        report.error(at, format!("the weights add up to {total}, more than 4294967295"));
    }
}

/// A required `destination`.
pub(super) fn required_destination(
    report: &mut Report<'_>,
    at: &FieldPath,
    entry: Option<&api::Destination>,
) -> Option<Destination> {
    let Some(entry) = entry else {
        report.error(at, "a `destination` is missing");
        return None;
    };
    destination(report, &at.field("destination"), entry)
}

fn destination(report: &mut Report<'_>, at: &FieldPath, entry: &api::Destination) -> Option<Destination> {
    let host_at = at.field("host");
    let host = match &*entry.host {
        "*" => {
            report.error(&host_at, "requests cannot be sent to all hosts (`*`)");
            None
        }
        host => report.rule_host(&host_at, host),
    };
    at_host(report, at, entry, host)
}

/// A destination with an already validated host.
pub(in crate::mesh::lower) fn at_host(
    report: &mut Report<'_>,
    at: &FieldPath,
    entry: &api::Destination,
    host: Option<Hostname>,
) -> Option<Destination> {
    let subset = (!entry.subset.is_empty()).then(|| report.label_name(&at.field("subset"), "subset", &entry.subset));
    let port = entry
        .port
        .as_ref()
        .map(|port| report.port(&at.field("port").field("number"), port.number));
    host.map(|host| Destination { host, subset, port })
}

/// `mirror` and `mirrors`, except those with a share of zero.
fn mirrors(report: &mut Report<'_>, at: &FieldPath, entry: &api::HttpRoute) -> Vec<Mirror> {
    let mut found = Vec::new();
    let share = mirror_share(report, at, entry);
    if let Some(mirror) = &entry.mirror
        && let Some(destination) = destination(report, &at.field("mirror"), mirror)
    {
        found.push(Mirror {
            destination,
            percent: share,
        });
    }
    for (index, mirror) in entry.mirrors.iter().enumerate() {
        let at = at.field("mirrors").index(index);
        let percent = actions::percentage(report, &at.field("percentage"), mirror.percentage, 0.0);
        if let Some(destination) = required_destination(report, &at, mirror.destination.as_ref()) {
            found.push(Mirror {
                destination,
                percent: percent.unwrap_or(Percent::FULL),
            });
        }
    }
    found.retain(|mirror| mirror.percent.per_million() > 0);
    found
}

/// Share of `mirror`: `mirrorPercentage`, else the deprecated `mirrorPercent`, else 100 %.
fn mirror_share(report: &mut Report<'_>, at: &FieldPath, entry: &api::HttpRoute) -> Percent {
    let deprecated = entry.mirror_percent.map(|percent| {
        let at = at.field("mirrorPercent");
        report
            .warning(&at, "`mirrorPercent` is deprecated")
            .help(format!("use `mirrorPercentage: {{value: {percent}}}`"));
        report.name(&at, Percent::new(f64::from(percent)))
    });
    let percent = actions::percentage(report, &at.field("mirrorPercentage"), entry.mirror_percentage, 0.0);
    percent.or(deprecated.flatten()).unwrap_or(Percent::FULL)
}
