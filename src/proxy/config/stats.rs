//! Compiling `stats_config`: how statistics are named and tagged.

use super::{At, Compiled, Refusal, matcher};
use crate::proxy::stats::naming::{Label, Naming, Shown};
use crate::xds::pb::matcher::ListStringMatcher;
use crate::xds::pb::metrics::stats_matcher::StatsMatcher as Specifier;
use crate::xds::pb::metrics::tag_specifier::TagValue;
use crate::xds::pb::metrics::{StatsConfig, StatsMatcher, TagSpecifier};

/// Compiles the bootstrap's `stats_config`.
pub(crate) fn naming(message: Option<&StatsConfig>) -> Compiled<Naming> {
    let nothing = StatsConfig::default();
    let message = message.unwrap_or(&nothing);
    if !message.histogram_bucket_settings.is_empty() {
        return Err(Refusal::not_implemented("a choice of buckets").within("histogram_bucket_settings"));
    }
    let defaults = message.use_all_default_tags.as_ref().is_none_or(|all| all.value);
    let own = message.stats_tags.iter().enumerate();
    let own = own.map(|(index, tag)| label(tag, defaults).at_index("stats_tags", index));
    let shown = shown(message.stats_matcher.as_ref()).at("stats_matcher")?;
    Ok(Naming::new(defaults, own.collect::<Compiled<_>>()?, shown))
}

/// A tag by a regular expression, by a fixed value, or by the name of one of Envoy's own.
fn label(tag: &TagSpecifier, defaults: bool) -> Compiled<Label> {
    match tag.tag_value.as_ref() {
        Some(TagValue::FixedValue(value)) => Ok(Label::fixed(&tag.tag_name, value)),
        Some(TagValue::Regex(pattern)) if !pattern.is_empty() => Ok(Label::cut(&tag.tag_name, pattern)?),
        Some(TagValue::Regex(_)) | None => {
            let envoys = Label::of_envoy(&tag.tag_name).filter(|_| !defaults);
            envoys.ok_or_else(|| Refusal::new("an expression or a value is required"))
        }
    }
}

fn shown(message: Option<&StatsMatcher>) -> Compiled<Shown> {
    let all = |list: &ListStringMatcher| {
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::proxy::stats::naming::Labelled;
    use crate::xds::json::from_json;

    pub(crate) fn from(config: serde_json::Value) -> Naming {
        let message: StatsConfig = from_json("envoy.config.metrics.v3.StatsConfig", config).unwrap();
        naming(Some(&message)).unwrap()
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
        let naming = from(serde_json::json!({
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
    fn istios_expression_that_looks_ahead_is_taken() {
        let naming = from(serde_json::json!({
            "use_all_default_tags": false,
            "stats_tags": [{
                "tag_name": "http_conn_manager_listener_prefix",
                "regex": r"^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)",
            }],
        }));
        let (name, labels) = labelled(&naming, "listener.0.0.0.0_80.http.10.0.0.1_80.downstream_rq_2xx");
        assert_eq!(name, "listener.0.0.0.0_80.http.downstream_rq_2xx");
        assert_eq!(labels, ["http_conn_manager_listener_prefix=10.0.0.1_80"]);
        let (name, labels) = labelled(&naming, "listeners.a.http.10.0.0.1_80.x");
        assert_eq!((&*name, labels), ("listeners.a.http.10.0.0.1_80.x", Vec::new()));
    }

    #[test]
    fn without_a_word_the_labels_are_envoys_own() {
        let naming = super::naming(None).unwrap();
        let (name, labels) = labelled(&naming, "cluster.back.upstream_rq_2xx");
        assert_eq!(name, "cluster.upstream_rq_xx");
        assert_eq!(labels, ["envoy.response_code_class=2", "envoy.cluster_name=back"]);
        let (name, labels) = labelled(&naming, "http.in.downstream_rq_total");
        assert_eq!(
            (name.as_str(), &*labels[0]),
            ("http.downstream_rq_total", "envoy.http_conn_manager_prefix=in")
        );
    }

    #[test]
    fn what_is_not_on_the_list_is_not_shown() {
        let only = from(serde_json::json!({"stats_matcher": {"inclusion_list": {"patterns": [{"prefix": "http"}]}}}));
        assert!(only.shows("http.in.x") && !only.shows("cluster.a.x"));
        let except = from(serde_json::json!({"stats_matcher": {"exclusion_list": {"patterns": [{"prefix": "http"}]}}}));
        assert!(!except.shows("http.in.x") && except.shows("cluster.a.x"));
        let none = from(serde_json::json!({"stats_matcher": {"reject_all": true}}));
        assert!(!none.shows("http.in.x"));
    }

    #[test]
    fn an_expression_that_is_none_is_refused_by_its_place() {
        let message: StatsConfig = from_json(
            "envoy.config.metrics.v3.StatsConfig",
            serde_json::json!({"stats_tags": [{"tag_name": "x", "regex": "("}]}),
        )
        .unwrap();
        let refusal = naming(Some(&message)).unwrap_err().to_string();
        assert!(refusal.starts_with("stats_tags[0]: "), "{refusal}");
    }
}
