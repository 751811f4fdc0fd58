//! Which statistics are shown, and how their names become labels (`stats_config`).

use std::borrow::Cow;

use regex::Regex;

use crate::proxy::config::{At, Compiled, Refusal, matcher};
use crate::proxy::matcher::StringMatcher;
use crate::xds::pb::metrics::stats_matcher::StatsMatcher as Specifier;
use crate::xds::pb::metrics::tag_specifier::TagValue;
use crate::xds::pb::metrics::{StatsConfig, StatsMatcher, TagSpecifier};

/// Envoy's own labels, which hold unless the bootstrap says otherwise: the first group is cut out of the name, the
/// second is the value. Names with dots are cut at their first one, as in Envoy.
const DEFAULT_LABELS: [(&str, &str); 8] = [
    ("envoy.response_code", r"_rq(_(\d{3}))$"),
    ("envoy.response_code_class", r"_rq(_(\d)xx)$"),
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

/// How statistics are shown.
#[derive(Debug)]
pub(crate) struct Naming {
    labels: Vec<Label>,
    matcher: Shown,
}

#[derive(Debug)]
struct Label {
    name: String,
    value: LabelValue,
}

#[derive(Debug)]
enum LabelValue {
    Cut(Regex),
    Fixed(String),
}

/// Which are shown.
#[derive(Debug)]
enum Shown {
    All,
    None,
    Only(Vec<StringMatcher>),
    Except(Vec<StringMatcher>),
}

/// A name taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Labelled {
    /// The name without what became labels.
    pub(crate) name: String,
    /// Names and values.
    pub(crate) labels: Vec<(String, String)>,
}

impl Naming {
    /// Compiles the bootstrap's `stats_config`.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn new(message: Option<&StatsConfig>) -> Compiled<Self> {
        let nothing = StatsConfig::default();
        let message = message.unwrap_or(&nothing);
        if !message.histogram_bucket_settings.is_empty() {
            return Err(Refusal::not_implemented("a choice of buckets").within("histogram_bucket_settings"));
        }
        let defaults = message.use_all_default_tags.as_ref().is_none_or(|all| all.value);
        let envoys = DEFAULT_LABELS.iter().filter(|_| defaults);
        let envoys = envoys.map(|(name, pattern)| cut(name, pattern));
        let own = message.stats_tags.iter().enumerate();
        let own = own.map(|(index, tag)| label(tag, defaults).at_index("stats_tags", index));
        let labels = envoys.chain(own).collect::<Compiled<_>>()?;
        Ok(Self {
            labels,
            matcher: shown(message.stats_matcher.as_ref()).at("stats_matcher")?,
        })
    }

    /// Whether a statistic is shown.
    pub(crate) fn shows(&self, name: &str) -> bool {
        let any = |matchers: &[StringMatcher]| matchers.iter().any(|matcher| matcher.matches(name.as_bytes()));
        match &self.matcher {
            Shown::All => true,
            Shown::None => false,
            Shown::Only(matchers) => any(matchers),
            Shown::Except(matchers) => !any(matchers),
        }
    }

    /// Takes a name apart.
    pub(crate) fn labelled(&self, name: &str) -> Labelled {
        let mut cuts = Vec::new();
        let mut labels = Vec::new();
        for label in &self.labels {
            match &label.value {
                LabelValue::Fixed(value) => labels.push((label.name.clone(), value.clone())),
                LabelValue::Cut(regex) => {
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

/// A label of the bootstrap: an expression, a fixed value, or the name of one of Envoy's own.
fn label(tag: &TagSpecifier, defaults: bool) -> Compiled<Label> {
    match tag.tag_value.as_ref() {
        Some(TagValue::FixedValue(value)) => Ok(Label {
            name: tag.tag_name.clone(),
            value: LabelValue::Fixed(value.clone()),
        }),
        Some(TagValue::Regex(pattern)) if !pattern.is_empty() => cut(&tag.tag_name, pattern),
        Some(TagValue::Regex(_)) | None => {
            let own = DEFAULT_LABELS
                .iter()
                .find(|(name, _)| *name == tag.tag_name && !defaults);
            let (name, pattern) = own.ok_or_else(|| Refusal::new("an expression or a value is needed"))?;
            cut(name, pattern)
        }
    }
}

fn cut(name: &str, pattern: &str) -> Compiled<Label> {
    Ok(Label {
        name: name.to_owned(),
        value: LabelValue::Cut(Regex::new(pattern)?),
    })
}

fn shown(message: Option<&StatsMatcher>) -> Compiled<Shown> {
    let all = |list: &crate::xds::pb::matcher::ListStringMatcher| {
        let patterns = list.patterns.iter().enumerate();
        patterns
            .map(|(index, pattern)| matcher::text(pattern).at_index("patterns", index))
            .collect::<Compiled<_>>()
    };
    Ok(match message.and_then(|message| message.stats_matcher.as_ref()) {
        None | Some(Specifier::RejectAll(false)) => Shown::All,
        Some(Specifier::RejectAll(true)) => Shown::None,
        Some(Specifier::InclusionList(list)) => Shown::Only(all(list).at("inclusion_list")?),
        Some(Specifier::ExclusionList(list)) => Shown::Except(all(list).at("exclusion_list")?),
    })
}

/// A name as Prometheus takes it.
pub(crate) fn sanitized(name: &str) -> Cow<'_, str> {
    let allowed = |char: char| char.is_ascii_alphanumeric() || char == '_';
    if name.chars().all(allowed) {
        return name.into();
    }
    name.replace(|char| !allowed(char), "_").into()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::xds::json::from_json;

    pub(crate) fn naming(config: serde_json::Value) -> Naming {
        let message: StatsConfig = from_json("envoy.config.metrics.v3.StatsConfig", config).unwrap();
        Naming::new(Some(&message)).unwrap()
    }

    fn labelled(naming: &Naming, name: &str) -> (String, Vec<String>) {
        let Labelled { name, labels } = naming.labelled(name);
        (
            name,
            labels
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
        )
    }

    #[test]
    fn names_end_at_the_semicolon_that_the_bootstrap_asks_for() {
        let naming = naming(serde_json::json!({
            "use_all_default_tags": false,
            "stats_tags": [
                {"tag_name": "cluster_name", "regex": r"^cluster(\.(.+);)"},
                {"tag_name": "response_code", "regex": r"_rq(_(\d{3}))$"},
                {"tag_name": "listener_address", "regex": r"^listener(\.(.+?_\d+))\."},
            ],
        }));
        let (name, labels) = labelled(&naming, "cluster.outbound|80||a.b.svc;.upstream_rq_200");
        assert_eq!(name, "cluster.upstream_rq");
        assert_eq!(labels, ["cluster_name=outbound|80||a.b.svc", "response_code=200"]);
        let (name, labels) = labelled(&naming, "listener.127.0.4.77_15090.downstream_cx_total");
        assert_eq!(
            (name.as_str(), &*labels[0]),
            ("listener.downstream_cx_total", "listener_address=127.0.4.77_15090")
        );
        assert_eq!(labelled(&naming, "server.live"), ("server.live".to_owned(), vec![]));
    }

    #[test]
    fn without_a_word_the_labels_are_envoys_own() {
        let naming = Naming::new(None).unwrap();
        let (name, labels) = labelled(&naming, "cluster.back.upstream_rq_2xx");
        assert_eq!(name, "cluster.upstream_rq");
        assert_eq!(labels, ["envoy.response_code_class=2", "envoy.cluster_name=back"]);
        let (name, labels) = labelled(&naming, "http.in.downstream_rq_total");
        assert_eq!(
            (name.as_str(), &*labels[0]),
            ("http.downstream_rq_total", "envoy.http_conn_manager_prefix=in")
        );
    }

    #[test]
    fn what_is_not_on_the_list_is_not_shown() {
        let only = naming(serde_json::json!({"stats_matcher": {"inclusion_list": {"patterns": [{"prefix": "http"}]}}}));
        assert!(only.shows("http.in.x") && !only.shows("cluster.a.x"));
        let except =
            naming(serde_json::json!({"stats_matcher": {"exclusion_list": {"patterns": [{"prefix": "http"}]}}}));
        assert!(!except.shows("http.in.x") && except.shows("cluster.a.x"));
        let none = naming(serde_json::json!({"stats_matcher": {"reject_all": true}}));
        assert!(!none.shows("http.in.x"));
    }

    #[test]
    fn an_expression_that_is_none_is_refused_by_its_place() {
        let message: StatsConfig = from_json(
            "envoy.config.metrics.v3.StatsConfig",
            serde_json::json!({"stats_tags": [{"tag_name": "x", "regex": "("}]}),
        )
        .unwrap();
        let refusal = Naming::new(Some(&message)).unwrap_err().to_string();
        assert!(refusal.starts_with("stats_tags[0]: "), "{refusal}");
    }

    #[test]
    fn prometheus_names_hold_letters_digits_and_underscores() {
        assert_eq!(sanitized("envoy.http1"), "envoy_http1");
        assert_eq!(sanitized("a_b"), "a_b");
    }
}
