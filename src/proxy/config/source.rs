//! Where resources come from that are named somewhere.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};

use super::headers::fixed;
use super::value::duration;
use super::{At, Compiled, Names, Refusal};
use crate::xds::client::Variant;
use crate::xds::pb::core::api_config_source::ApiType;
use crate::xds::pb::core::config_source::ConfigSourceSpecifier;
use crate::xds::pb::core::grpc_service::TargetSpecifier;
use crate::xds::pb::core::{ApiConfigSource, ConfigSource};
use crate::xds::pb::tls::SdsSecretConfig;

/// Envoy's, where nothing is said: pauses between attempts.
const BASE_INTERVAL: Duration = Duration::from_millis(500);
const MAX_INTERVAL: Duration = Duration::from_secs(30);

/// A server that is asked over gRPC.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ApiSource {
    /// The cluster of the bootstrap by which it is reached.
    pub(crate) cluster: String,
    /// The variant of the protocol.
    pub(crate) variant: Variant,
    /// `:authority`.
    pub(crate) authority: String,
    /// Pauses between attempts: the first and the longest.
    pub(crate) back_off: (Duration, Duration),
    /// What its streams are opened with, beside what the cluster adds.
    pub(crate) metadata: Vec<(HeaderName, HeaderValue)>,
}

/// Where a secret comes from. Secrets of one name from two sources are two secrets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SecretSource {
    /// The stream that everything else comes by.
    Ads,
    /// A stream of secrets alone.
    Server(Arc<ApiSource>),
    /// A file with a `DiscoveryResponse`.
    File(PathBuf),
    /// The bootstrap.
    Bootstrap,
}

/// Refuses a source that is not the stream that everything comes by: of all resources but secrets there is no other.
pub(super) fn aggregated(source: Option<&ConfigSource>) -> Compiled<()> {
    let source = source.ok_or_else(|| Refusal::new("a source is needed"))?;
    match source.config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(_)) => Ok(()),
        Some(_) | None => Err(Refusal::not_implemented("another source than `ads`")),
    }
}

/// An `ApiConfigSource`.
pub(super) fn api(message: &ApiConfigSource) -> Compiled<ApiSource> {
    let variant = match message.api_type() {
        ApiType::DeltaGrpc | ApiType::AggregatedDeltaGrpc => Variant::Delta,
        ApiType::Grpc | ApiType::AggregatedGrpc => Variant::Sotw,
        _ => return Err(Refusal::not_implemented("this api_type")),
    };
    let [service] = &message.grpc_services[..] else {
        return Err(Refusal::not_implemented("other than one server").within("grpc_services"));
    };
    let Some(TargetSpecifier::EnvoyGrpc(grpc)) = service.target_specifier.as_ref() else {
        return Err(Refusal::not_implemented("other than envoy_grpc").within("grpc_services[0]"));
    };
    let retry = grpc.retry_policy.as_ref();
    let back_off = retry.and_then(|retry| retry.retry_back_off.as_ref());
    let base = back_off.and_then(|one| one.base_interval.as_ref());
    let base = base.map_or(BASE_INTERVAL, duration).max(Duration::from_millis(1));
    let longest = back_off.and_then(|one| one.max_interval.as_ref());
    let authority = match &*grpc.authority {
        "" => &grpc.cluster_name,
        authority => authority,
    };
    let metadata = service.initial_metadata.iter().enumerate();
    let metadata = metadata.map(|(index, header)| {
        let header = fixed(&header.key, &header.value).at_index("initial_metadata", index);
        header.at("grpc_services[0]")
    });
    Ok(ApiSource {
        metadata: metadata.collect::<Compiled<_>>()?,
        cluster: grpc.cluster_name.clone(),
        variant,
        authority: authority.to_owned(),
        back_off: (base, longest.map_or(MAX_INTERVAL, duration).max(base)),
    })
}

/// The source of a `SdsSecretConfig`: the bootstrap if it names none.
pub(super) fn secret(message: &SdsSecretConfig, names: &Names) -> Compiled<SecretSource> {
    let Some(config) = message.sds_config.as_ref() else {
        return match names.secrets.has(&SecretSource::Bootstrap, &message.name) {
            true => Ok(SecretSource::Bootstrap),
            false => Err(Refusal::new(format!("there is no static secret `{}`", message.name)).within("name")),
        };
    };
    let source = match config.config_source_specifier.as_ref() {
        Some(ConfigSourceSpecifier::Ads(_)) => Ok(SecretSource::Ads),
        Some(ConfigSourceSpecifier::PathConfigSource(path)) => Ok(SecretSource::File(PathBuf::from(&path.path))),
        Some(ConfigSourceSpecifier::ApiConfigSource(message)) => server(message, names).at("api_config_source"),
        Some(_) | None => Err(Refusal::not_implemented("this source")),
    };
    source.at("sds_config")
}

fn server(message: &ApiConfigSource, names: &Names) -> Compiled<SecretSource> {
    if matches!(
        message.api_type(),
        ApiType::AggregatedDeltaGrpc | ApiType::AggregatedGrpc
    ) {
        return Err(Refusal::not_implemented(message.api_type().as_str_name()).within("api_type"));
    }
    let source = api(message)?;
    if names
        .servers
        .as_ref()
        .is_some_and(|servers| !servers.contains(&source.cluster))
    {
        let why = format!("the bootstrap has no cluster `{}`", source.cluster);
        return Err(Refusal::new(why).within("grpc_services[0].envoy_grpc.cluster_name"));
    }
    Ok(SecretSource::Server(Arc::new(source)))
}
