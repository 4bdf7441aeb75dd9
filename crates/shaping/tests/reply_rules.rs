//! Which reply rule acts, when, and what becomes of the lane.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use proptest::prelude::*;
use relaypool_api::Rate;
use relaypool_bounce::Category;
use relaypool_shaping::policy::{EffectivePolicy, PolicySet};
use relaypool_shaping::reply_rules::{
    CAPS_HOLD, CompiledRule, Effects, LONGEST_SUSPENSION, LaneRules, Refusal, RuleCaps, Standing,
};

const STANDING: Standing = Standing {
    connections: 20,
    messages_per_connection: 100,
};

fn policy(rules: &str) -> EffectivePolicy {
    let spec = serde_yaml::from_str(&format!("{{match: {{domains: ['*']}}, replyRules: {rules}}}")).unwrap();
    PolicySet::new(vec![("p".to_owned(), spec)]).resolve("pool", &"example.com".parse().unwrap(), &[])
}

fn lane(rules: &str) -> LaneRules {
    LaneRules::new(&policy(rules).reply_rules)
}

fn refusal(code: u16, text: &str) -> Refusal {
    Refusal::new(Some(code), text, Category::RateLimited)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn rate(text: &str) -> Option<Rate> {
    Some(text.parse().unwrap())
}

#[test]
fn what_a_rule_names_has_to_be_so() {
    let fits = |rule: &str, refusal: &Refusal| {
        let rule = format!("{{{rule}, action: {{retryAfter: 1m}}}}");
        CompiledRule::new(serde_yaml::from_str(&rule).unwrap()).fits(refusal)
    };
    let said = refusal(
        421,
        "4.7.0 [TSS04] Messages from 192.0.2.1  temporarily deferred: TOO many",
    );
    for (rule, expected) in [
        ("text: tss04", true),
        ("text: 'TEMPORARILY   deferred'", true),
        ("text: '4.7.0 [tss04'", true),
        ("text: 'messages*deferred*many'", true),
        ("text: '*many*'", true),
        ("text: '*'", true),
        ("text: 'deferred*messages'", false),
        ("text: 'many*many'", false),
        ("text: 'defer '", false),
        ("text: 'deferred: '", true),
        ("code: 421", true),
        ("code: 451", false),
        ("category: rate_limited", true),
        ("category: transient", false),
        ("text: tss04, code: 421, category: rate_limited", true),
        ("text: tss04, code: 450, category: rate_limited", false),
        ("category: no_such_category", false),
    ] {
        assert_eq!(fits(rule, &said), expected, "{rule}");
    }
    let failure = Refusal::new(None, "connection refused by 192.0.2.1", Category::Transient);
    assert!(fits("text: Connection refused", &failure));
    assert!(!fits("text: Connection refused, code: 421", &failure));
    let french = refusal(421, "Trop de connexions, veuillez vérifier. É");
    assert!(fits("text: 'VÉRIFIER. é'", &french));
}

#[test]
fn the_first_rule_that_fits_takes_the_reply() {
    let rules = "[{text: special, trigger: {count: 2, within: 1m}, action: {retryAfter: 1h}}, {code: 421, action: {retryAfter: 1m}}]";
    let mut lane = lane(rules);
    let mut ask = |text| {
        lane.refused(seconds(1), &refusal(421, text), STANDING)
            .map(|effects| effects.retry_after.unwrap())
    };
    assert_eq!(ask("plain"), Some(seconds(60)));
    assert_eq!(
        ask("something special"),
        None,
        "counted by the first, so the second does not see it"
    );
    assert_eq!(ask("plain"), Some(seconds(60)));
    assert_eq!(ask("special again"), Some(seconds(3_600)));
    assert_eq!(ask("special again"), None, "it counts from zero after acting");
}

#[test]
fn an_action_says_what_to_do() {
    let rules = "[{code: 421, action: {suspendFor: 2h, reclassify: reputation_block, retryAfter: 4h}}, {code: 450, action: {suspendFor: 40d}}]";
    let mut lane = lane(rules);
    let effects = lane.refused(seconds(1), &refusal(421, ""), STANDING).unwrap();
    let expected = Effects {
        from: effects.from.clone(),
        reclassify: Some(Category::ReputationBlock),
        suspend_for: Some(seconds(2 * 3_600)),
        retry_after: Some(seconds(4 * 3_600)),
        caps_changed: false,
    };
    assert_eq!(effects, expected);
    assert_eq!(effects.from.to_string(), "p");
    let long = lane.refused(seconds(1), &refusal(450, ""), STANDING).unwrap();
    assert_eq!(long.suspend_for, Some(LONGEST_SUSPENSION));
    assert_eq!(lane.refused(seconds(1), &refusal(550, ""), STANDING), None);
}

#[test]
fn caps_hold_for_an_hour_after_the_rule_last_acted() {
    let mut lane = lane("[{text: slow, action: {throttle: 100/h}}, {text: fast, action: {throttle: 1/s}}]");
    let capped = |rate| RuleCaps {
        rate,
        ..RuleCaps::default()
    };
    let slow = lane.refused(seconds(0), &refusal(421, "slow"), STANDING).unwrap();
    assert!(slow.caps_changed);
    let fast = lane.refused(seconds(600), &refusal(421, "fast"), STANDING).unwrap();
    assert!(!fast.caps_changed, "the lower of two caps binds already");
    assert_eq!(lane.caps(seconds(600)), capped(rate("100/h")));
    assert_eq!(lane.next_change(seconds(600)), Some(CAPS_HOLD));
    assert_eq!(lane.caps(CAPS_HOLD), capped(rate("1/s")));

    lane.refused(CAPS_HOLD, &refusal(421, "fast"), STANDING).unwrap();
    assert_eq!(lane.caps(CAPS_HOLD + seconds(3_599)), capped(rate("1/s")));
    assert_eq!(lane.next_change(CAPS_HOLD), Some(CAPS_HOLD * 2));
    assert_eq!(lane.caps(CAPS_HOLD * 2), RuleCaps::default());
    assert_eq!(lane.next_change(CAPS_HOLD * 2), None);
}

#[test]
fn reductions_start_from_what_is_lower_and_leave_one() {
    let mut lane = lane("[{code: 421, action: {reduceConnections: 6, reduceMessagesPerConnection: 45}}]");
    let mut caps = |at: u64, connections: u32, messages_per_connection: u32| {
        let standing = Standing {
            connections,
            messages_per_connection,
        };
        lane.refused(seconds(at), &refusal(421, "too many"), standing).unwrap();
        let caps = lane.caps(seconds(at));
        (caps.connections.unwrap(), caps.messages_per_connection.unwrap())
    };
    assert_eq!(caps(0, 20, 100), (14, 55));
    assert_eq!(caps(1, 20, 100), (8, 10), "refused at the same time as the first");
    assert_eq!(caps(2, 5, 100), (1, 1));
    assert_eq!(caps(3, 0, 0), (1, 1));
    assert_eq!(caps(4_000, 20, 100), (14, 55), "what was forgotten is no start");
}

#[test]
fn caps_lower_what_a_policy_allows_and_raise_nothing() {
    let mut limits = policy("[{code: 421, action: {throttle: 1/s}}]").pacer_limits();
    limits.rate = rate("600/h");
    let caps = RuleCaps {
        rate: rate("1/s"),
        connections: Some(3),
        messages_per_connection: Some(1_000),
    };
    caps.lower(&mut limits);
    assert_eq!(
        (limits.rate, limits.connections, limits.messages_per_connection),
        (rate("600/h"), 3, 100)
    );
}

#[test]
fn rules_that_stay_keep_their_count_and_caps() {
    let counted = "{text: a, trigger: {count: 2, within: 1h}, action: {retryAfter: 1m}}";
    let capped = "{text: b, action: {reduceConnections: 1}}";
    let mut lane = lane(&format!("[{counted}, {capped}]"));
    assert_eq!(lane.refused(seconds(1), &refusal(421, "a"), STANDING), None);
    lane.refused(seconds(1), &refusal(421, "b"), STANDING).unwrap();

    lane.rules_changed(
        &policy(&format!(
            "[{{text: new, action: {{throttle: 1/s}}}}, {capped}, {counted}]"
        ))
        .reply_rules,
    );
    assert_eq!(lane.caps(seconds(2)).connections, Some(19));
    assert!(lane.refused(seconds(2), &refusal(421, "a"), STANDING).is_some());

    lane.rules_changed(&policy(&format!("[{counted}]")).reply_rules);
    assert_eq!(lane.caps(seconds(2)), RuleCaps::default());
}

#[test]
fn a_clock_that_is_set_back_makes_nothing_last_for_ever() {
    let mut lane = lane("[{code: 421, trigger: {count: 2, within: 1m}, action: {throttle: 1/s}}]");
    let future = seconds(1_000_000);
    lane.refused(future, &refusal(421, ""), STANDING);
    lane.refused(future, &refusal(421, ""), STANDING).unwrap();
    assert_eq!(lane.next_change(seconds(0)), Some(CAPS_HOLD));
    lane.refused(future, &refusal(421, ""), STANDING);
    assert_eq!(
        lane.refused(seconds(0), &refusal(421, ""), STANDING),
        None,
        "a reply of the future is none of the last minute"
    );
}

proptest! {
    /// Against the plain definition: it acts when `count` replies since it last acted lie within the period.
    #[test]
    fn triggers_count_over_a_sliding_period(
        count in 1_usize..6,
        within in 1_u64..30,
        steps in proptest::collection::vec(0_u64..12, 1..200),
    ) {
        let rules = format!("[{{code: 421, trigger: {{count: {count}, within: {within}s}}, action: {{retryAfter: 1m}}}}]");
        let mut lane = lane(&rules);
        let mut now = 0;
        let mut since_acting: Vec<u64> = Vec::new();
        for step in steps {
            now += step;
            since_acting.push(now);
            let expected = since_acting.iter().filter(|at| now - **at < within).count() >= count;
            if expected {
                since_acting.clear();
            }
            let acted = lane.refused(seconds(now), &refusal(421, ""), STANDING).is_some();
            prop_assert_eq!(acted, expected, "at {}", now);
        }
    }

    /// A pattern made by cutting pieces out of a text fits the text.
    #[test]
    fn pieces_of_a_text_fit_it(text in "[a-cA-C ]{0,30}", cuts in proptest::collection::vec((0_usize..30, 0_usize..30), 0..4)) {
        let folded = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut pattern = String::from("*");
        let mut from = 0;
        for (skip, length) in cuts {
            let start = (from + skip).min(folded.len());
            let end = (start + length).min(folded.len());
            pattern.push_str(folded[start..end].trim());
            pattern.push('*');
            from = end;
        }
        let rule = serde_json::from_value(serde_json::json!({ "text": pattern, "action": { "retryAfter": "1m" } })).unwrap();
        prop_assert!(CompiledRule::new(rule).fits(&refusal(421, &text)));
    }

    /// Whatever is said however often: caps leave room for one, and go.
    #[test]
    fn caps_never_stop_a_lane(refusals in proptest::collection::vec((0_u64..500, 0_u32..50, 0_u32..200), 1..100)) {
        let mut lane = lane("[{code: 421, action: {reduceConnections: 3, reduceMessagesPerConnection: 7, throttle: 5/s}}]");
        let mut now = 0;
        for (step, connections, messages_per_connection) in refusals {
            now += step;
            lane.refused(seconds(now), &refusal(421, ""), Standing { connections, messages_per_connection });
            let caps = lane.caps(seconds(now));
            prop_assert!(caps.connections.unwrap() >= 1 && caps.messages_per_connection.unwrap() >= 1);
            prop_assert_eq!(lane.next_change(seconds(now)), Some(seconds(now) + CAPS_HOLD));
        }
        prop_assert_eq!(lane.caps(seconds(now) + CAPS_HOLD), RuleCaps::default());
    }
}
