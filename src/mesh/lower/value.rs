//! Checks of values common to several kinds, following Istio's validation.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::regex;
use super::report::Report;
use crate::api::FieldPath;
use crate::api::virtual_service::StringMatch as ApiStringMatch;
use crate::mesh::config::ExportDefault;
use crate::mesh::service::{Locality, Protocol};
use crate::mesh::virtual_service::StringMatch;
use crate::mesh::{ExportTo, Labels};
use crate::name::{Hostname, Namespace, is_dns_label, resolve_short_name};

/// Whether an object may have `exportTo: ~`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ExportToNone {
    Allowed,
    Refused,
}

impl Report<'_> {
    /// A duration of at least one millisecond, in whole milliseconds.
    pub(super) fn duration(
        &mut self,
        at: &FieldPath,
        duration: Option<crate::api::value::Duration>,
    ) -> Option<Duration> {
        let duration = Duration::from(duration?);
        if duration < Duration::from_millis(1) {
            let text = match duration.is_zero() {
                true => "0s".to_owned(),
                false => format!("{duration:?}"),
            };
            self.error(at, format!("{text} is shorter than a millisecond"))
                .help("omit the field to use its default");
        } else if !duration.subsec_nanos().is_multiple_of(1_000_000) {
            self.error(at, format!("{duration:?} is not a whole number of milliseconds"));
        }
        Some(duration)
    }

    /// A duration that may be zero.
    pub(super) fn duration_or_zero(
        &mut self,
        at: &FieldPath,
        duration: Option<crate::api::value::Duration>,
    ) -> Option<Duration> {
        match duration {
            Some(zero) if Duration::from(zero).is_zero() => Some(Duration::ZERO),
            other => self.duration(at, other),
        }
    }

    /// A port number; 0 if invalid, which is reported.
    pub(super) fn port(&mut self, at: &FieldPath, number: u32) -> u16 {
        match u16::try_from(number) {
            Ok(port) if port > 0 => port,
            Ok(_) | Err(_) => {
                self.error(at, format!("{number} is not a valid port: expected 1 to 65535"));
                0
            }
        }
    }

    /// An optional port number, where 0 means unset.
    pub(super) fn optional_port(&mut self, at: &FieldPath, number: u32) -> Option<u16> {
        (number != 0).then(|| self.port(at, number))
    }

    /// A non-negative number, where 0 means the default.
    pub(super) fn limit(&mut self, at: &FieldPath, number: i32) -> Option<u32> {
        match u32::try_from(number) {
            Ok(0) => None,
            Ok(limit) => Some(limit),
            Err(_) => {
                self.error(at, format!("{number} is negative"));
                None
            }
        }
    }

    /// A percentage, in whole percent.
    pub(super) fn whole_percent(&mut self, at: &FieldPath, number: i32) -> u32 {
        match u32::try_from(number) {
            Ok(percent) if percent <= 100 => percent,
            Ok(_) | Err(_) => {
                self.error(at, format!("{number} is not a percentage between 0 and 100"));
                0
            }
        }
    }

    /// The host of a rule. A short name is resolved in the object's namespace.
    pub(super) fn rule_host(&mut self, at: &FieldPath, host: &str) -> Option<Hostname> {
        let domain = &self.context.config.domain;
        let found = resolve_short_name(host, self.namespace(), domain);
        self.name(at, found)
    }

    /// A fully qualified host.
    pub(super) fn host(&mut self, at: &FieldPath, host: &str) -> Option<Hostname> {
        self.name(at, host.parse::<Hostname>())
    }

    /// The parsed value; reports a parse error.
    pub(super) fn name<T, E: std::fmt::Display>(&mut self, at: &FieldPath, found: Result<T, E>) -> Option<T> {
        found.map_err(|why| self.error(at, why.to_string())).ok()
    }

    /// A name that must be a DNS label, as for subsets and ports.
    pub(super) fn label_name(&mut self, at: &FieldPath, what: &str, name: &str) -> Arc<str> {
        if !is_dns_label(name) {
            self.error(
                at,
                format!("`{name}` is not a valid {what} name: expected a DNS label (letters, digits and `-`, at most 63 characters)"),
            );
        }
        name.into()
    }

    /// Labels with Kubernetes' syntax.
    pub(super) fn labels(&mut self, at: &FieldPath, labels: &BTreeMap<String, String>) -> Labels {
        for (key, value) in labels {
            if !is_label_key(key) {
                self.error(&at.key(key.as_str()), format!("`{key}` is not a valid label key: expected letters, digits, `-`, `_` and `.`, at most 63 characters, with an optional `domain/` prefix"));
            }
            if !value.is_empty() && !is_qualified_name(value) {
                self.error(&at.key(key.as_str()), format!("`{value}` is not a valid label value: expected letters, digits, `-`, `_` and `.`, at most 63 characters, starting and ending with a letter or digit"));
            }
        }
        shared(labels)
    }

    /// Labels of a workload selector, without wildcards. Empty ones match everything, which is a
    /// warning.
    pub(super) fn selector(&mut self, at: &FieldPath, labels: &BTreeMap<String, String>) -> Labels {
        for (key, value) in labels {
            if key.is_empty() {
                self.error(&at.key(key.as_str()), "a label in a selector must have a name");
            }
            if key.contains('*') || value.contains('*') {
                self.error(
                    &at.key(key.as_str()),
                    format!("wildcards are not allowed in a selector: `{key}: {value}`"),
                );
            }
        }
        if labels.is_empty() {
            self.warning(at, "a selector without labels selects every workload of the namespace")
                .help("omit the selector to select all workloads explicitly");
        }
        shared(labels)
    }

    /// `spec.exportTo`.
    pub(super) fn export_to(
        &mut self,
        export_to: &[String],
        default: &ExportDefault,
        nobody: ExportToNone,
    ) -> ExportTo {
        let at = FieldPath::root().field("spec").field("exportTo");
        self.export_to_at(&|index| at.index(index), export_to, default, nobody)
    }

    /// A list with the syntax of `exportTo`, at `at`.
    pub(super) fn export_to_at(
        &mut self,
        at: &dyn Fn(usize) -> FieldPath,
        export_to: &[String],
        default: &ExportDefault,
        nobody: ExportToNone,
    ) -> ExportTo {
        if export_to.is_empty() {
            return default.in_namespace(self.namespace());
        }
        let mut namespaces = Vec::new();
        for (index, value) in export_to.iter().enumerate() {
            let at = at(index);
            if matches!(value.as_str(), "*" | "~") {
                if value == "~" && nobody == ExportToNone::Refused {
                    self.error(&at, "only a ServiceEntry can be exported to no namespace (`~`)");
                } else if export_to.len() > 1 {
                    self.error(&at, format!("`{value}` must be the only entry"));
                }
                continue;
            }
            let namespace = match value.as_str() {
                "." => Some(self.namespace().clone()),
                name => self.name(&at, name.parse::<Namespace>()),
            };
            match namespace {
                Some(twice) if namespaces.contains(&twice) => {
                    self.error(&at, format!("namespace `{twice}` is listed twice"));
                }
                Some(new) => namespaces.push(new),
                None => {}
            }
        }
        match export_to.first().map(String::as_str) {
            Some("*") => ExportTo::Everyone,
            Some("~") => ExportTo::Nobody,
            Some(_) | None => ExportTo::Namespaces(namespaces.into()),
        }
    }

    /// A regular expression, which Envoy matches against the whole string.
    pub(super) fn regex(&mut self, at: &FieldPath, pattern: &str) {
        if let Err(why) = regex::check(pattern) {
            self.error(at, why)
                .help("Envoy uses RE2 syntax: https://github.com/google/re2/wiki/Syntax");
        }
    }

    /// A string matcher; `None` for `{}`, which matches any present value.
    pub(super) fn string_match(&mut self, at: &FieldPath, value: &ApiStringMatch) -> Option<StringMatch> {
        match value {
            ApiStringMatch::Exact(text) => Some(StringMatch::Exact(text.as_str().into())),
            ApiStringMatch::Prefix(text) => {
                if text.is_empty() {
                    self.error(&at.field("prefix"), "an empty prefix matches everything")
                        .help("use `{}` to match presence, or omit the match");
                }
                Some(StringMatch::Prefix(text.as_str().into()))
            }
            ApiStringMatch::Regex(pattern) => {
                self.regex(&at.field("regex"), pattern);
                Some(StringMatch::Regex(pattern.as_str().into()))
            }
            ApiStringMatch::Present => None,
        }
    }

    /// An IP address.
    pub(super) fn ip(&mut self, at: &FieldPath, text: &str) -> Option<IpAddr> {
        let found = text.parse::<IpAddr>();
        if found.is_err() {
            self.error(at, format!("`{text}` is not an IP address"));
        }
        found.ok()
    }

    /// An IP address or CIDR.
    pub(super) fn subnet(&mut self, at: &FieldPath, text: &str) -> Option<IpNet> {
        let found = match text.parse::<IpAddr>() {
            Ok(ip) => Some(IpNet::from(ip)),
            Err(_) => text.parse::<IpNet>().ok().map(|net| net.trunc()),
        };
        if found.is_none() {
            self.error(
                at,
                format!("`{text}` is neither an IP address nor a CIDR such as `10.0.0.0/8`"),
            );
        }
        found
    }

    /// Path of a Unix domain socket, after `unix://`: absolute, or abstract with a leading `@`.
    pub(super) fn unix_path(&mut self, at: &FieldPath, path: &str) -> Arc<str> {
        let fine = path.starts_with('@') || (path.starts_with('/') && !path.ends_with('/'));
        if !fine {
            self.error(
                at,
                format!("`{path}` is neither the absolute path of a socket nor an abstract name starting with `@`"),
            );
        }
        path.into()
    }

    /// A protocol name, case-insensitive; empty means protocol detection.
    pub(super) fn protocol(&mut self, at: &FieldPath, text: &str) -> Protocol {
        if text.is_empty() {
            return Protocol::Auto;
        }
        parse_protocol(text).unwrap_or_else(|| {
            self.error(at, format!("`{text}` is not a protocol"))
                .help("use one of HTTP, HTTP2, HTTP_PROXY, HTTPS, GRPC, GRPC-WEB, TLS, TCP, UDP, MONGO, MYSQL and REDIS, or omit it for protocol detection");
            Protocol::Auto
        })
    }
}

/// Istio's protocol names, case-insensitive.
pub(super) fn parse_protocol(text: &str) -> Option<Protocol> {
    Some(match text.to_ascii_lowercase().as_str() {
        "http" => Protocol::Http,
        "http2" => Protocol::Http2,
        "http_proxy" => Protocol::HttpProxy,
        "https" => Protocol::Https,
        "grpc" => Protocol::Grpc,
        "grpc-web" => Protocol::GrpcWeb,
        "tls" => Protocol::Tls,
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "mongo" => Protocol::Mongo,
        "mysql" => Protocol::MySql,
        "redis" => Protocol::Redis,
        _ => return None,
    })
}

/// `region/zone/subzone`, where trailing parts may be missing.
pub(super) fn parse_locality(text: &str) -> Locality {
    let mut parts = text.splitn(3, '/').map(Arc::from);
    let mut next = || parts.next().unwrap_or_default();
    Locality {
        region: next(),
        zone: next(),
        subzone: next(),
    }
}

/// Converts labels to shared strings.
pub(super) fn shared(labels: &BTreeMap<String, String>) -> Labels {
    labels
        .iter()
        .map(|(key, value)| (Arc::from(key.as_str()), Arc::from(value.as_str())))
        .collect()
}

/// Whether it is a fully qualified domain name: no wildcard and no IP address (Istio's
/// `ValidateFQDN`).
pub(super) fn is_fqdn(text: &str) -> bool {
    text.parse::<Hostname>()
        .is_ok_and(|host| !host.is_wildcard() && host.as_str().parse::<IpAddr>().is_err())
}

/// Whether it is an HTTP token (RFC 9110, `tchar`).
pub(super) fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => prefix.len() <= 253 && prefix.split('.').all(is_dns_label) && is_qualified_name(name),
        None => is_qualified_name(key),
    }
}

fn is_qualified_name(name: &str) -> bool {
    let edge = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_syntax_is_that_of_kubernetes() {
        for good in ["app", "app.kubernetes.io/name", "a_b.c-d", "A"] {
            assert!(is_label_key(good), "{good}");
        }
        for bad in ["", "/a", "a/", "-a", "a-", "a/b/c", "a b", &"a".repeat(64)] {
            assert!(!is_label_key(bad), "{bad}");
        }
    }

    #[test]
    fn localities_may_lack_their_ends() {
        let parts = |text| {
            let locality = parse_locality(text);
            [locality.region, locality.zone, locality.subzone].map(|part| part.to_string())
        };
        assert_eq!(parts("r/z/s"), ["r", "z", "s"]);
        assert_eq!(parts("r"), ["r", "", ""]);
        assert_eq!(parts(""), ["", "", ""]);
    }

    #[test]
    fn fqdns_have_neither_wildcards_nor_addresses() {
        assert!(is_fqdn("a.b") && is_fqdn("reviews"));
        assert!(!is_fqdn("*.b") && !is_fqdn("10.0.0.1") && !is_fqdn("a_b"));
    }
}
