//! The reply rules of policies: what each refusal on a lane makes of them, and what they make of the lane.

use relaypool_bounce::{Action, Verdict};
use relaypool_shaping::pacer::PacerLimits;
use relaypool_shaping::reply_rules::{Effects, Refusal, Standing};

use super::attempt::Attempt;
use super::lane::{Lane, LaneId, pacer_time, wake_time};
use super::timers::Timer;
use super::{Dispatcher, Millis};

impl Lane {
    fn standing(&self) -> Standing {
        Standing {
            connections: u32::try_from(self.open).unwrap_or(u32::MAX),
            messages_per_connection: self.messages_per_connection(),
        }
    }
}

impl Dispatcher {
    /// Shows a refusal to the rules of its lane. Where one acts, the verdict has the meaning that the rule gives it.
    pub(crate) fn show_to_rules(
        &mut self,
        lane: LaneId,
        attempt: &Attempt,
        verdict: &mut Verdict,
        now: Millis,
    ) -> Option<Effects> {
        let refusal = match attempt {
            Attempt::Refused { reply, .. } => {
                let enhanced = reply.enhanced.map(|code| format!("{code} ")).unwrap_or_default();
                let text = format!("{enhanced}{}", reply.text);
                Refusal::new(Some(reply.code.get()), &text, verdict.category)
            }
            Attempt::Failed { detail, .. } => Refusal::new(None, detail, verdict.category),
            Attempt::Accepted | Attempt::Ignored { .. } => return None,
        };
        let lane = self.lane_mut(lane);
        let standing = lane.standing();
        let effects = lane.rules.refused(pacer_time(now), &refusal, standing)?;
        if let Some(category) = effects.reclassify {
            *verdict = verdict.clone().reclassified(category);
        }
        if effects.retry_after.is_some() && verdict.action == Action::Fail {
            verdict.action = Action::Retry;
        }
        Some(effects)
    }

    /// Does to the lane what a rule wants. The pacer has had its feedback before.
    pub(crate) fn obey_rule(&mut self, id: LaneId, effects: &Effects, now: Millis) {
        let lane = self.lane_mut(id);
        let already = lane.pacer.suspended_until(pacer_time(now));
        if let Some(time) = effects.suspend_for {
            lane.pacer.suspend(pacer_time(now), pacer_time(now) + time);
        }
        let is_news = effects.caps_changed || lane.pacer.suspended_until(pacer_time(now)) != already;
        if is_news {
            tracing::info!(ip = %lane.ip, site = %lane.site, rule_of = %effects.from, "a reply rule changed the pace");
        }
        if effects.caps_changed {
            self.renew_limits(id, now);
        }
    }

    /// Caps of rules have come to their end, or will later.
    pub(crate) fn rules_due(&mut self, id: LaneId, now: Millis) {
        self.lane_mut(id).rules_due = None;
        self.renew_limits(id, now);
        self.work(id, now);
    }

    /// Tells a lane's pacer the limits of now, and sees to it that caps end.
    pub(crate) fn renew_limits(&mut self, id: LaneId, now: Millis) {
        let limits = self.limits_of(&self.lanes[id.0 as usize], now);
        let lane = self.lane_mut(id);
        lane.pacer.limits_changed(pacer_time(now), limits);
        if lane.rules_due.is_none()
            && let Some(change) = lane.rules.next_change(pacer_time(now))
        {
            let at = wake_time(change);
            lane.rules_due = Some(at);
            self.timers.set(at, Timer::Rules(id));
        }
    }

    /// The limits of now: those of the policy, the mode of the pool, and the caps of reply rules.
    pub(crate) fn limits_of(&self, lane: &Lane, now: Millis) -> PacerLimits {
        let mut limits = self.pacer_limits(&lane.policy);
        lane.rules.caps(pacer_time(now)).lower(&mut limits);
        limits
    }
}
