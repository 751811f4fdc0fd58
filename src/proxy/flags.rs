//! Response flags: why a response is not the endpoint's own (`%RESPONSE_FLAGS%`).

use std::fmt;

/// A set of flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u32);

/// The table of flags: name, bit, and the two forms in logs.
macro_rules! flags {
    ($($(#[$doc:meta])+ $name:ident = $bit:literal, $short:literal, $long:literal;)+) => {
        impl Flags {
            /// None.
            pub(crate) const NONE: Self = Self(0);
            $($(#[$doc])+ pub(crate) const $name: Self = Self(1 << $bit);)+
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
    /// Adds flags.
    pub(crate) fn set(&mut self, flags: Self) {
        self.0 |= flags.0;
    }

    /// Whether all of these are set.
    pub(crate) fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
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
        let names: Vec<_> = Self::NAMES
            .iter()
            .filter(|(flag, ..)| self.contains(*flag))
            .map(|(.., long)| *long)
            .collect();
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
        let mut names = Self::NAMES
            .iter()
            .filter(|(flag, ..)| self.contains(*flag))
            .map(|(_, short, _)| *short);
        f.write_str(names.next().unwrap_or("-"))?;
        names.try_for_each(|name| write!(f, ",{name}"))
    }
}
