//! Which statistics are shown, and how tags are extracted from their names (`stats_config`).

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use crate::proxy::matcher::StringMatcher;

/// Envoy's default tags: the first group is removed from the name, the second is the value. As in Envoy, names with
/// dots are cut at the first dot.
const DEFAULT_LABELS: [(&str, &str); 13] = [
    ("envoy.response_code", r"_rq(_(\d{3}))$"),
    ("envoy.response_code_class", r"_rq_((\d))xx$"),
    ("envoy.grpc_bridge_method", r"^cluster\.[^.]+\.grpc\.[^.]+\.(([^.]+)\.)"),
    ("envoy.grpc_bridge_service", r"^cluster\.[^.]+\.grpc\.(([^.]+)\.)"),
    (
        "envoy.local_http_ratelimit_prefix",
        r"^(([^.]+)\.)http_local_rate_limit\.",
    ),
    ("envoy.virtual_host", r"^vhost\.(([^.]+)\.)"),
    ("envoy.route", r"^vhost\.[^.]+\.route\.(([^.]+)\.)"),
    ("envoy.cluster_name", r"^cluster\.(([^.]+)\.)"),
    (
        "envoy.http_conn_manager_prefix",
        r"^(?:listener\..*\.)?http\.(([^.]+)\.)",
    ),
    ("envoy.tcp_prefix", r"^tcp\.(([^.]+)\.)"),
    (
        "envoy.listener_address",
        r"^listener\.(([_.\d]+|[_\[\]a-fA-F\d]+|admin)\.)",
    ),
    ("envoy.rds_route_config", r"^http\.[^.]+\.rds\.((.+?)\.)\w+$"),
    ("envoy.worker_id", r"^listener\..*\.((worker_\d+)\.)"),
];

/// Naming of statistics.
#[derive(Debug)]
pub(crate) struct Naming {
    labels: Vec<Label>,
    shown: Shown,
}

/// A tag.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    name: String,
    value: LabelValue,
}

#[derive(Clone, Debug)]
enum LabelValue {
    Cut(Regex),
    /// The same, for names that the second expression matches, too.
    CutAhead(Regex, Regex),
    Fixed(String),
}

impl Label {
    /// A tag extracted by a regular expression: the first group is removed from the name; the second, or else the
    /// first, is the value.
    ///
    /// # Errors
    /// If the pattern is invalid.
    pub(crate) fn cut(name: &str, pattern: &str) -> Result<Self, regex::Error> {
        let value = match ahead(pattern) {
            Some((whole, ahead)) => LabelValue::CutAhead(Regex::new(&whole)?, Regex::new(&ahead)?),
            None => LabelValue::Cut(Regex::new(pattern)?),
        };
        Ok(Self {
            name: name.to_owned(),
            value,
        })
    }

    /// A tag with a fixed value.
    pub(crate) fn fixed(name: &str, value: &str) -> Self {
        Self {
            name: name.to_owned(),
            value: LabelValue::Fixed(value.to_owned()),
        }
    }

    /// Envoy's default tag with this name.
    pub(crate) fn of_envoy(name: &str) -> Option<Self> {
        DEFAULTS.iter().find(|label| label.name == name).cloned()
    }
}

/// Splits an expression with a lookahead after a fixed prefix, as Istio's bootstrap has one, into two without: Envoy's
/// `std::regex` supports lookahead, the `regex` crate does not. `^listener(?=\.).*` matches what both `^listener.*` and
/// `^listener\.` match.
fn ahead(pattern: &str) -> Option<(String, String)> {
    let (before, rest) = pattern.split_once("(?=")?;
    let (ahead, after) = rest.split_once(')')?;
    let fixed = before
        .strip_prefix('^')?
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    fixed.then(|| (format!("{before}{after}"), format!("{before}(?:{ahead})")))
}

/// [`DEFAULT_LABELS`], compiled. A test makes sure that all are valid.
static DEFAULTS: LazyLock<Vec<Label>> = LazyLock::new(|| {
    let labels = DEFAULT_LABELS.iter();
    labels
        .filter_map(|(name, pattern)| Label::cut(name, pattern).ok())
        .collect()
});

/// Which statistics are shown.
#[derive(Debug)]
pub(crate) enum Shown {
    /// All.
    All,
    /// None.
    None,
    /// Those that match any of these.
    Only(Vec<StringMatcher>),
    /// Those that match none of these.
    Except(Vec<StringMatcher>),
}

/// A name with its tags extracted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Labelled {
    /// The name without the tags.
    pub(crate) name: String,
    /// Names and values.
    pub(crate) labels: Vec<(String, String)>,
}

impl Naming {
    /// Envoy's default tags if wanted, then these.
    pub(crate) fn new(envoys: bool, own: Vec<Label>, shown: Shown) -> Self {
        let mut labels: Vec<_> = DEFAULTS.iter().filter(|_| envoys).cloned().collect();
        labels.extend(own);
        Self { labels, shown }
    }

    /// Whether a statistic is shown.
    pub(crate) fn shows(&self, name: &str) -> bool {
        let any = |matchers: &[StringMatcher]| matchers.iter().any(|matcher| matcher.matches(name.as_bytes()));
        match &self.shown {
            Shown::All => true,
            Shown::None => false,
            Shown::Only(matchers) => any(matchers),
            Shown::Except(matchers) => !any(matchers),
        }
    }

    /// Extracts the tags of a name.
    pub(crate) fn labelled(&self, name: &str) -> Labelled {
        let mut cuts = Vec::new();
        let mut labels = Vec::new();
        for label in &self.labels {
            match &label.value {
                LabelValue::Fixed(value) => labels.push((label.name.clone(), value.clone())),
                LabelValue::CutAhead(_, ahead) if !ahead.is_match(name) => {}
                LabelValue::Cut(regex) | LabelValue::CutAhead(regex, _) => {
                    let Some(found) = regex.captures(name) else {
                        continue;
                    };
                    let (Some(cut), Some(value)) = (found.get(1), found.get(2).or(found.get(1))) else {
                        continue;
                    };
                    cuts.push(cut.range());
                    labels.push((label.name.clone(), value.as_str().to_owned()));
                }
            }
        }
        let left = name.char_indices();
        let left = left.filter(|(at, _)| !cuts.iter().any(|cut| cut.contains(at)));
        Labelled {
            name: left.map(|(_, char)| char).collect(),
            labels,
        }
    }
}

/// A name with the characters that Prometheus allows.
pub(crate) fn sanitized(name: &str) -> Cow<'_, str> {
    let allowed = |char: char| char.is_ascii_alphanumeric() || char == '_';
    if name.chars().all(allowed) {
        return name.into();
    }
    name.replace(|char| !allowed(char), "_").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_names_hold_letters_digits_and_underscores() {
        assert_eq!(sanitized("envoy.http1"), "envoy_http1");
        assert_eq!(sanitized("a_b"), "a_b");
    }

    #[test]
    fn envoys_labels_are_regular_expressions() {
        assert_eq!(DEFAULTS.len(), DEFAULT_LABELS.len());
    }
}
