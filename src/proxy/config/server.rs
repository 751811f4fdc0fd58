//! Compiling how the control plane is reached, and the rest of the bootstrap that the control thread needs.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use http::header::HeaderName;
use prost::Message;

use super::headers::name_of;
use super::source::{self, ApiSource};
use super::value::{fetch_timeout, host_address, unpack};
use super::{At, Compiled, Refusal};
use crate::proxy::admin::Start;
use crate::proxy::upstream::host::HostAddress;
use crate::xds::pb::access_log::AccessLog;
use crate::xds::pb::access_log::access_log::ConfigType;
use crate::xds::pb::access_log::file::FileAccessLog;
use crate::xds::pb::bootstrap::bootstrap::DynamicResources;
use crate::xds::pb::bootstrap::{Admin, Bootstrap};
use crate::xds::pb::core::config_source::ConfigSourceSpecifier;
use crate::xds::pb::core::{Node, TypedExtensionConfig};
use crate::xds::pb::credentials::{CredentialInjector, Generic, HeaderMutation, mutation};
use crate::xds::pb::network_filter::http_connection_manager::{HttpFilter, http_filter};
use crate::xds::pb::upstream_http::HttpProtocolOptions;
use crate::xds::pb::wkt::Any;

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const INJECTOR: &str = "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector";
const MUTATION: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
const CODEC: &str = "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec";

/// How an xDS server is reached.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// Its source.
    pub(crate) source: ApiSource,
    /// Changes to the headers of a stream's request.
    pub(crate) headers: Vec<HeaderStep>,
}

/// How long the first CDS and LDS responses are waited for; `None`: for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FirstAnswers {
    /// CDS, from the start.
    pub(crate) clusters: Option<Duration>,
    /// LDS, from when CDS has responded or timed out.
    pub(crate) listeners: Option<Duration>,
}

/// The timeouts of the bootstrap's dynamic resources.
pub(crate) fn first_answers(bootstrap: &Bootstrap) -> FirstAnswers {
    let dynamic = bootstrap.dynamic_resources.as_ref();
    FirstAnswers {
        clusters: fetch_timeout(dynamic.and_then(|dynamic| dynamic.cds_config.as_ref())),
        listeners: fetch_timeout(dynamic.and_then(|dynamic| dynamic.lds_config.as_ref())),
    }
}

/// A change to the headers of a stream's request.
#[derive(Clone, Debug)]
pub(crate) enum HeaderStep {
    /// Sets the header to a prefix and a secret, which is read from a resource in this file.
    Secret(HeaderName, String, PathBuf),
    /// Sets the header to a value in which `%REQ(x)%` stands for the header `x`.
    Set(HeaderName, String),
    /// Removes the header.
    Remove(HeaderName),
}

/// The ADS server; `None` if everything is static.
pub(crate) fn server(bootstrap: &Bootstrap) -> Compiled<Option<Server>> {
    let Some(dynamic) = bootstrap.dynamic_resources.as_ref() else {
        return Ok(None);
    };
    self::dynamic(dynamic, bootstrap).at("dynamic_resources").map(Some)
}

/// The address of the admin interface; `None`: it is disabled.
pub(crate) fn admin_address(message: Option<&Admin>) -> Compiled<Option<SocketAddr>> {
    let Some(message) = message.filter(|message| message.address.is_some()) else {
        return Ok(None);
    };
    let unused = [
        ("access_log", !message.access_log.iter().all(goes_nowhere)),
        ("socket_options", !message.socket_options.is_empty()),
        ("allow_paths", !message.allow_paths.is_empty()),
    ];
    if let Some((field, _)) = unused.iter().find(|(_, used)| *used) {
        return Err(Refusal::not_implemented("this field").within(format!("admin.{field}")));
    }
    match host_address(message.address.as_ref()).at("admin.address")? {
        HostAddress::Ip(address) => Ok(Some(address)),
        HostAddress::Unix(_) => Err(Refusal::not_implemented("a pipe").within("admin.address")),
    }
}

/// Whether a log is written to `/dev/null`, as the admin interface's is in Istio's bootstrap.
fn goes_nowhere(log: &AccessLog) -> bool {
    let Some(ConfigType::TypedConfig(config)) = &log.config_type else {
        return false;
    };
    unpack::<FileAccessLog>(config).is_ok_and(|file| file.path == "/dev/null")
}

/// What the admin interface tells of the start.
pub(crate) fn start(path: &Path, message: &Bootstrap, concurrency: u64) -> Start {
    let node = message.node.as_ref().map(Message::encode_to_vec);
    Start {
        path: path.display().to_string(),
        bootstrap: message.encode_to_vec().into(),
        node: node.unwrap_or_default().into(),
        time: SystemTime::now(),
        concurrency,
    }
}

fn dynamic(dynamic: &DynamicResources, bootstrap: &Bootstrap) -> Compiled<Server> {
    source::aggregated(dynamic.cds_config.as_ref()).at("cds_config")?;
    source::aggregated(dynamic.lds_config.as_ref()).at("lds_config")?;
    let ads = dynamic.ads_config.as_ref();
    let ads = ads.ok_or_else(|| Refusal::new("a source is required").within("ads_config"))?;
    let source = source::api(ads).at("ads_config")?;
    of_source(source, bootstrap)
}

/// The server of a source, as configured by its cluster in the bootstrap.
///
/// # Errors
/// If there is no such cluster, or it needs something not implemented.
pub(crate) fn of_source(source: ApiSource, bootstrap: &Bootstrap) -> Compiled<Server> {
    Ok(Server {
        headers: headers(bootstrap, &source.cluster)?,
        source,
    })
}

/// The clusters by which xDS servers can be reached.
pub(crate) fn clusters(bootstrap: &Bootstrap) -> HashSet<String> {
    let clusters = bootstrap.static_resources.iter().flat_map(|fixed| &fixed.clusters);
    clusters.map(|cluster| cluster.name.clone()).collect()
}

/// The bootstrap's node, with the fields that Envoy adds.
pub(crate) fn node(bootstrap: &Bootstrap) -> Node {
    let mut node = bootstrap.node.clone().unwrap_or_default();
    "topsail".clone_into(&mut node.user_agent_name);
    node
}

/// The header changes of a cluster's HTTP filters; only the credential injector is supported.
fn headers(bootstrap: &Bootstrap, cluster: &str) -> Compiled<Vec<HeaderStep>> {
    let clusters = bootstrap.static_resources.iter().flat_map(|fixed| &fixed.clusters);
    let found = clusters.into_iter().find(|one| one.name == cluster);
    let found = found.ok_or_else(|| Refusal::new(format!("there is no static cluster `{cluster}`")))?;
    let Some(any) = found.typed_extension_protocol_options.get(HTTP_OPTIONS) else {
        return Ok(Vec::new());
    };
    let options: HttpProtocolOptions = unpack(any)?;
    let mut steps = Vec::new();
    for (index, filter) in options.http_filters.iter().enumerate() {
        steps.extend(filter_steps(filter).at_index("http_filters", index)?);
    }
    Ok(steps)
}

fn filter_steps(filter: &HttpFilter) -> Compiled<Vec<HeaderStep>> {
    let Some(http_filter::ConfigType::TypedConfig(any)) = filter.config_type.as_ref() else {
        return Err(Refusal::not_implemented(format!(
            "`{}` without a configuration",
            filter.name
        )));
    };
    match any.type_url.rsplit('/').next() {
        Some(INJECTOR) => injector(any).map(|step| vec![step]),
        Some(MUTATION) => mutation(any),
        Some(CODEC) => Ok(Vec::new()),
        Some(_) | None => Err(Refusal::not_implemented(format!("`{}`", any.type_url))),
    }
}

fn injector(any: &Any) -> Compiled<HeaderStep> {
    // This package has no `Name` for the filter in every release.
    let injector = CredentialInjector::decode(&any.value[..])?;
    let Some(TypedExtensionConfig {
        typed_config: Some(any),
        ..
    }) = &injector.credential
    else {
        return Err(Refusal::new("a credential is required"));
    };
    let generic: Generic = unpack(any).at("credential")?;
    let header = if generic.header.is_empty() {
        "authorization"
    } else {
        &generic.header
    };
    let secret = generic
        .credential
        .as_ref()
        .and_then(|secret| secret.sds_config.as_ref());
    let Some(ConfigSourceSpecifier::PathConfigSource(path)) =
        secret.and_then(|source| source.config_source_specifier.as_ref())
    else {
        return Err(Refusal::not_implemented("a credential from other than a file").within("credential"));
    };
    Ok(HeaderStep::Secret(
        name_of(header)?,
        generic.header_value_prefix,
        PathBuf::from(&path.path),
    ))
}

fn mutation(any: &Any) -> Compiled<Vec<HeaderStep>> {
    let message: HeaderMutation = unpack(any)?;
    let mutations = message.mutations.unwrap_or_default().request_mutations;
    mutations
        .iter()
        .map(|one| match one.action.as_ref() {
            Some(mutation::Action::Remove(name)) => Ok(HeaderStep::Remove(name_of(name)?)),
            Some(mutation::Action::Append(option)) => {
                let header = option
                    .header
                    .as_ref()
                    .ok_or_else(|| Refusal::new("a header is required"))?;
                Ok(HeaderStep::Set(name_of(&header.key)?, header.value.clone()))
            }
            _ => Err(Refusal::not_implemented("this mutation")),
        })
        .collect()
}
