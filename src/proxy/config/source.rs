//! Where xDS resources come from (`ConfigSource`).

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

/// Envoy's defaults for the back-off between attempts.
const BASE_INTERVAL: Duration = Duration::from_millis(500);
const MAX_INTERVAL: Duration = Duration::from_secs(30);

/// A gRPC xDS server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ApiSource {
    /// The bootstrap's cluster by which it is reached.
    pub(crate) cluster: String,
    /// The protocol variant.
    pub(crate) variant: Variant,
    /// `:authority`.
    pub(crate) authority: String,
    /// Base and maximum back-off between attempts.
    pub(crate) back_off: (Duration, Duration),
    /// `initial_metadata` of its streams.
    pub(crate) metadata: Vec<(HeaderName, HeaderValue)>,
}

/// Where a secret comes from. Secrets with the same name from two sources are different.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SecretSource {
    /// The ADS stream.
    Ads,
    /// An SDS stream.
    Server(Arc<ApiSource>),
    /// A file with a `DiscoveryResponse`.
    File(PathBuf),
    /// The bootstrap.
    Bootstrap,
}

/// Refuses any source but ADS, the only one supported for resources other than secrets.
pub(super) fn aggregated(source: Option<&ConfigSource>) -> Compiled<()> {
    let source = source.ok_or_else(|| Refusal::new("a source is required"))?;
    match source.config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(_)) => Ok(()),
        Some(_) | None => Err(Refusal::not_implemented("another source than `ads`")),
    }
}

/// Compiles an `ApiConfigSource`.
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

/// The source of an `SdsSecretConfig`; the bootstrap if it has none.
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
