//! Parts of learning that can be left out, to measure what each is worth.

use std::fmt;

/// A part of what the pacer does. [`Pacer::without`](super::Pacer::without) leaves it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Whether a cut helped is not tested: it always counts as right, and no failure as noise.
    NoiseTest,
    /// No rate is learned: all there is are connections and pauses.
    LearnedRate,
    /// The rate is not measured between two refusals: a refusal lowers it by a fixed share.
    MeasuredRate,
    /// After a failed probe the next one for a connection goes two seconds later, however often probes fail.
    ProbeSpacing,
    /// No number of connections is known to be borne: each failure speaks against the newest of them.
    ProvenWindow,
    /// Slow replies say nothing.
    Latency,
    /// Refusals without a reason stop nothing: there is no pause after an alarm.
    Pauses,
    /// The wait of greylisting is not learned; what is put off comes back by its schedule.
    Greylisting,
    /// What was refused because of the speed comes back by its schedule too, and not within seconds.
    QuickRetries,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::NoiseTest,
        Self::LearnedRate,
        Self::MeasuredRate,
        Self::ProbeSpacing,
        Self::ProvenWindow,
        Self::Latency,
        Self::Pauses,
        Self::Greylisting,
        Self::QuickRetries,
    ];

    /// What it is called on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoiseTest => "noise-test",
            Self::LearnedRate => "learned-rate",
            Self::MeasuredRate => "measured-rate",
            Self::ProbeSpacing => "probe-spacing",
            Self::ProvenWindow => "proven-window",
            Self::Latency => "latency",
            Self::Pauses => "pauses",
            Self::Greylisting => "greylisting",
            Self::QuickRetries => "quick-retries",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
