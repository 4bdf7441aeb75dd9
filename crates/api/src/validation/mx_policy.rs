//! Rules of an MxPolicy.

use super::{Findings, Problem};
use crate::cel::CelRule;
use crate::mx_policy::{AdaptiveBounds, MxPolicySpec, ReplyAction, ReplyRule, Retry, Timeouts};

pub(crate) const SOME_MASK: CelRule = CelRule::new(
    "(has(self.domains) && self.domains.size() > 0) || (has(self.mxHosts) && self.mxHosts.size() > 0)",
    "match needs at least one entry in domains or mxHosts; write domains: [\"*\"] to match everything",
);

pub(crate) const CONNECTIONS_IN_ORDER: CelRule = CelRule::new(
    "!has(self.min) || !has(self.max) || !has(self.min.connections) || !has(self.max.connections) || self.min.connections <= self.max.connections",
    "adaptive.min.connections must not exceed adaptive.max.connections",
);

pub(crate) const SOMETHING_TO_MATCH: CelRule = CelRule::new(
    "has(self.text) || has(self.category) || has(self.code)",
    "a reply rule needs at least one of text, category and code",
);

pub(crate) const SOMETHING_TO_DO: CelRule = CelRule::new(
    "has(self.suspendFor) || has(self.throttle) || has(self.reduceConnections) || has(self.reduceMessagesPerConnection) || has(self.reclassify) || has(self.retryAfter)",
    "action must set at least one of suspendFor, throttle, reduceConnections, reduceMessagesPerConnection, reclassify and retryAfter",
);

pub(crate) const BOUNCE_CATEGORY: CelRule = CelRule::new(
    "self in ['invalid_recipient', 'inactive_mailbox', 'invalid_domain', 'mailbox_full', 'message_too_large', 'timeout', 'transient', 'greylisted', 'rate_limited', 'recipient_rate_limited', 'reputation_deferral', 'reputation_block', 'mail_block', 'spam_content', 'malware_or_attachment', 'relay_denied', 'auth_failure', 'rdns_required', 'tls_required', 'invalid_sender', 'policy_rejected', 'protocol_error', 'routing_error', 'undetermined']",
    "must be a bounce category: invalid_recipient, inactive_mailbox, invalid_domain, mailbox_full, message_too_large, timeout, transient, greylisted, rate_limited, recipient_rate_limited, reputation_deferral, reputation_block, mail_block, spam_content, malware_or_attachment, relay_denied, auth_failure, rdns_required, tls_required, invalid_sender, policy_rejected, protocol_error, routing_error, undetermined",
);

/// The names of all bounce categories. The crate that classifies replies checks that they are its own.
pub const BOUNCE_CATEGORIES: [&str; 24] = [
    "invalid_recipient",
    "inactive_mailbox",
    "invalid_domain",
    "mailbox_full",
    "message_too_large",
    "timeout",
    "transient",
    "greylisted",
    "rate_limited",
    "recipient_rate_limited",
    "reputation_deferral",
    "reputation_block",
    "mail_block",
    "spam_content",
    "malware_or_attachment",
    "relay_denied",
    "auth_failure",
    "rdns_required",
    "tls_required",
    "invalid_sender",
    "policy_rejected",
    "protocol_error",
    "routing_error",
    "undetermined",
];

/// What is wrong with the spec. Empty: nothing.
pub fn validate_mx_policy(spec: &MxPolicySpec) -> Vec<Problem> {
    let mut findings = Findings::default();
    let some_mask = !spec.matches.domains.is_empty() || !spec.matches.mx_hosts.is_empty();
    findings.check("spec.match", SOME_MASK, some_mask);
    if let Some(timeouts) = &spec.timeouts {
        check_timeouts(&mut findings, timeouts);
    }
    if let Some(adaptive) = &spec.adaptive {
        findings.check("spec.adaptive", CONNECTIONS_IN_ORDER, connections_in_order(adaptive));
    }
    for (index, rule) in spec.reply_rules.iter().enumerate() {
        check_reply_rule(&mut findings, &format!("spec.replyRules[{index}]"), rule);
    }
    if let Some(retry) = &spec.retry {
        check_retry(&mut findings, retry);
    }
    findings.0
}

/// What is wrong with the step from `old` to `new`: nothing, for every field of a policy may change.
pub fn validate_mx_policy_update(_old: &MxPolicySpec, _new: &MxPolicySpec) -> Vec<Problem> {
    Vec::new()
}

fn check_timeouts(findings: &mut Findings, timeouts: &Timeouts) {
    for (field, timeout) in [
        ("connect", timeouts.connect),
        ("command", timeouts.command),
        ("data", timeouts.data),
        ("endOfData", timeouts.end_of_data),
        ("transaction", timeouts.transaction),
        ("idle", timeouts.idle),
    ] {
        findings.check_longer_than_zero(format_args!("spec.timeouts.{field}"), timeout);
    }
}

fn connections_in_order(adaptive: &AdaptiveBounds) -> bool {
    let connections = |pace: &Option<crate::mx_policy::Pace>| pace.as_ref().and_then(|pace| pace.connections);
    match (connections(&adaptive.min), connections(&adaptive.max)) {
        (Some(min), Some(max)) => min <= max,
        _ => true,
    }
}

fn check_reply_rule(findings: &mut Findings, path: &str, rule: &ReplyRule) {
    let something_to_match = rule.text.is_some() || rule.category.is_some() || rule.code.is_some();
    findings.check(path, SOMETHING_TO_MATCH, something_to_match);
    if let Some(trigger) = &rule.trigger {
        findings.check_longer_than_zero(format_args!("{path}.trigger.within"), Some(trigger.within));
    }
    check_category(findings, format!("{path}.category"), rule.category.as_deref());
    check_action(findings, &format!("{path}.action"), &rule.action);
}

fn check_action(findings: &mut Findings, path: &str, action: &ReplyAction) {
    let something_to_do = action.suspend_for.is_some()
        || action.throttle.is_some()
        || action.reduce_connections.is_some()
        || action.reduce_messages_per_connection.is_some()
        || action.reclassify.is_some()
        || action.retry_after.is_some();
    findings.check(path, SOMETHING_TO_DO, something_to_do);
    findings.check_longer_than_zero(format_args!("{path}.suspendFor"), action.suspend_for);
    findings.check_longer_than_zero(format_args!("{path}.retryAfter"), action.retry_after);
    check_category(findings, format!("{path}.reclassify"), action.reclassify.as_deref());
}

fn check_category(findings: &mut Findings, field: String, category: Option<&str>) {
    let is_known = category.is_none_or(|name| BOUNCE_CATEGORIES.contains(&name));
    findings.check(field, BOUNCE_CATEGORY, is_known);
}

fn check_retry(findings: &mut Findings, retry: &Retry) {
    findings.check_longer_than_zero("spec.retry.firstInterval", retry.first_interval);
    findings.check_longer_than_zero("spec.retry.maxInterval", retry.max_interval);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_and_the_list_name_the_same_categories() {
        let quoted = BOUNCE_CATEGORIES.map(|name| format!("'{name}'")).join(", ");
        assert_eq!(BOUNCE_CATEGORY.rule, format!("self in [{quoted}]"));
        let listed = BOUNCE_CATEGORIES.join(", ");
        assert_eq!(BOUNCE_CATEGORY.message, format!("must be a bounce category: {listed}"));
    }
}
