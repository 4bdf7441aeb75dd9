//! What a Delivery says of its messages: log status, counts and the success figure, with email feedback and without.
//!
//! What happened to a message is one thing ([`MessageState`]); what is reported of it is another. With feedback a message
//! counts as a success once the receiving host accepted it. Without, it counts as one from the moment it reached its
//! sender, and stops to when it fails.

use std::fmt;

use crate::delivery::{Counts, LogStatus};

/// What actually became of a message, whatever is reported of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageState {
    /// Not with a sender yet.
    NotAccepted,
    /// Durable in a sender's spool: not tried yet, or tried and to be tried again.
    Waiting {
        /// The last attempt ended in a temporary failure.
        soft_bounced: bool,
    },
    /// Accepted by the receiving host; in test mode, its recipient was accepted.
    Sent,
    /// Given up. Also a message that had been Sent, when an asynchronous bounce comes back for it.
    Failed(Failure),
    /// Excluded before sending.
    Ignored,
    /// Stopped by the user.
    Canceled,
}

/// Why a message was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// A permanent refusal, at once or later (asynchronous bounce).
    Hard,
    /// The validity was over before a retry succeeded.
    Expired,
}

impl MessageState {
    /// What the log says.
    pub const fn log_status(self, email_feedback: bool) -> LogStatus {
        match self {
            Self::NotAccepted => LogStatus::Pending,
            Self::Waiting { .. } if email_feedback => LogStatus::TakenIntoAccount,
            Self::Waiting { .. } | Self::Sent => LogStatus::Sent,
            Self::Failed(_) => LogStatus::Failed,
            Self::Ignored => LogStatus::Ignored,
            Self::Canceled => LogStatus::Canceled,
        }
    }
}

/// Numbers of messages by what actually became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Not with a sender yet.
    pub not_accepted: u64,
    /// In a spool.
    pub waiting: u64,
    /// Accepted by the receiving host.
    pub sent: u64,
    /// Given up.
    pub failed: u64,
    /// Excluded before sending.
    pub ignored: u64,
    /// Stopped by the user.
    pub canceled: u64,
}

impl Tally {
    /// Counts one message.
    pub fn add(&mut self, state: MessageState) {
        match state {
            MessageState::NotAccepted => self.not_accepted += 1,
            MessageState::Waiting { .. } => self.waiting += 1,
            MessageState::Sent => self.sent += 1,
            MessageState::Failed(_) => self.failed += 1,
            MessageState::Ignored => self.ignored += 1,
            MessageState::Canceled => self.canceled += 1,
        }
    }

    /// All messages.
    pub const fn total(&self) -> u64 {
        self.not_accepted + self.waiting + self.sent + self.failed + self.ignored + self.canceled
    }

    /// Whether every message came to its end.
    pub const fn is_finished(&self) -> bool {
        self.not_accepted == 0 && self.waiting == 0
    }

    /// What the status says.
    pub const fn counts(&self, email_feedback: bool) -> Counts {
        let (taken_into_account, sent) = if email_feedback {
            (self.waiting, self.sent)
        } else {
            (0, self.waiting + self.sent)
        };
        Counts {
            total: self.total(),
            pending: self.not_accepted,
            taken_into_account,
            sent,
            failed: self.failed,
            ignored: self.ignored,
            canceled: self.canceled,
        }
    }

    /// The success figure.
    pub fn success(&self, email_feedback: bool) -> Success {
        Success::of(&self.counts(email_feedback), email_feedback)
    }
}

impl FromIterator<MessageState> for Tally {
    fn from_iter<I: IntoIterator<Item = MessageState>>(states: I) -> Self {
        let mut tally = Self::default();
        for state in states {
            tally.add(state);
        }
        tally
    }
}

/// The success figure of a Delivery.
///
/// With email feedback: Sent ÷ (total − Ignored − Canceled). Without: (relayed − Failed) ÷ relayed, where relayed are the
/// messages that reached a sender; a canceled one counts on neither side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Success {
    good: u64,
    of: u64,
    shown: bool,
}

impl Success {
    /// The figure for counts by log status.
    pub const fn of(counts: &Counts, email_feedback: bool) -> Self {
        if email_feedback {
            Self {
                good: counts.sent,
                of: counts.pending + counts.taken_into_account + counts.sent + counts.failed,
                // It starts at 0 and says nothing before the first success; at the end, 0 is the result.
                shown: counts.sent > 0 || (counts.pending == 0 && counts.taken_into_account == 0),
            }
        } else {
            Self {
                good: counts.sent,
                of: counts.sent + counts.failed,
                shown: true,
            }
        }
    }

    /// The figure in percent; none where there is no message to speak of.
    pub fn percent(&self) -> Option<f64> {
        (self.of > 0).then(|| self.good as f64 * 100.0 / self.of as f64)
    }

    /// The figure as the status shows it, such as `99.5%`: none where it is not defined, and with email feedback none
    /// before the first success either, unless every message came to its end without one.
    ///
    /// Rounded to one decimal, except that `100.0%` means all and `0.0%` means none.
    pub fn text(&self) -> Option<String> {
        (self.shown && self.of > 0).then(|| self.to_string())
    }

    /// Tenths of a percent; `of` must not be 0.
    fn permille(&self) -> u64 {
        let (good, of) = (u128::from(self.good), u128::from(self.of));
        let rounded = (good * 2_000 + of) / (of * 2);
        let rounded = u64::try_from(rounded).unwrap_or(1_000);
        match self.good {
            0 => 0,
            good if good == self.of => 1_000,
            _ => rounded.clamp(1, 999),
        }
    }
}

impl fmt::Display for Success {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.of == 0 {
            return formatter.write_str("not defined");
        }
        let permille = self.permille();
        write!(formatter, "{}.{}%", permille / 10, permille % 10)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::MessageState::*;
    use super::*;

    const FRESH: MessageState = Waiting { soft_bounced: false };
    const SOFT: MessageState = Waiting { soft_bounced: true };

    /// The success figure of ten messages, of which the first has gone through `steps` and the others are in `others`.
    fn figures(steps: &[MessageState], others: MessageState, email_feedback: bool) -> Vec<f64> {
        steps
            .iter()
            .map(|&state| {
                std::iter::once(state)
                    .chain([others; 9])
                    .collect::<Tally>()
                    .success(email_feedback)
                    .percent()
                    .unwrap()
            })
            .collect()
    }

    #[test]
    fn with_feedback_row_by_row() {
        // reached the MTA: not shown, starts at 0
        let start: Tally = [FRESH; 10].into_iter().collect();
        assert_eq!(
            (start.success(true).percent(), start.success(true).text()),
            (Some(0.0), None)
        );
        for (step, from, to, status, change) in [
            ("reached the MTA", NotAccepted, FRESH, LogStatus::TakenIntoAccount, 0.0),
            ("hard bounce", FRESH, Failed(Failure::Hard), LogStatus::Failed, 0.0),
            ("soft bounce", FRESH, SOFT, LogStatus::TakenIntoAccount, 0.0),
            ("accepted at the first try", FRESH, Sent, LogStatus::Sent, 10.0),
            ("accepted at a retry", SOFT, Sent, LogStatus::Sent, 10.0),
            ("retries ended", SOFT, Failed(Failure::Expired), LogStatus::Failed, 0.0),
            (
                "asynchronous bounce",
                Sent,
                Failed(Failure::Hard),
                LogStatus::Failed,
                -10.0,
            ),
        ] {
            assert_eq!(to.log_status(true), status, "{step}");
            for others in [FRESH, Sent, Failed(Failure::Hard)] {
                let figures = figures(&[from, to], others, true);
                assert!((figures[1] - figures[0] - change).abs() < 1e-9, "{step}: {figures:?}");
            }
        }
    }

    #[test]
    fn without_feedback_row_by_row() {
        // reached the MTA: starts at 100
        let start: Tally = std::iter::once(FRESH).chain([NotAccepted; 9]).collect();
        assert_eq!(start.success(false).text().as_deref(), Some("100.0%"));
        assert_eq!(FRESH.log_status(false), LogStatus::Sent);
        for (step, from, to, status, change) in [
            ("hard bounce", FRESH, Failed(Failure::Hard), LogStatus::Failed, -10.0),
            ("soft bounce", FRESH, SOFT, LogStatus::Sent, 0.0),
            ("retry succeeded", SOFT, Sent, LogStatus::Sent, 0.0),
            ("accepted at the first try", FRESH, Sent, LogStatus::Sent, 0.0),
            (
                "retries ended",
                SOFT,
                Failed(Failure::Expired),
                LogStatus::Failed,
                -10.0,
            ),
            (
                "asynchronous bounce",
                Sent,
                Failed(Failure::Hard),
                LogStatus::Failed,
                -10.0,
            ),
        ] {
            assert_eq!(to.log_status(false), status, "{step}");
            for others in [FRESH, Sent, Failed(Failure::Hard)] {
                let figures = figures(&[from, to], others, false);
                assert!((figures[1] - figures[0] - change).abs() < 1e-9, "{step}: {figures:?}");
            }
        }
    }

    #[test]
    fn a_hard_bounce_leaves_the_shown_figure_as_it_was() {
        // Nothing sent yet: still not shown. Something sent: the same text.
        let mut tally: Tally = [FRESH; 4].into_iter().collect();
        assert_eq!(tally.success(true).text(), None);
        tally.waiting -= 1;
        tally.failed += 1;
        assert_eq!(tally.success(true).text(), None);
        tally.waiting -= 1;
        tally.sent += 1;
        assert_eq!(tally.success(true).text().as_deref(), Some("25.0%"));
        tally.waiting -= 1;
        tally.failed += 1;
        assert_eq!(tally.success(true).text().as_deref(), Some("25.0%"));
    }

    #[test]
    fn a_run_without_a_success_ends_at_zero() {
        let tally: Tally = [Failed(Failure::Hard), Failed(Failure::Expired), Canceled]
            .into_iter()
            .collect();
        assert!(tally.is_finished());
        assert_eq!(tally.success(true).text().as_deref(), Some("0.0%"));
        assert_eq!(tally.success(false).text().as_deref(), Some("0.0%"));
    }

    #[test]
    fn a_test_message_ends_as_sent() {
        // In test mode an accepted RCPT TO is the success: the arithmetic is the same.
        let tally: Tally = [Sent, Failed(Failure::Hard)].into_iter().collect();
        assert_eq!(tally.success(true).text().as_deref(), Some("50.0%"));
    }

    #[test]
    fn not_defined_without_messages() {
        for states in [&[][..], &[Ignored, Canceled]] {
            let tally: Tally = states.iter().copied().collect();
            for email_feedback in [true, false] {
                assert_eq!(tally.success(email_feedback).percent(), None);
                assert_eq!(tally.success(email_feedback).text(), None);
            }
        }
        // Without feedback, what no sender has does not count yet.
        let tally: Tally = [NotAccepted].into_iter().collect();
        assert_eq!(
            (tally.success(false).percent(), tally.success(true).percent()),
            (None, Some(0.0))
        );
    }

    #[test]
    fn counts_in_both_modes() {
        let tally: Tally = [
            NotAccepted,
            FRESH,
            SOFT,
            Sent,
            Sent,
            Failed(Failure::Hard),
            Ignored,
            Canceled,
        ]
        .into_iter()
        .collect();
        let with = Counts {
            total: 8,
            pending: 1,
            taken_into_account: 2,
            sent: 2,
            failed: 1,
            ignored: 1,
            canceled: 1,
        };
        assert_eq!(tally.counts(true), with);
        let without = Counts {
            taken_into_account: 0,
            sent: 4,
            ..with
        };
        assert_eq!(tally.counts(false), without);
        assert_eq!(tally.success(true).text().as_deref(), Some("33.3%"));
        assert_eq!(tally.success(false).text().as_deref(), Some("80.0%"));
    }

    #[test]
    fn texts_round_but_never_to_all_or_none() {
        for (sent, failed, text) in [
            (995, 5, "99.5%"),
            (2, 1, "66.7%"),
            (1, 2, "33.3%"),
            (1, 0, "100.0%"),
            (1_000_000, 1, "99.9%"),
            (1, 1_000_000, "0.1%"),
            (u64::MAX / 2, u64::MAX / 2, "50.0%"),
        ] {
            let tally = Tally {
                sent,
                failed,
                ..Tally::default()
            };
            assert_eq!(tally.success(true).text().as_deref(), Some(text));
        }
    }

    fn state() -> impl Strategy<Value = MessageState> {
        prop::sample::select(vec![
            NotAccepted,
            FRESH,
            SOFT,
            Sent,
            Failed(Failure::Hard),
            Failed(Failure::Expired),
            Ignored,
            Canceled,
        ])
    }

    proptest! {
        #[test]
        fn the_tally_counts_what_the_log_says(states in prop::collection::vec(state(), 0..50), email_feedback: bool) {
            let counts = states.iter().copied().collect::<Tally>().counts(email_feedback);
            let of = |status| states.iter().filter(|state| state.log_status(email_feedback) == status).count() as u64;
            prop_assert_eq!(counts.total, states.len() as u64);
            prop_assert_eq!(counts.pending, of(LogStatus::Pending));
            prop_assert_eq!(counts.taken_into_account, of(LogStatus::TakenIntoAccount));
            prop_assert_eq!(counts.sent, of(LogStatus::Sent));
            prop_assert_eq!(counts.failed, of(LogStatus::Failed));
            prop_assert_eq!(counts.ignored, of(LogStatus::Ignored));
            prop_assert_eq!(counts.canceled, of(LogStatus::Canceled));
        }
    }
}
