//! Rules of a Delivery.

use super::message::count;
use super::{Findings, Problem, message, text};
use crate::cel::CelRule;
use crate::delivery::{DeliverySpec, Recipients, Schedule, Waves};

pub(crate) const RECIPIENTS_OR_RELAY: CelRule = CelRule::new(
    "has(self.recipients) != has(self.relay)",
    "set exactly one of recipients (a mail merge) and relay (messages relayed in)",
);

pub(crate) const MESSAGE_WITH_RECIPIENTS: CelRule = CelRule::new(
    "has(self.message) == has(self.recipients)",
    "a mail merge needs both message and recipients; a relayed Delivery has neither",
);

pub(crate) const POOL_IS_FIXED: CelRule = CelRule::new(
    "self.pool == oldSelf.pool",
    "pool cannot be changed: create another Delivery",
);

pub(crate) const CANCEL_IS_FINAL: CelRule = CelRule::new(
    "!oldSelf.cancel || self.cancel",
    "a canceled Delivery stays canceled: create another Delivery",
);

pub(crate) const ONE_SOURCE: CelRule = CelRule::new(
    "[has(self.inline), has(self.configMapKeyRef), has(self.secretKeyRef), has(self.objectStore)].filter(set, set).size() == 1",
    "set exactly one of recipients.inline, recipients.configMapKeyRef, recipients.secretKeyRef and recipients.objectStore",
);

pub(crate) const ONE_KIND_OF_WAVES: CelRule = CelRule::new(
    "has(self.shares) != has(self.calendar)",
    "set exactly one of schedule.waves.shares and schedule.waves.calendar",
);

pub(crate) const NO_MORE_THAN_ALL: CelRule = CelRule::new(
    "self.map(wave, wave.percent).sum() <= 100",
    "the percents of schedule.waves.calendar must not add up to more than 100",
);

/// What is wrong with the spec. Empty: nothing.
pub fn validate_delivery(spec: &DeliverySpec) -> Vec<Problem> {
    let mut findings = Findings::default();
    findings.check(
        "spec",
        RECIPIENTS_OR_RELAY,
        spec.recipients.is_some() != spec.relay.is_some(),
    );
    findings.check(
        "spec",
        MESSAGE_WITH_RECIPIENTS,
        spec.message.is_some() == spec.recipients.is_some(),
    );
    findings.check_longer_than_zero("spec.validity", spec.validity);
    if let Some(template) = &spec.message {
        message::check(&mut findings, "spec.message", template);
    }
    if let Some(recipients) = &spec.recipients {
        findings.check("spec.recipients", ONE_SOURCE, sources(recipients) == 1);
    }
    if let Some(schedule) = &spec.schedule {
        check_schedule(&mut findings, schedule);
    }
    findings.0
}

/// What is wrong with the step from `old` to `new`.
pub fn validate_delivery_update(old: &DeliverySpec, new: &DeliverySpec) -> Vec<Problem> {
    let mut findings = Findings::default();
    findings.check("spec", POOL_IS_FIXED, new.pool == old.pool);
    findings.check("spec", CANCEL_IS_FINAL, !old.cancel || new.cancel);
    findings.0
}

fn sources(recipients: &Recipients) -> usize {
    count([
        recipients.inline.is_some(),
        recipients.config_map_key_ref.is_some(),
        recipients.secret_key_ref.is_some(),
        recipients.object_store.is_some(),
    ])
}

fn check_schedule(findings: &mut Findings, schedule: &Schedule) {
    if let Some(waves) = &schedule.waves {
        check_waves(findings, waves);
    }
    if let Some(quiet) = &schedule.quiet_hours {
        for (field, time) in [("from", &quiet.from), ("to", &quiet.to)] {
            findings.check(
                format_args!("spec.schedule.quietHours.{field}"),
                text::TIME_OF_DAY,
                text::is_time_of_day(time),
            );
        }
    }
}

fn check_waves(findings: &mut Findings, waves: &Waves) {
    findings.check(
        "spec.schedule.waves",
        ONE_KIND_OF_WAVES,
        waves.shares.is_some() != waves.calendar.is_some(),
    );
    if let Some(shares) = &waves.shares {
        findings.check_longer_than_zero("spec.schedule.waves.shares.every", Some(shares.every));
    }
    if let Some(calendar) = &waves.calendar {
        let sum: u64 = calendar.iter().map(|wave| u64::from(wave.percent)).sum();
        findings.check("spec.schedule.waves.calendar", NO_MORE_THAN_ALL, sum <= 100);
    }
}
