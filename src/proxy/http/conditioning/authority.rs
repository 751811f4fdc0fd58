//! Normalization of `:authority` (Envoy's `ConnectionManagerUtility::maybeNormalizeHost`).

use crate::proxy::http::{AuthorityNormalization, StripPort};

impl AuthorityNormalization {
    /// The normalized authority of a request on a connection to `local_port`; `None` if it is unchanged.
    pub(super) fn apply(self, authority: &str, local_port: Option<u16>) -> Option<String> {
        if self == Self::default() {
            return None;
        }
        let undotted = self.strip_dot.then(|| without_dot(authority)).flatten();
        let host = undotted.as_deref().unwrap_or(authority);
        let stripped = split_port(host).filter(|(_, port)| match self.strip_port {
            StripPort::No => false,
            StripPort::Any => true,
            StripPort::Matching => Some(*port) == local_port.map(u32::from),
        });
        let stripped = stripped.map(|(host, _)| host.to_owned());
        stripped.or(undotted)
    }
}

/// Host and port of an authority that has a port. Brackets belong to the host (RFC 3986 section 3.2.2).
fn split_port(authority: &str) -> Option<(&str, u32)> {
    let (host, port) = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']'))?;
    Some((host, port.parse().ok()?))
}

/// The authority without the trailing dot of its host; `None` if there is none.
fn without_dot(authority: &str) -> Option<String> {
    let (host, rest) = authority.rsplit_once('.')?;
    (rest.is_empty() || rest.starts_with(':')).then(|| format!("{host}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_dots_go_where_that_is_asked_for() {
        let (no, any, matching) = (StripPort::No, StripPort::Any, StripPort::Matching);
        for (strip_port, strip_dot, authority, wanted) in [
            (no, false, "a.example.:80", None),
            (any, false, "a.example:80", Some("a.example")),
            (any, false, "a.example", None),
            (any, false, "a:b", None),
            (any, false, "[::1]:80", Some("[::1]")),
            (any, false, "[::1]", None),
            (matching, false, "a:8080", Some("a")),
            (matching, false, "a:80", None),
            (no, true, "a.example.", Some("a.example")),
            (no, true, "a.example.:80", Some("a.example:80")),
            (any, true, "a.example.:80", Some("a.example")),
            (any, true, "a.example:80", Some("a.example")),
            (no, true, "1.2.3.4:80", None),
        ] {
            let rule = AuthorityNormalization { strip_port, strip_dot };
            assert_eq!(rule.apply(authority, Some(8080)).as_deref(), wanted, "{authority}");
        }
    }
}
