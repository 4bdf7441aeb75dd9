use relaypool_api::{Duration, Mask};
use serde::{Deserialize, Serialize};

use super::{Answer, Percent};
use crate::stable_hash::stable_hash;

/// Mailboxes that refuse mail: dead, full, disabled.
///
/// Which ones is a fact of the world, not chance: the choice depends on the address alone, so a retry gets the answer
/// the first attempt got.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MailboxRule {
    /// Local parts the rule is about.
    #[serde(default = "any")]
    pub local_part: Mask,
    /// The share, among those, that gives this answer.
    #[serde(default = "all")]
    pub percent: Percent,
    /// The rule ends at this time since the start: the mailbox takes mail again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Duration>,
    /// The reply to RCPT TO.
    pub reply: Answer,
}

fn any() -> Mask {
    "*".parse().expect("a star is a mask")
}

const fn all() -> Percent {
    Percent::ALL
}

impl MailboxRule {
    /// `percent` of all mailboxes answer `reply`.
    pub fn share(percent: Percent, reply: Answer) -> Self {
        Self {
            local_part: any(),
            percent,
            until: None,
            reply,
        }
    }

    /// Every mailbox whose local part fits `local_part` answers `reply`.
    pub fn matching(local_part: Mask, reply: Answer) -> Self {
        Self {
            local_part,
            percent: all(),
            until: None,
            reply,
        }
    }

    /// True when the rule, standing at `position` in its provider's list, answers for `address` at `since_start`.
    pub(super) fn applies(&self, position: usize, address: &str, since_start: std::time::Duration) -> bool {
        let local_part = address.rsplit_once('@').map_or(address, |(local_part, _)| local_part);
        self.until.is_none_or(|until| since_start < until.get())
            && self.local_part.matches(local_part)
            && place_of(position, address) < self.percent.fraction()
    }
}

/// Where `address` stands between 0 and 1, evenly spread, and differently for each position of a rule.
fn place_of(position: usize, address: &str) -> f64 {
    let hash = stable_hash(&[&position.to_le_bytes(), address.to_ascii_lowercase().as_bytes()]);
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration as Time;

    fn rule(percent: f64) -> MailboxRule {
        MailboxRule::share(percent.try_into().unwrap(), "550 5.1.1 unknown user".parse().unwrap())
    }

    #[test]
    fn the_share_is_met_and_the_choice_is_stable() {
        let chosen = |position: usize| {
            (0..20_000)
                .filter(|number| rule(3.0).applies(position, &format!("user{number}@example.com"), Time::ZERO))
                .collect::<Vec<_>>()
        };
        let first = chosen(0);
        assert!((500..700).contains(&first.len()), "{} of 20000", first.len());
        assert_eq!(first, chosen(0));
        assert_ne!(first, chosen(1), "another rule chooses others");
    }

    #[test]
    fn letter_case_is_no_difference() {
        for number in 0..1_000 {
            let address = format!("user{number}@example.com");
            assert_eq!(
                rule(50.0).applies(0, &address, Time::ZERO),
                rule(50.0).applies(0, &address.to_uppercase(), Time::ZERO)
            );
        }
    }

    #[test]
    fn a_mask_and_an_end_narrow_it() {
        let mut rule = MailboxRule::matching("full-*".parse().unwrap(), "452 4.2.2 mailbox full".parse().unwrap());
        rule.until = Some(Duration::from_secs(60));
        assert!(rule.applies(0, "full-ada@example.com", Time::from_secs(59)));
        assert!(!rule.applies(0, "full-ada@example.com", Time::from_secs(60)));
        assert!(!rule.applies(0, "ada@example.com", Time::ZERO));
    }
}
