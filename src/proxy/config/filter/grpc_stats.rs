//! `envoy.filters.http.grpc_stats`.

use crate::proxy::http::filter::grpc_stats::ByMethod;
use crate::xds::pb::http_filter::grpc_stats::FilterConfig;
use crate::xds::pb::http_filter::grpc_stats::filter_config::PerMethodStatSpecifier;

/// Which methods have statistics of their own; none by default.
pub(super) fn by_method(message: &FilterConfig) -> ByMethod {
    match &message.per_method_stat_specifier {
        Some(PerMethodStatSpecifier::StatsForAllMethods(all)) if all.value => ByMethod::All,
        Some(PerMethodStatSpecifier::IndividualMethodStatsAllowlist(list)) => {
            let services = list.services.iter();
            let methods = services.flat_map(|service| {
                let methods = service.method_names.iter();
                methods.map(|method| format!("{}/{method}", service.name).into())
            });
            ByMethod::Only(methods.collect())
        }
        Some(PerMethodStatSpecifier::StatsForAllMethods(_)) | None => ByMethod::Only([].into()),
    }
}
