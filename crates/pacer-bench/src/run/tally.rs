/// What is counted in a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Attempts that were started.
    pub attempts: u64,
    /// Attempts that were accepted.
    pub accepted: u64,
    /// Attempts that were refused.
    pub refused: u64,
    /// Attempts that had no outcome when the run ended.
    pub running: u64,
    /// Messages that are out for good.
    pub failed: u64,
    /// Messages that were tried and wait.
    pub waiting: u64,
    /// Messages that were tried at least once.
    pub begun: u64,
    /// Messages accepted by the deadline, where there is one.
    pub accepted_by_deadline: u64,
    /// How often the provider locked the sender out.
    pub blocks: u64,
    /// Day by day of the provider; the first is the one in which the run starts.
    pub days: Vec<Day>,
}

/// A day of a provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Day {
    /// Attempts that were accepted.
    pub accepted: u64,
    /// Attempts that were refused.
    pub refused: u64,
}

impl Tally {
    /// Refused attempts as a share of all that have an outcome.
    pub fn refused_share(&self) -> f64 {
        let ended = self.accepted + self.refused;
        if ended == 0 {
            0.0
        } else {
            self.refused as f64 / ended as f64
        }
    }

    pub(super) fn day(&mut self, number: i64) -> Option<&mut Day> {
        let position = usize::try_from(number).ok()?;
        if self.days.len() <= position {
            self.days.resize(position + 1, Day::default());
        }
        self.days.get_mut(position)
    }

    /// Adds the counts of another lane. Their days are counted from the start of each provider's own.
    pub(super) fn add(&mut self, other: &Self) {
        self.attempts += other.attempts;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.running += other.running;
        self.failed += other.failed;
        self.waiting += other.waiting;
        self.begun += other.begun;
        self.accepted_by_deadline += other.accepted_by_deadline;
        self.blocks += other.blocks;
        for (position, day) in other.days.iter().enumerate() {
            if let Some(sum) = i64::try_from(position).ok().and_then(|number| self.day(number)) {
                sum.accepted += day.accepted;
                sum.refused += day.refused;
            }
        }
    }
}
