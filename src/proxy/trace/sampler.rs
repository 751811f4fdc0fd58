//! Samplers (`OpenTelemetryConfig.sampler`): which of the traces that the connection manager has let pass are recorded.

use super::decision::Share;

/// An OpenTelemetry sampler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sampler {
    /// Samples all.
    AlwaysOn,
    /// Samples a share of traces by their ids, so that all proxies on the way decide alike.
    TraceIdRatio(Share),
    /// Follows the parent; without one, this sampler decides.
    ParentBased(Box<Sampler>),
}

impl Sampler {
    /// Whether a span of this trace is sampled. `parent` is the parent's decision, if there is one.
    pub(super) fn samples(&self, trace: u128, parent: Option<bool>) -> bool {
        match self {
            Sampler::AlwaysOn => true,
            // Envoy reads the first eight bytes in memory order.
            Sampler::TraceIdRatio(share) => share.has(((trace >> 64) as u64).swap_bytes()),
            Sampler::ParentBased(otherwise) => parent.unwrap_or_else(|| otherwise.samples(trace, None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_recorded_by_its_id_or_as_the_client_does_it() {
        let half = Sampler::TraceIdRatio(Share {
            numerator: 50,
            denominator: 100,
        });
        let of = |first: u128| half.samples(first << 120, Some(false));
        assert!(of(0) && of(49) && !of(50) && !of(99) && of(100));
        let parent = Sampler::ParentBased(Box::new(half.clone()));
        assert!(parent.samples(99 << 120, Some(true)) && !parent.samples(0, Some(false)));
        assert!(parent.samples(0, None) && !parent.samples(99 << 120, None));
        assert!(Sampler::AlwaysOn.samples(0, Some(false)));
    }
}
