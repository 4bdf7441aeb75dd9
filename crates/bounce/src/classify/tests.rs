use std::time::Duration;

use proptest::prelude::*;
use relaypool_api::reply::ReplyCode;

use super::*;
use crate::category::Action;

/// A reply as it is written on the wire.
fn reply(text: &str) -> Reply {
    let mut words = text.splitn(3, ' ');
    let code: u16 = words.next().unwrap().parse().unwrap();
    let second = words.next().unwrap_or_default();
    let third = words.next().unwrap_or_default();
    let (enhanced, text) = match second.parse::<EnhancedCode>() {
        Ok(enhanced) => (Some(enhanced), third.to_owned()),
        Err(_) => (None, format!("{second} {third}").trim().to_owned()),
    };
    Reply {
        code: ReplyCode::try_from(code).unwrap(),
        enhanced,
        text,
    }
}

fn at(phase: Phase, text: &str) -> Verdict {
    classify(&Reading::new(phase, &reply(text)))
}

#[test]
fn codes_mean_what_their_phase_makes_of_them() {
    use Category as C;
    use Phase as P;
    for (phase, text, category, basis) in [
        (P::Greeting, "421", C::RateLimited, Basis::Code),
        (P::EndOfData, "421", C::Transient, Basis::Code),
        (P::Greeting, "550", C::ReputationBlock, Basis::Code),
        (P::MailFrom, "550", C::PolicyRejected, Basis::Code),
        (P::RcptTo, "550", C::InvalidRecipient, Basis::Code),
        (P::EndOfData, "550", C::SpamContent, Basis::Code),
        (P::RcptTo, "450", C::Transient, Basis::Code),
        (P::RcptTo, "451", C::Transient, Basis::Code),
        (P::RcptTo, "452", C::Transient, Basis::Code),
        (P::RcptTo, "552", C::MailboxFull, Basis::Code),
        (P::MailFrom, "552", C::MessageTooLarge, Basis::Code),
        (P::RcptTo, "553", C::InvalidRecipient, Basis::Code),
        (P::MailFrom, "553", C::InvalidSender, Basis::Code),
        (P::Greeting, "554", C::ReputationBlock, Basis::Code),
        (P::EndOfData, "554", C::SpamContent, Basis::Code),
        (P::RcptTo, "556", C::InvalidDomain, Basis::Code),
        (P::Ehlo, "502", C::ProtocolError, Basis::Code),
        (P::RcptTo, "499", C::Undetermined, Basis::Code),
        (P::RcptTo, "450 4.7.1 no", C::Greylisted, Basis::WideEnhancedCode),
        (P::Greeting, "421 4.7.0 no", C::RateLimited, Basis::WideEnhancedCode),
        (P::Greeting, "554 5.7.1 no", C::ReputationBlock, Basis::WideEnhancedCode),
        (P::MailFrom, "554 5.7.1 no", C::MailBlock, Basis::WideEnhancedCode),
        (P::RcptTo, "554 5.7.1 no", C::PolicyRejected, Basis::WideEnhancedCode),
        (P::EndOfData, "554 5.7.1 no", C::SpamContent, Basis::WideEnhancedCode),
        (P::MailFrom, "550 5.1.0 no", C::InvalidSender, Basis::WideEnhancedCode),
        (P::RcptTo, "550 5.1.0 no", C::InvalidRecipient, Basis::WideEnhancedCode),
    ] {
        let verdict = at(phase, text);
        assert_eq!(
            (verdict.category, verdict.basis),
            (category, basis),
            "{text} at {phase:?}"
        );
    }
}

#[test]
fn registered_enhanced_codes_have_their_meaning() {
    use Category as C;
    for (code, category) in [
        ("5.1.1", C::InvalidRecipient),
        ("5.1.2", C::InvalidDomain),
        ("5.1.3", C::InvalidRecipient),
        ("5.1.4", C::InvalidRecipient),
        ("5.1.6", C::InvalidRecipient),
        ("5.1.7", C::InvalidSender),
        ("5.1.8", C::InvalidSender),
        ("5.1.10", C::InvalidDomain),
        ("4.2.0", C::Transient),
        ("5.2.1", C::InactiveMailbox),
        ("4.2.1", C::RecipientRateLimited),
        ("4.2.2", C::MailboxFull),
        ("5.2.2", C::MailboxFull),
        ("5.2.3", C::MessageTooLarge),
        ("5.2.4", C::RoutingError),
        ("4.3.0", C::Transient),
        ("4.3.1", C::Transient),
        ("4.3.2", C::Transient),
        ("5.3.3", C::ProtocolError),
        ("5.3.4", C::MessageTooLarge),
        ("5.3.5", C::RoutingError),
        ("4.4.1", C::Timeout),
        ("4.4.2", C::Timeout),
        ("4.4.3", C::Transient),
        ("5.4.4", C::InvalidDomain),
        ("4.4.5", C::Transient),
        ("5.4.6", C::RoutingError),
        ("4.4.7", C::Timeout),
        ("5.5.1", C::ProtocolError),
        ("4.5.3", C::Transient),
        ("5.6.1", C::PolicyRejected),
        ("5.6.7", C::ProtocolError),
        ("5.7.2", C::PolicyRejected),
        ("5.7.7", C::AuthFailure),
        ("5.7.10", C::TlsRequired),
        ("5.7.13", C::InactiveMailbox),
        ("5.7.17", C::InvalidRecipient),
        ("5.7.20", C::AuthFailure),
        ("5.7.23", C::AuthFailure),
        ("4.7.25", C::RdnsRequired),
        ("5.7.26", C::AuthFailure),
        ("5.7.27", C::InvalidSender),
        ("4.7.28", C::RateLimited),
        ("5.7.29", C::AuthFailure),
        ("5.7.30", C::TlsRequired),
    ] {
        let class = &code[..1];
        assert_eq!(
            at(Phase::RcptTo, &format!("{class}50 {code} -")).category,
            category,
            "{code}"
        );
    }
}

#[test]
fn words_speak_where_codes_do_not() {
    use Category as C;
    for (text, category, basis) in [
        ("550 5.7.1 Recipient not found", C::InvalidRecipient, Basis::Phrase),
        ("450 4.2.0 Greylisted, try again", C::Greylisted, Basis::Phrase),
        ("421 4.3.2 Too many connections", C::RateLimited, Basis::Phrase),
        ("552 5.1.1 user is over quota", C::MailboxFull, Basis::Phrase),
        ("451 4.7.1 SPF check: temperror", C::Transient, Basis::Phrase),
        ("550 5.2.2 spam", C::MailboxFull, Basis::EnhancedCode),
        ("550 5.7.1 Blocked", C::MailBlock, Basis::Word),
        ("550 no such user here (#5.1.1)", C::InvalidRecipient, Basis::Phrase),
        ("550 sorry (#5.2.2)", C::MailboxFull, Basis::EnhancedCode),
        ("550 sorry (#4.2.2)", C::InvalidRecipient, Basis::Code),
    ] {
        let verdict = at(Phase::RcptTo, text);
        assert_eq!((verdict.category, verdict.basis), (category, basis), "{text}");
    }
}

#[test]
fn spam_before_the_content_is_the_path() {
    assert_eq!(at(Phase::MailFrom, "550 spam").category, Category::ReputationBlock);
    assert_eq!(at(Phase::MailFrom, "450 spam").category, Category::ReputationDeferral);
    assert_eq!(at(Phase::EndOfData, "550 spam").category, Category::SpamContent);
}

#[test]
fn the_action_follows_from_category_and_class_of_the_code() {
    assert_eq!(at(Phase::RcptTo, "550 5.1.1 no").action, Action::Fail);
    assert_eq!(at(Phase::RcptTo, "450 4.1.1 no").action, Action::Retry);
    assert_eq!(at(Phase::RcptTo, "552 5.2.2 no").action, Action::Retry);
    assert_eq!(at(Phase::Greeting, "554 no").action, Action::HoldPath);
    assert_eq!(at(Phase::RcptTo, "354 go on").category, Category::ProtocolError);
    assert_eq!(at(Phase::RcptTo, "354 go on").action, Action::Retry);
}

#[test]
fn only_the_path_is_feedback() {
    for (phase, text, path) in [
        (Phase::Greeting, "421 4.3.2 try again later", true),
        (Phase::RcptTo, "421 4.3.2 try again later", true),
        (Phase::RcptTo, "451 4.3.2 try again later", true),
        (Phase::MailFrom, "450 busy", true),
        (Phase::RcptTo, "450 busy", false),
        (Phase::RcptTo, "450 4.2.0 later", false),
        (Phase::RcptTo, "451 4.7.1 greylisted", false),
        (Phase::Greeting, "421 4.7.1 greylisted", false),
        (Phase::RcptTo, "450 4.7.28 flood", true),
        (Phase::RcptTo, "550 5.1.1 no such user", false),
        (Phase::EndOfData, "554 5.7.1 spam", false),
        (Phase::EndOfData, "552 5.3.4 too large", false),
        (Phase::EndOfData, "550 5.7.26 DMARC", false),
        (Phase::RcptTo, "450 4.2.1 later", false),
        (Phase::Ehlo, "554 listed", true),
    ] {
        assert_eq!(at(phase, text).is_path_feedback(), path, "{text} at {phase:?}");
    }
}

#[test]
fn a_request_to_wait_is_a_hint() {
    let verdict = at(Phase::RcptTo, "451 4.7.1 Greylisted, try again in 5 minutes");
    assert_eq!(verdict.hint.retry_after, Some(Duration::from_secs(300)));
}

proptest! {
    #[test]
    fn every_reply_has_a_verdict(code in 200_u16..600, enhanced in proptest::option::of((0_u16..12, 0_u16..40)), text in ".{0,200}", phase in 0_usize..9) {
        let phases = [Phase::Connect, Phase::Greeting, Phase::Ehlo, Phase::StartTls, Phase::MailFrom, Phase::RcptTo, Phase::Data, Phase::EndOfData];
        let class = if code >= 500 { 5 } else { 4 };
        let reply = Reply {
            code: ReplyCode::try_from(code).unwrap(),
            enhanced: enhanced.map(|(subject, detail)| EnhancedCode { class, subject, detail }),
            text,
        };
        let verdict = classify(&Reading { phase: phases.get(phase).copied(), reply: &reply });
        prop_assert_eq!(verdict.action, verdict.category.action(code >= 500));
        // A refusal that stops the path must reach the pacer, or the lane would go on into it.
        if verdict.action == Action::HoldPath {
            prop_assert!(verdict.is_path_feedback());
        }
    }
}
