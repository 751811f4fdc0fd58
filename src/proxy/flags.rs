//! Response flags: why a response is not the endpoint's own (`%RESPONSE_FLAGS%`).

use std::fmt;

/// Flags in the order in which they were set, as Envoy writes them: a number of each in five bits, the first lowest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u64);

/// How many bits the number of a flag has.
const BITS: u32 = 5;

/// How many flags there can be at once; no stream has nearly as many.
const MOST: u32 = u64::BITS / BITS;

/// The table of flags: name, number from 1 on, and the two forms in logs.
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
    /// The request took too long.
    UPSTREAM_REQUEST_TIMEOUT = 2, "UT", "UpstreamRequestTimeout";
    /// The proxy reset the stream itself.
    LOCAL_RESET = 3, "LR", "LocalReset";
    /// The host reset the stream.
    UPSTREAM_REMOTE_RESET = 4, "UR", "UpstreamRemoteReset";
    /// No connection to the host.
    UPSTREAM_CONNECTION_FAILURE = 5, "UF", "UpstreamConnectionFailure";
    /// The connection to the host ended.
    UPSTREAM_CONNECTION_TERMINATION = 6, "UC", "UpstreamConnectionTermination";
    /// A circuit breaker is open.
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
    /// Nothing happened for too long.
    STREAM_IDLE_TIMEOUT = 16, "SI", "StreamIdleTimeout";
    /// The client broke the protocol.
    DOWNSTREAM_PROTOCOL_ERROR = 18, "DPE", "DownstreamProtocolError";
    /// The stream lived too long.
    MAX_DURATION = 20, "UMSDR", "UpstreamMaxStreamDurationReached";
    /// The cluster does not exist.
    NO_CLUSTER = 22, "NC", "NoClusterFound";
    /// The host broke the protocol.
    UPSTREAM_PROTOCOL_ERROR = 23, "UPE", "UpstreamProtocolError";
    /// The proxy is overloaded.
    OVERLOAD = 24, "OM", "OverloadManagerTerminated";
    /// The connection lived too long.
    DURATION_TIMEOUT = 25, "DT", "DurationTimeout";
    /// The client reset the stream.
    DOWNSTREAM_REMOTE_RESET = 26, "DR", "DownstreamRemoteReset";
}

impl Flags {
    /// Adds flags, after those that are there.
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

    /// The row of the table of each.
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

    /// The long names, joined by commas; `-` if there is none.
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
    /// The short names, joined by commas; `-` if there is none.
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
