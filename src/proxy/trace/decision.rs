//! The decision which requests are traced. The request id carries it, so that all proxies on the way decide alike.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::proxy::http::RequestId;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CLIENT_TRACE_ID: HeaderName = HeaderName::from_static("x-client-trace-id");
const FORCE_TRACE: HeaderName = HeaderName::from_static("x-envoy-force-trace");

/// The character of a request id that carries the decision: the version of a random UUID, which is `4`, or one of
/// Envoy's.
const PLACE: usize = 14;

/// Why a request is traced (`Tracing::Reason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It is not traced.
    NotTraceable,
    /// Random sampling.
    Sampling,
    /// Forced by a service (`x-envoy-force-trace`).
    ServiceForced,
    /// Requested by the client (`x-client-trace-id`).
    ClientForced,
}

impl Reason {
    /// Its character in a request id.
    fn character(self) -> u8 {
        match self {
            Reason::NotTraceable => b'4',
            Reason::Sampling => b'9',
            Reason::ServiceForced => b'a',
            Reason::ClientForced => b'b',
        }
    }

    fn of(id: &[u8]) -> Self {
        let all = [Reason::Sampling, Reason::ServiceForced, Reason::ClientForced];
        let found = all.into_iter().find(|one| id.get(PLACE) == Some(&one.character()));
        found.unwrap_or(Reason::NotTraceable)
    }

    /// Writes it into the request id.
    pub(crate) fn mark(self, headers: &mut HeaderMap) {
        let Some(id) = headers.get(&REQUEST_ID) else {
            return;
        };
        let mut id = id.as_bytes().to_vec();
        let Some(place) = id.get_mut(PLACE) else {
            return;
        };
        if *place == self.character() {
            return;
        }
        *place = self.character();
        if let Ok(value) = HeaderValue::from_bytes(&id) {
            headers.insert(REQUEST_ID, value);
        }
    }
}

/// A fraction of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// The numerator.
    pub(crate) numerator: u64,
    /// The denominator.
    pub(crate) denominator: u64,
}

impl Share {
    /// All.
    pub(crate) const ALL: Self = Self {
        numerator: 100,
        denominator: 100,
    };

    /// A fraction in parts per million.
    pub(crate) fn per_million(numerator: u32) -> Self {
        Self {
            numerator: numerator.into(),
            denominator: 1_000_000,
        }
    }

    /// Whether a random number falls within it.
    pub(crate) fn has(self, number: u64) -> bool {
        number % self.denominator.max(1) < self.numerator
    }
}

/// Sampling rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sampling {
    /// `client_sampling`, of requests with `x-client-trace-id`.
    pub(crate) client: Share,
    /// `random_sampling`, of other requests.
    pub(crate) random: Share,
    /// `overall_sampling`, of all that would be traced.
    pub(crate) overall: Share,
}

impl Sampling {
    /// Decides, and writes the decision into the request id. `random` decides about client sampling; everything else
    /// follows from the id, so that all proxies decide alike.
    pub(crate) fn decide(&self, headers: &mut HeaderMap, settings: &RequestId, random: u64) -> Reason {
        if !settings.for_sampling {
            return Reason::Sampling;
        }
        let Some(id) = headers.get(&REQUEST_ID).map(HeaderValue::as_bytes) else {
            return Reason::NotTraceable;
        };
        let Some(number) = number(id) else {
            return Reason::NotTraceable;
        };
        let number = number % 10_000;
        let before = Reason::of(id);
        let mut reason = before;
        if reason == Reason::NotTraceable {
            if headers.contains_key(&CLIENT_TRACE_ID) && self.client.has(random) {
                reason = Reason::ClientForced;
            } else if headers.contains_key(&FORCE_TRACE) {
                reason = Reason::ServiceForced;
            } else if self.random.has(number) {
                reason = Reason::Sampling;
            }
        }
        if !self.overall.has(number) {
            reason = Reason::NotTraceable;
        }
        if reason != before && settings.pack_trace_reason {
            reason.mark(headers);
        }
        reason
    }
}

/// The first 32 bits of a request id; `None` if it is not a UUID.
pub(crate) fn number(id: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(id.get(..8)?).ok()?;
    u32::from_str_radix(text, 16).ok().map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: RequestId = RequestId {
        generate: true,
        preserve_external: false,
        in_response: false,
        pack_trace_reason: true,
        for_sampling: true,
    };

    fn sampling(client: u64, random: u64, overall: u64) -> Sampling {
        let of = |numerator, denominator| Share { numerator, denominator };
        Sampling {
            client: of(client, 100),
            random: of(random, 10_000),
            overall: of(overall, 10_000),
        }
    }

    fn request(id: &'static str, more: &[(&'static str, &'static str)]) -> HeaderMap {
        let more = more.iter().copied();
        std::iter::once(("x-request-id", id))
            .chain(more)
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    /// 0x1388 is 5000.
    const HALF: &str = "00001388-0000-4000-8000-000000000000";

    #[test]
    fn chance_follows_from_the_id_and_is_told_in_it() {
        let mut headers = request(HALF, &[]);
        let decide = |sampling: Sampling, headers: &mut HeaderMap| sampling.decide(headers, &SETTINGS, 0);
        assert_eq!(decide(sampling(100, 5000, 10_000), &mut headers), Reason::NotTraceable);
        assert_eq!(headers["x-request-id"], HALF);
        assert_eq!(decide(sampling(100, 5001, 10_000), &mut headers), Reason::Sampling);
        assert_eq!(headers["x-request-id"], HALF.replace("-4000", "-9000"));
        // Decided before, it is traced whatever chance says here.
        assert_eq!(decide(sampling(100, 0, 10_000), &mut headers), Reason::Sampling);
        assert_eq!(decide(sampling(100, 0, 5000), &mut headers), Reason::NotTraceable);
        assert_eq!(headers["x-request-id"], HALF);
    }

    #[test]
    fn clients_and_services_can_want_it() {
        let mut client = request(HALF, &[("x-client-trace-id", "1"), ("x-envoy-force-trace", "1")]);
        assert_eq!(
            sampling(100, 0, 10_000).decide(&mut client, &SETTINGS, 7),
            Reason::ClientForced
        );
        assert_eq!(client["x-request-id"], HALF.replace("-4000", "-b000"));
        let mut service = request(HALF, &[("x-client-trace-id", "1"), ("x-envoy-force-trace", "1")]);
        assert_eq!(
            sampling(7, 0, 10_000).decide(&mut service, &SETTINGS, 7),
            Reason::ServiceForced
        );
        assert_eq!(service["x-request-id"], HALF.replace("-4000", "-a000"));
    }

    #[test]
    fn an_id_that_is_none_decides_nothing() {
        let all = sampling(100, 10_000, 10_000);
        for id in ["", "x", "zzzzzzzz-0000-4000-8000-000000000000"] {
            assert_eq!(
                all.decide(&mut request(id, &[]), &SETTINGS, 0),
                Reason::NotTraceable,
                "{id}"
            );
        }
        let unpacked = RequestId {
            pack_trace_reason: false,
            ..SETTINGS
        };
        let mut headers = request(HALF, &[]);
        assert_eq!(all.decide(&mut headers, &unpacked, 0), Reason::Sampling);
        assert_eq!(headers["x-request-id"], HALF);
        let alone = RequestId {
            for_sampling: false,
            ..SETTINGS
        };
        assert_eq!(
            sampling(0, 0, 0).decide(&mut request("", &[]), &alone, 0),
            Reason::Sampling
        );
    }
}
