//! Labels that configure a service's sidecar: Topsail's own, and Istio's annotations with their
//! original names.

use ipnet::IpNet;

use super::fields::Spot;
use super::port::Protocol;
use crate::api::suggest::closest;
use crate::diag::{Code, Diagnostic};

pub(super) const INJECT: &str = "topsail.io/inject";
pub(super) const PORTS: &str = "topsail.io/ports";
const MTLS: &str = "topsail.io/mtls";
const ISTIO_INJECT: &str = "sidecar.istio.io/inject";
const MODE: &str = "sidecar.istio.io/interceptionMode";
const LOG_LEVEL: &str = "sidecar.istio.io/logLevel";

/// Istio annotations that exclude traffic from interception, and the equivalent flags of `topsail
/// sidecar`.
const TRAFFIC: [(&str, &str, Takes); 7] = [
    (
        "traffic.sidecar.istio.io/includeInboundPorts",
        "--include-inbound-ports",
        Takes::PortsOrAll,
    ),
    (
        "traffic.sidecar.istio.io/excludeInboundPorts",
        "--exclude-inbound-ports",
        Takes::Ports,
    ),
    (
        "traffic.sidecar.istio.io/includeOutboundPorts",
        "--include-outbound-ports",
        Takes::Ports,
    ),
    (
        "traffic.sidecar.istio.io/excludeOutboundPorts",
        "--exclude-outbound-ports",
        Takes::Ports,
    ),
    (
        "traffic.sidecar.istio.io/includeOutboundIPRanges",
        "--include-outbound-ip-ranges",
        Takes::RangesOrAll,
    ),
    (
        "traffic.sidecar.istio.io/excludeOutboundIPRanges",
        "--exclude-outbound-ip-ranges",
        Takes::Ranges,
    ),
    (
        "traffic.sidecar.istio.io/excludeInterfaces",
        "--exclude-interfaces",
        Takes::Names,
    ),
];

/// Istio annotations without effect here, and why.
const MEANINGLESS: [(&str, &str); 10] = [
    ("sidecar.istio.io/proxyCPU", RESOURCES),
    ("sidecar.istio.io/proxyCPULimit", RESOURCES),
    ("sidecar.istio.io/proxyMemory", RESOURCES),
    ("sidecar.istio.io/proxyMemoryLimit", RESOURCES),
    (
        "sidecar.istio.io/proxyImage",
        "set the image with `topsail inject --image`",
    ),
    ("sidecar.istio.io/rewriteAppHTTPProbers", HEALTH),
    (
        "sidecar.istio.io/status",
        "it is set by Istio's injector, not read by it",
    ),
    ("sidecar.istio.io/userVolume", VOLUMES),
    ("sidecar.istio.io/userVolumeMount", VOLUMES),
    (
        "proxy.istio.io/config",
        "set common proxy settings with `meshConfig.defaultConfig` in the configuration directory",
    ),
];

const RESOURCES: &str = "set `deploy.resources` of the sidecar in your own Compose file";
const VOLUMES: &str = "set `volumes` of the sidecar in your own Compose file";
const HEALTH: &str = "Compose health checks run inside the container and do not pass through the sidecar";

/// Prefixes for which unknown labels are reported.
const PREFIXES: [&str; 4] = [
    "topsail.io/",
    "sidecar.istio.io/",
    "traffic.sidecar.istio.io/",
    "proxy.istio.io/",
];

#[derive(Clone, Copy)]
enum Takes {
    Ports,
    PortsOrAll,
    Ranges,
    RangesOrAll,
    Names,
}

/// How traffic is redirected to the sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Interception {
    /// iptables REDIRECT.
    #[default]
    Redirect,
    /// iptables TPROXY.
    Tproxy,
    /// No interception.
    None,
}

impl Interception {
    /// Value for `topsail sidecar --intercept`.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::Tproxy => "tproxy",
            Self::None => "none",
        }
    }
}

/// Settings in the labels of a service.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    /// `topsail.io/inject`, with the label's location.
    pub(super) inject: Option<(bool, Spot)>,
    /// `topsail.io/ports`.
    pub(super) ports: Option<Vec<(u16, Protocol, Spot)>>,
    /// `topsail.io/mtls: PERMISSIVE`: accept clients without a sidecar.
    pub(super) permissive: bool,
    pub(super) interception: Interception,
    /// `sidecar.istio.io/logLevel`.
    pub(super) log_level: Option<String>,
    /// Interception flags of `topsail sidecar` and their values.
    pub(super) traffic: Vec<(&'static str, String)>,
}

/// Parses the labels of a service.
pub(super) fn read(labels: &[(Spot, Spot)], problems: &mut Vec<Diagnostic>) -> Settings {
    let mut settings = Settings::default();
    for (key, value) in labels {
        if PREFIXES.iter().any(|prefix| key.text.starts_with(prefix))
            && let Err(problem) = settings.label(key, value)
        {
            problems.push(problem);
        }
    }
    settings
}

impl Settings {
    fn label(&mut self, key: &Spot, value: &Spot) -> Result<(), Diagnostic> {
        if let Some((_, why)) = MEANINGLESS.iter().find(|(name, _)| *name == key.text) {
            let problem = format!("the label `{}` is not supported here", key.text);
            let problem = Diagnostic::new(Code::UnsupportedField, problem);
            return Err(problem.at(key.place.clone()).help(*why));
        }
        let traffic = TRAFFIC.iter().find(|(name, ..)| *name == key.text);
        let known = [INJECT, ISTIO_INJECT, PORTS, MTLS, MODE, LOG_LEVEL].contains(&&*key.text);
        if !known && traffic.is_none() {
            return Err(unknown(key));
        }
        if value.is_interpolated() {
            let problem = format!(
                "the label `{}` contains a variable, which only Compose can resolve",
                key.text
            );
            let problem = Diagnostic::new(Code::InvalidValue, problem);
            return Err(problem
                .at(value.place.clone())
                .help("write the value without variables"));
        }
        if let Some((_, flag, takes)) = traffic {
            let list = takes.check(&value.text).map_err(|needed| wrong(key, value, needed))?;
            self.traffic.push((flag, list));
            return Ok(());
        }
        match &*key.text {
            INJECT | ISTIO_INJECT => {
                let inject = value.as_bool().ok_or_else(|| wrong(key, value, "`true` or `false`"))?;
                self.inject = Some((inject, value.clone()));
            }
            PORTS => self.ports = Some(ports(key, value)?),
            MTLS => {
                self.permissive = match &*value.text.to_ascii_uppercase() {
                    "STRICT" => false,
                    "PERMISSIVE" => true,
                    _ => return Err(wrong(key, value, "`STRICT` or `PERMISSIVE`")),
                }
            }
            MODE => {
                self.interception = match &*value.text.to_ascii_uppercase() {
                    "REDIRECT" => Interception::Redirect,
                    "TPROXY" => Interception::Tproxy,
                    "NONE" => Interception::None,
                    _ => return Err(wrong(key, value, "`REDIRECT`, `TPROXY` or `NONE`")),
                }
            }
            _ => {
                let levels = ["trace", "debug", "info", "warning", "error"];
                let level = value.text.to_ascii_lowercase();
                if !levels.contains(&&*level) {
                    return Err(wrong(key, value, "one of `trace`, `debug`, `info`, `warning`, `error`"));
                }
                self.log_level = Some(level);
            }
        }
        Ok(())
    }
}

impl Takes {
    /// The list without spaces.
    ///
    /// # Errors
    ///
    /// The expected format.
    fn check(self, text: &str) -> Result<String, &'static str> {
        let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
        let is_all = items == ["*"];
        let (good, needed) = match self {
            Self::Ports => (
                items.iter().all(|item| is_port(item)),
                "a comma-separated list of ports",
            ),
            Self::PortsOrAll => (
                is_all || items.iter().all(|item| is_port(item)),
                "a comma-separated list of ports, or `*`",
            ),
            Self::Ranges => (
                items.iter().all(|item| item.parse::<IpNet>().is_ok()),
                "a comma-separated list of IP ranges such as `10.0.0.0/8`",
            ),
            Self::RangesOrAll => (
                is_all || items.iter().all(|item| item.parse::<IpNet>().is_ok()),
                "a comma-separated list of IP ranges such as `10.0.0.0/8`, or `*`",
            ),
            Self::Names => (
                items.iter().all(|item| !item.contains(char::is_whitespace)),
                "a comma-separated list of names",
            ),
        };
        if good { Ok(items.join(",")) } else { Err(needed) }
    }
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port != 0)
}

/// `http:8080,tcp:5432,9000`; empty or `none` means no ports.
fn ports(key: &Spot, value: &Spot) -> Result<Vec<(u16, Protocol, Spot)>, Diagnostic> {
    let mut found = Vec::new();
    let text = value.text.trim();
    if text.eq_ignore_ascii_case("none") {
        return Ok(found);
    }
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (protocol, number) = match item.split_once(':') {
            Some((protocol, number)) => (Some(protocol.trim()), number.trim()),
            None => (None, item),
        };
        if !is_port(number) {
            return Err(wrong(key, value, "a list such as `http:8080,tcp:5432,9000`, or `none`"));
        }
        let number = number.parse().unwrap_or_default();
        let protocol = match protocol {
            None => Protocol::of_port(number),
            Some(name) => Protocol::of_name(name).ok_or_else(|| unknown_protocol(name, value))?,
        };
        found.retain(|(earlier, ..)| *earlier != number);
        found.push((number, protocol, value.clone()));
    }
    Ok(found)
}

/// Reports an unknown protocol.
pub(super) fn unknown_protocol(name: &str, at: &Spot) -> Diagnostic {
    let names = Protocol::NAMES.map(|(name, _)| name);
    let problem = format!("unknown protocol `{}`", name.escape_debug());
    let problem = Diagnostic::new(Code::InvalidValue, problem).at(at.place.clone());
    problem.help(match closest(name, names) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("expected one of `{}`", names.join("`, `")),
    })
}

fn unknown(key: &Spot) -> Diagnostic {
    let own = [INJECT, PORTS, MTLS, ISTIO_INJECT, MODE, LOG_LEVEL];
    let traffic = TRAFFIC.iter().map(|(name, ..)| *name);
    let all = own
        .into_iter()
        .chain(traffic)
        .chain(MEANINGLESS.iter().map(|(name, _)| *name));
    let problem = format!("unknown label `{}`", key.text.escape_debug());
    let mut problem = Diagnostic::new(Code::UnknownField, problem).at(key.place.clone());
    problem.help = closest(&key.text, all).map(|meant| format!("did you mean `{meant}`?"));
    problem
}

fn wrong(key: &Spot, value: &Spot, needed: &str) -> Diagnostic {
    let problem = format!(
        "invalid value `{}` for the label `{}`",
        value.text.escape_debug(),
        key.text
    );
    let problem = Diagnostic::new(Code::InvalidValue, problem).at(value.place.clone());
    problem.help(format!("expected {needed}"))
}
