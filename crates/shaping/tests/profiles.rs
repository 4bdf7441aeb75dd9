//! The built-in profiles are good MxPolicies, and their rules know what the providers say.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use relaypool_api::not_in_effect::{NotInEffect, Surroundings};
use relaypool_api::reply::{Phase, Reply};
use relaypool_api::schema::{unknown_fields, violations};
use relaypool_api::validation::Validate;
use relaypool_api::{Domain, MxPolicy};
use relaypool_bounce::{Category, Reading, classify};
use relaypool_shaping::policy::{EffectivePolicy, PolicySet, profiles};
use relaypool_shaping::reply_rules::{LaneRules, Refusal, Standing};

/// What an API server checks, and what the reconciler checks again.
#[test]
fn every_profile_is_a_policy_that_kubectl_could_apply() {
    for profile in profiles() {
        let raw: serde_json::Value = serde_yaml::from_str(profile.yaml).unwrap();
        assert_eq!(raw["apiVersion"], "relaypool.dev/v1alpha1");
        assert_eq!(raw["kind"], "MxPolicy");
        assert_eq!(raw["metadata"]["name"], *profile.name);
        assert_eq!(unknown_fields("MxPolicy", &raw), [], "{}", profile.name);
        assert_eq!(violations("MxPolicy", &raw), [], "{}", profile.name);
        let policy: MxPolicy = serde_json::from_value(raw).unwrap();
        assert_eq!(policy.problems(), [], "{}", profile.name);
        let ignored = policy.spec.fields_not_in_effect(Surroundings::Cluster);
        assert_eq!(ignored, Vec::<String>::new(), "{}", profile.name);
        assert_eq!(policy.spec, profile.spec);
        assert!(
            policy.spec.priority < 0,
            "{}: a copy stands below the user's policies",
            profile.name
        );
        assert!(
            policy.spec.matches.domains.is_empty(),
            "{}: a provider is its hosts",
            profile.name
        );
        assert!(
            profile.yaml.contains("looked up 20"),
            "{}: the facts have a source and a date",
            profile.name
        );
    }
}

#[test]
fn every_file_is_built_in() {
    let files: BTreeSet<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/profiles"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    let built_in: BTreeSet<String> = profiles()
        .iter()
        .map(|profile| format!("{}.yaml", profile.name))
        .collect();
    assert_eq!(files, built_in);
}

fn resolve(host: &str) -> EffectivePolicy {
    let host: Domain = host.parse().unwrap();
    PolicySet::new(Vec::new()).resolve("pool", &"example.com".parse().unwrap(), &[host])
}

#[test]
fn hosts_of_providers_have_their_numbers() {
    for (host, connections, messages, profile) in [
        (
            "mta7.am0.yahoodns.net",
            (20, "default"),
            (20, "built-in profile yahoo"),
            "yahoo",
        ),
        (
            "mx-aol.mail.gm0.yahoodns.net",
            (20, "default"),
            (20, "built-in profile yahoo"),
            "yahoo",
        ),
        (
            "mx1.comcast.net",
            (25, "built-in profile comcast"),
            (1_000, "built-in profile comcast"),
            "comcast",
        ),
        (
            "smtp-in.orange.fr",
            (3, "built-in profile orange"),
            (100, "default"),
            "orange",
        ),
        (
            "smtpz4.laposte.net",
            (2, "built-in profile laposte"),
            (100, "built-in profile laposte"),
            "laposte",
        ),
        ("smtp-in.sfr.fr", (2, "built-in profile sfr"), (100, "default"), "sfr"),
        ("gmail-smtp-in.l.google.com", (20, "default"), (100, "default"), "gmail"),
        ("mx2.free.fr", (20, "default"), (100, "default"), "free"),
        ("mx00.gmx.net", (20, "default"), (100, "default"), "gmx"),
        ("mx-ha02.web.de", (20, "default"), (100, "default"), "gmx"),
        ("mx01.mail.icloud.com", (20, "default"), (100, "default"), "icloud"),
        ("mx00.t-online.de", (20, "default"), (100, "default"), "t-online"),
        (
            "hotmail-com.olc.protection.outlook.com",
            (20, "default"),
            (100, "default"),
            "outlook",
        ),
        (
            "contoso-com.mail.protection.outlook.com",
            (20, "default"),
            (100, "default"),
            "microsoft-365",
        ),
    ] {
        let policy = resolve(host);
        let found = (policy.max_connections.value, policy.max_connections.from.to_string());
        assert_eq!((found.0, found.1.as_str()), connections, "{host}");
        let found = (
            policy.messages_per_connection.value,
            policy.messages_per_connection.from.to_string(),
        );
        assert_eq!((found.0, found.1.as_str()), messages, "{host}");
        let first = policy.reply_rules[0].from.to_string();
        assert_eq!(first, format!("built-in profile {profile}"), "{host}");
    }
    assert!(resolve("mx.example.com").reply_rules.is_empty());
    assert!(resolve("evil-google.com").reply_rules.is_empty());
}

/// What a reply comes to, classified and then shown to the rules, as a sender does it.
fn outcome(host: &str, phase: Phase, reply: &str) -> (Category, Option<&'static str>) {
    let (code, rest) = reply.split_once(' ').unwrap();
    let (enhanced, text) = match rest.split_once(' ') {
        Some((enhanced, text)) if enhanced.parse::<relaypool_api::reply::EnhancedCode>().is_ok() => {
            (enhanced.parse().ok(), text)
        }
        _ => (None, rest),
    };
    let reply = Reply {
        code: code.parse::<u16>().unwrap().try_into().unwrap(),
        enhanced,
        text: text.to_owned(),
    };
    let verdict = classify(&Reading::new(phase, &reply));
    let refusal = Refusal::new(Some(reply.code.get()), rest, verdict.category);
    let standing = Standing {
        connections: 5,
        messages_per_connection: 100,
    };
    let mut rules = LaneRules::new(&resolve(host).reply_rules);
    let effects = rules.refused(std::time::Duration::ZERO, &refusal, standing);
    let does = effects.as_ref().and_then(|effects| {
        if effects.retry_after.is_some() {
            Some("retry")
        } else if effects.suspend_for.is_some() {
            Some("suspend")
        } else if effects.caps_changed {
            Some("reduce")
        } else {
            None
        }
    });
    let reclassified = effects.and_then(|effects| effects.reclassify);
    (reclassified.unwrap_or(verdict.category), does)
}

#[test]
fn what_providers_say_is_understood() {
    use Category as C;
    use Phase::{EndOfData, Greeting, MailFrom, RcptTo};
    let yahoo = "mta5.am0.yahoodns.net";
    let office = "a-com.mail.protection.outlook.com";
    let outlook = "outlook-com.olc.protection.outlook.com";
    let google = "aspmx.l.google.com";
    let mut misread = Vec::new();
    for (host, phase, reply, category, does) in [
        (
            yahoo,
            MailFrom,
            "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume",
            C::ReputationDeferral,
            Some("retry"),
        ),
        (
            yahoo,
            MailFrom,
            "421 4.7.1 [TS03] All messages from 192.0.2.1 will be permanently deferred",
            C::ReputationBlock,
            None,
        ),
        (
            yahoo,
            RcptTo,
            "554 delivery error: dd This user doesn't have a yahoo.com account",
            C::InvalidRecipient,
            None,
        ),
        (
            google,
            EndOfData,
            "421 4.7.28 Gmail has detected an unusual rate of mail from your DKIM domain",
            C::ReputationDeferral,
            None,
        ),
        (
            google,
            RcptTo,
            "450 4.2.1 The user you are trying to contact is receiving mail too quickly",
            C::RecipientRateLimited,
            None,
        ),
        (
            google,
            RcptTo,
            "550 5.2.1 The user you are trying to contact is receiving mail at a rate that prevents it",
            C::RecipientRateLimited,
            Some("retry"),
        ),
        (
            google,
            RcptTo,
            "550 5.1.1 The email account that you tried to reach does not exist",
            C::InvalidRecipient,
            None,
        ),
        (
            office,
            RcptTo,
            "550 5.4.1 [a@a.com]: Recipient address rejected: Access denied",
            C::InvalidRecipient,
            None,
        ),
        (
            office,
            MailFrom,
            "451 4.7.500 Server busy. Please try again later from [192.0.2.1]",
            C::RateLimited,
            None,
        ),
        (
            office,
            RcptTo,
            "550 5.7.606 Access denied, banned sending IP [192.0.2.1]",
            C::ReputationBlock,
            None,
        ),
        (
            outlook,
            MailFrom,
            "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation",
            C::ReputationDeferral,
            None,
        ),
        (
            outlook,
            MailFrom,
            "421 RP-002 the connection limit is exceeded",
            C::RateLimited,
            None,
        ),
        (
            outlook,
            MailFrom,
            "550 5.7.1 messages from [192.0.2.1] weren't sent as part of the network is on our list (S3150)",
            C::ReputationBlock,
            None,
        ),
        (
            outlook,
            EndOfData,
            "550 5.7.515 Access denied, sending domain example.com does not pass",
            C::AuthFailure,
            None,
        ),
        (
            "mx01.mail.icloud.com",
            RcptTo,
            "421 4.7.1 Messages to ada@icloud.com deferred due to excessive volume",
            C::RecipientRateLimited,
            None,
        ),
        (
            "mx1.comcast.net",
            Greeting,
            "421 too many sessions opened",
            C::RateLimited,
            Some("reduce"),
        ),
        (
            "mx1.comcast.net",
            MailFrom,
            "554 192.0.2.1 see codes#BL000001",
            C::ReputationBlock,
            None,
        ),
        (
            "smtp-in.orange.fr",
            Greeting,
            "421 mwinf ME Trop de connexions, veuillez verifier. OFR004_104 [104]",
            C::RateLimited,
            Some("reduce"),
        ),
        (
            "smtp-in.orange.fr",
            RcptTo,
            "550 5.1.1 Adresse d au moins un destinataire invalide. OFR_416",
            C::InvalidRecipient,
            None,
        ),
        (
            "smtp-in.orange.fr",
            Greeting,
            "421 mwinf ME Service refuse. Veuillez essayer plus tard. OFR_108",
            C::ReputationDeferral,
            None,
        ),
        (
            "smtp4.laposte.net",
            RcptTo,
            "450 4.7.1 Client host rejected: Service refuse LPN027_503",
            C::ReputationDeferral,
            Some("retry"),
        ),
        ("mx1.free.fr", EndOfData, "550 spam detected", C::SpamContent, None),
        (
            "smtp-in.sfr.fr",
            RcptTo,
            "450 4.7.1 Service refused SFR_IN_105",
            C::ReputationDeferral,
            Some("suspend"),
        ),
        (
            "mx00.gmx.net",
            Greeting,
            "421 gmx.net Nemesis ESMTP Service not available Rate limit reached.",
            C::RateLimited,
            Some("retry"),
        ),
        (
            "mx00.gmx.net",
            Greeting,
            "554 gmx.net No SMTP service IP address is block listed.",
            C::ReputationBlock,
            None,
        ),
        (
            "mx00.t-online.de",
            Greeting,
            "554 IP=192.0.2.1 - None/bad reputation. Ask your postmaster (NOWL)",
            C::ReputationBlock,
            None,
        ),
        // Temporary failures of authentication stay what they are.
        (
            google,
            EndOfData,
            "421 4.7.24 The SPF record of the domain has suspicious entries",
            C::AuthFailure,
            None,
        ),
    ] {
        let found = outcome(host, phase, reply);
        if found != (category, does) {
            misread.push(format!("{host}: {reply}: {found:?}, not {:?}", (category, does)));
        }
    }
    assert!(misread.is_empty(), "{misread:#?}");
}
