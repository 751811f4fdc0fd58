//! Response flags (`%RESPONSE_FLAGS%`).

use std::fmt;

/// Flags in the order in which they were set, as Envoy writes them: five bits for the number of each, starting at the
/// lowest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u64);

/// Bits of a flag's number.
const BITS: u32 = 5;

/// The most flags at once; no stream comes near.
const MOST: u32 = u64::BITS / BITS;

/// The table of flags: name, number (from 1), short and long form in logs.
macro_rules! flags {
    ($($(#[$doc:meta])+ $name:ident = $number:literal, $short:literal, $long:literal;)+) => {
        impl Flags {
            /// None.
            pub(crate) const NONE: Self = Self(0);
            $($(#[$doc])+ pub(crate) const $name: Self = Self($number);)+
            const NAMES: &[(Self, &str, &str)] = &[$((Self::$name, $short, $long)),+];
        }
    };
}

flags! {
    /// No healthy host in the cluster.
    NO_HEALTHY_UPSTREAM = 1, "UH", "NoHealthyUpstream";
    /// A timeout of the request to the host.
    UPSTREAM_REQUEST_TIMEOUT = 2, "UT", "UpstreamRequestTimeout";
    /// The proxy reset the stream itself.
    LOCAL_RESET = 3, "LR", "LocalReset";
    /// The host reset the stream.
    UPSTREAM_REMOTE_RESET = 4, "UR", "UpstreamRemoteReset";
    /// Connecting to the host failed.
    UPSTREAM_CONNECTION_FAILURE = 5, "UF", "UpstreamConnectionFailure";
    /// The upstream connection closed.
    UPSTREAM_CONNECTION_TERMINATION = 6, "UC", "UpstreamConnectionTermination";
    /// A circuit breaker was full.
    UPSTREAM_OVERFLOW = 7, "UO", "UpstreamOverflow";
    /// No route, or no filter chain.
    NO_ROUTE = 8, "NR", "NoRouteFound";
    /// Delayed by fault injection.
    DELAY_INJECTED = 9, "DI", "DelayInjected";
    /// Aborted by fault injection.
    FAULT_INJECTED = 10, "FI", "FaultInjected";
    /// Refused by the local rate limit.
    RATE_LIMITED = 11, "RL", "RateLimited";
    /// Refused by an authorization service.
    UNAUTHORIZED = 12, "UAEX", "UnauthorizedExternalService";
    /// A health check that fails on purpose.
    LOCAL_HEALTH = 13, "LH", "FailedLocalHealthCheck";
    /// The client closed its connection.
    DOWNSTREAM_CONNECTION_TERMINATION = 14, "DC", "DownstreamConnectionTermination";
    /// All retries failed too.
    RETRY_LIMIT_EXCEEDED = 15, "URX", "UpstreamRetryLimitExceeded";
    /// The stream idle timeout.
    STREAM_IDLE_TIMEOUT = 16, "SI", "StreamIdleTimeout";
    /// The client violated the protocol.
    DOWNSTREAM_PROTOCOL_ERROR = 18, "DPE", "DownstreamProtocolError";
    /// `max_stream_duration` was reached.
    MAX_DURATION = 20, "UMSDR", "UpstreamMaxStreamDurationReached";
    /// The cluster does not exist.
    NO_CLUSTER = 22, "NC", "NoClusterFound";
    /// The host violated the protocol.
    UPSTREAM_PROTOCOL_ERROR = 23, "UPE", "UpstreamProtocolError";
    /// The proxy is overloaded.
    OVERLOAD = 24, "OM", "OverloadManagerTerminated";
    /// `max_connection_duration` was reached.
    DURATION_TIMEOUT = 25, "DT", "DurationTimeout";
    /// The client reset the stream.
    DOWNSTREAM_REMOTE_RESET = 26, "DR", "DownstreamRemoteReset";
}

impl Flags {
    /// Adds flags after those already set.
    pub(crate) fn set(&mut self, flags: Self) {
        for flag in flags.each() {
            if !self.contains(flag) {
                let used = self.each().count() as u32;
                self.0 |= flag.0.checked_shl(used.min(MOST) * BITS).unwrap_or(0);
            }
        }
    }

    /// Whether all of these are set.
    pub(crate) fn contains(self, flags: Self) -> bool {
        flags.each().all(|flag| self.each().any(|one| one == flag))
    }

    fn each(self) -> impl Iterator<Item = Self> {
        let numbers = (0..MOST).map(move |at| self.0 >> (at * BITS) & ((1 << BITS) - 1));
        numbers.take_while(|number| *number > 0).map(Self)
    }

    /// The table rows of the flags set.
    fn rows(self) -> impl Iterator<Item = &'static (Self, &'static str, &'static str)> {
        self.each()
            .filter_map(|flag| Self::NAMES.iter().find(|(one, ..)| *one == flag))
    }

    /// Whether none is set.
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The flag with this short name.
    pub(crate) fn by_short_name(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(_, short, _)| *short == name)
            .map(|(flag, ..)| *flag)
    }

    /// The long names, separated by commas; `-` if there are none.
    pub(crate) fn long(self) -> String {
        let names: Vec<_> = self.rows().map(|(.., long)| *long).collect();
        if names.is_empty() {
            "-".to_owned()
        } else {
            names.join(",")
        }
    }
}

impl fmt::Display for Flags {
    /// The short names, separated by commas; `-` if there are none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = self.rows().map(|(_, short, _)| *short);
        f.write_str(names.next().unwrap_or("-"))?;
        names.try_for_each(|name| write!(f, ",{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_written_in_the_order_in_which_they_were_set() {
        let mut flags = Flags::RETRY_LIMIT_EXCEEDED;
        assert_eq!((flags.to_string(), Flags::NONE.to_string()), ("URX".into(), "-".into()));
        let mut both = Flags::UPSTREAM_CONNECTION_FAILURE;
        both.set(Flags::RETRY_LIMIT_EXCEEDED);
        flags.set(both);
        flags.set(both);
        assert_eq!(
            (flags.to_string(), both.to_string()),
            ("URX,UF".into(), "UF,URX".into())
        );
        assert_eq!(flags.long(), "UpstreamRetryLimitExceeded,UpstreamConnectionFailure");
        assert!(flags.contains(both) && both.contains(flags) && !both.contains(Flags::NO_ROUTE));
        assert!(flags.contains(Flags::NONE) && !flags.is_empty() && Flags::NONE.is_empty());
        for (flag, ..) in Flags::NAMES {
            flags.set(*flag);
        }
        assert!(flags.to_string().starts_with("URX,UF,UH,UT,"));
    }
}
