//! What the controller says of an address's warm-up: the sender that owns the address decides, and reports it in
//! `status.warmUp`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use relaypool_api::SendingIp;
use relaypool_api::conditions::{ConditionType, find_condition, is_true};
use relaypool_api::sending_ip::WarmUpStatus;

use crate::events::Notice;

/// Between the message of Ready and the stage.
const STAGE: &str = "; warm-up at stage ";

/// The message of Ready, with the stage of a warm-up that is not over.
pub(crate) fn with_stage(message: String, ip: &SendingIp) -> String {
    match report(ip).filter(|report| report.stage.is_some()) {
        Some(report) => format!("{message}{STAGE}{}", report.progress),
        None => message,
    }
}

/// The message of WarmUpHeld, while the stage is held.
pub(crate) fn held(ip: &SendingIp) -> Option<String> {
    let refusal = report(ip)?.held.clone()?;
    Some(format!(
        "the warm-up stays at its stage until a day without such a refusal is over: {refusal}"
    ))
}

/// What happened to the warm-up since the conditions `before` were written.
pub(crate) fn notices(ip: &SendingIp, before: &[Condition], after: &[Condition]) -> Vec<Notice> {
    stage_notice(ip, before)
        .into_iter()
        .chain(hold_notice(before, after))
        .collect()
}

fn stage_notice(ip: &SendingIp, before: &[Condition]) -> Option<Notice> {
    let report = report(ip)?;
    // The stage that was last told of is in the message of Ready: nothing else remembers it over a restart.
    let (_, told) = find_condition(before, ConditionType::Ready)?
        .message
        .rsplit_once(STAGE)?;
    if told == report.progress {
        return None;
    }
    let last_day = report
        .last_day
        .as_deref()
        .map_or(String::new(), |last| format!(" ({last})"));
    let note = match report.stage {
        Some(_) => format!("the warm-up goes on with stage {}{last_day}", report.progress),
        None => format!("the warm-up is over, there is no daily limit any more{last_day}"),
    };
    Some(Notice::normal("WarmUpStage", "WarmUp", note))
}

fn hold_notice(before: &[Condition], after: &[Condition]) -> Option<Notice> {
    let held = |conditions| is_true(conditions, ConditionType::WarmUpHeld);
    match (held(before), held(after)) {
        (false, true) => {
            let message = find_condition(after, ConditionType::WarmUpHeld)?.message.clone();
            Some(Notice::warning("WarmUpHeld", "WarmUp", message))
        }
        (true, false) => Some(Notice::normal(
            "WarmUpReleased",
            "WarmUp",
            "the warm-up is not held at its stage any more",
        )),
        _ => None,
    }
}

fn report(ip: &SendingIp) -> Option<&WarmUpStatus> {
    ip.status.as_ref()?.warm_up.as_ref()
}

#[cfg(test)]
mod tests {
    use relaypool_api::conditions::{Readiness, SendingIpReason, set_condition};
    use serde_json::{Value, json};

    use crate::context::now;

    use super::*;

    fn ip(warm_up: Value) -> SendingIp {
        let ip = json!({
            "apiVersion": "relaypool.dev/v1alpha1",
            "kind": "SendingIp",
            "metadata": { "name": "first" },
            "spec": { "pool": "p", "address": "192.0.2.1", "ehloName": "mx.example.com" },
            "status": { "warmUp": warm_up },
        });
        serde_json::from_value(ip).unwrap()
    }

    fn conditions(ip: &SendingIp) -> Vec<Condition> {
        let mut conditions = Vec::new();
        let message = with_stage("sender p-0 owns the address".to_owned(), ip);
        Readiness::Ready.write(&mut conditions, SendingIpReason::Assigned, message, None, now());
        if let Some(held) = held(ip) {
            let reason = SendingIpReason::ProviderRefused;
            set_condition(
                &mut conditions,
                ConditionType::WarmUpHeld,
                true.into(),
                reason,
                held,
                None,
                now(),
            );
        }
        conditions
    }

    /// The reasons of the Events between two reports of a sender.
    fn events(before: Value, after: Value) -> Vec<String> {
        let (before, after) = (ip(before), ip(after));
        let notices = notices(&after, &conditions(&before), &conditions(&after));
        notices.iter().map(|notice| format!("{notice:?}")).collect()
    }

    #[test]
    fn each_transition_is_told_once() {
        let at = |stage: u32| json!({ "progress": format!("{stage}/29"), "stage": stage, "lastDay": "190 of 200" });
        let warm = json!({ "progress": "warm", "warmSince": "2026-11-20T00:00:00Z" });
        let held = json!({ "progress": "1/29", "stage": 1, "held": "one.example refused mail: 421" });

        let stage = events(at(1), at(2));
        assert!(
            stage.len() == 1 && stage[0].contains("stage 2/29 (190 of 200)"),
            "{stage:?}"
        );
        let over = events(at(29), warm.clone());
        assert!(over.len() == 1 && over[0].contains("is over"), "{over:?}");
        let hold = events(at(1), held.clone());
        assert!(
            hold.len() == 1 && hold[0].contains("one.example refused mail: 421"),
            "{hold:?}"
        );
        assert!(hold[0].contains("warning: true"));
        let release = events(held.clone(), at(1));
        assert!(
            release.len() == 1 && release[0].contains("WarmUpReleased"),
            "{release:?}"
        );
        for same in [at(3), warm, held] {
            assert_eq!(events(same.clone(), same), Vec::<String>::new());
        }
        assert_eq!(
            events(Value::Null, at(1)),
            Vec::<String>::new(),
            "the first report is no transition"
        );
    }
}
