//! TLS contexts and secrets.

use super::{Compiled, Names, Refusal};
use crate::proxy::tls::{DownstreamTls, UpstreamTls};
use crate::xds::pb::tls::{DownstreamTlsContext, UpstreamTlsContext};

/// TLS towards hosts.
pub(crate) fn upstream(_message: &UpstreamTlsContext, _names: &mut Names) -> Compiled<UpstreamTls> {
    Err(Refusal::not_implemented("TLS"))
}

/// TLS towards clients.
pub(crate) fn downstream(_message: &DownstreamTlsContext, _names: &mut Names) -> Compiled<DownstreamTls> {
    Err(Refusal::not_implemented("TLS"))
}
