//! How a run went over time, for the charts.

use std::time::Duration;

use crate::controller::View;

/// Samples of a run.
const SAMPLES: u32 = 240;

/// One after another, at even distances.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline {
    /// Time between two samples.
    pub step: Duration,
    /// The samples.
    pub samples: Vec<Sample>,
    accepted: u64,
    refused: u64,
}

/// A span of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// When it ended.
    pub at: Duration,
    /// Attempts that were accepted in it.
    pub accepted: u64,
    /// Attempts that were refused in it.
    pub refused: u64,
    /// How the lane stood at its end.
    pub view: View,
}

impl Timeline {
    /// An empty one for a run of this length.
    pub fn new(duration: Duration) -> Self {
        Self {
            step: (duration / SAMPLES).max(Duration::from_millis(1)),
            samples: Vec::new(),
            accepted: 0,
            refused: 0,
        }
    }

    /// Something has its outcome.
    pub fn count(&mut self, accepted: bool) {
        self.accepted += u64::from(accepted);
        self.refused += u64::from(!accepted);
    }

    /// The time is `now`: closes the spans that are over.
    pub fn advance(&mut self, now: Duration, view: impl Fn() -> View) {
        let mut end = self.end_of_span();
        if now < end {
            return;
        }
        let view = view();
        while now >= end {
            self.samples.push(Sample {
                at: end,
                accepted: std::mem::take(&mut self.accepted),
                refused: std::mem::take(&mut self.refused),
                view,
            });
            end = self.end_of_span();
        }
    }

    fn end_of_span(&self) -> Duration {
        self.step * u32::try_from(self.samples.len() + 1).unwrap_or(u32::MAX)
    }
}
