//! What this version accepts but does not do yet. The one place to shorten when a later version does more.
//!
//! A field that is set and not acted upon is named in the condition NotInEffect: nothing is ignored in silence. Where going
//! on without it would do harm or nothing at all, the object is Stalled instead; see [`NotInEffect::obstacles`].

use crate::delivery::{DeliverySpec, Recipients, Schedule};
use crate::dkim_key::DkimKeySpec;
use crate::mx_policy::MxPolicySpec;
use crate::relay_pool::RelayPoolSpec;
use crate::sending_ip::SendingIpSpec;
use crate::types::time_zone;
use crate::validation::Problem;

/// Who starts the senders of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surroundings {
    /// The operator: senders are pods, with volumes of their own.
    Cluster,
    /// A person or `relaypool local`: senders are processes, and their queue lies where they were told.
    Elsewhere,
}

/// A spec that may ask for more than this version does.
pub trait NotInEffect {
    /// Paths of the fields that are set and not acted upon, such as `spec.schedule.waves`.
    fn fields_not_in_effect(&self, surroundings: Surroundings) -> Vec<String>;

    /// What this version would need to act on the object at all, or without harm: the object is Stalled with it.
    fn obstacles(&self) -> Vec<Problem> {
        Vec::new()
    }
}

/// The message of the condition NotInEffect.
pub fn notice(fields: &[String]) -> String {
    format!(
        "this version accepts these fields but does not act upon them yet: {}",
        fields.join(", ")
    )
}

impl NotInEffect for RelayPoolSpec {
    fn fields_not_in_effect(&self, surroundings: Surroundings) -> Vec<String> {
        let storage = self.storage.size.is_some() || self.storage.storage_class_name.is_some();
        set_fields([
            ("spec.intake", self.intake.is_some()),
            ("spec.objectStores", !self.object_stores.is_empty()),
            ("spec.pod", self.pod.is_some()),
            ("spec.storage", storage && surroundings == Surroundings::Elsewhere),
        ])
    }
}

impl NotInEffect for SendingIpSpec {
    fn fields_not_in_effect(&self, _: Surroundings) -> Vec<String> {
        let egress = self.egress.as_ref();
        set_fields([
            (
                "spec.egress.socks5",
                egress.is_some_and(|egress| egress.socks5.is_some()),
            ),
            (
                "spec.egress.proxyProtocol",
                egress.is_some_and(|egress| egress.proxy_protocol.is_some()),
            ),
        ])
    }

    fn obstacles(&self) -> Vec<Problem> {
        let egress = self.egress.as_ref();
        let proxies = [
            (
                "spec.egress.socks5",
                egress.is_some_and(|egress| egress.socks5.is_some()),
            ),
            (
                "spec.egress.proxyProtocol",
                egress.is_some_and(|egress| egress.proxy_protocol.is_some()),
            ),
        ];
        set_fields(proxies)
            .into_iter()
            .map(|field| Problem {
                field,
                message:
                    "this version does not send through proxies yet, and without one mail would leave from another \
                          address: use egress.bind, or remove egress"
                        .to_owned(),
            })
            .chain(unknown_time_zone(self))
            .collect()
    }
}

/// A new release of the time zone database may know a zone that the one in this version does not.
fn unknown_time_zone(spec: &SendingIpSpec) -> Option<Problem> {
    let name = spec.warm_up.as_ref()?.time_zone.as_deref()?;
    time_zone(name).is_none().then(|| Problem {
        field: "spec.warmUp.timeZone".to_owned(),
        message: format!("this version knows no time zone {name}: use a name such as Europe/Paris or UTC"),
    })
}

impl NotInEffect for MxPolicySpec {
    fn fields_not_in_effect(&self, _: Surroundings) -> Vec<String> {
        Vec::new()
    }
}

impl NotInEffect for DkimKeySpec {
    fn fields_not_in_effect(&self, _: Surroundings) -> Vec<String> {
        set_fields([("spec.rotation", self.rotation.is_some())])
    }

    fn obstacles(&self) -> Vec<Problem> {
        if self.secret_ref.is_some() {
            return Vec::new();
        }
        vec![Problem {
            field: "spec.secretRef".to_owned(),
            message: "this version does not generate keys yet: name a Secret with a private key".to_owned(),
        }]
    }
}

impl NotInEffect for DeliverySpec {
    fn fields_not_in_effect(&self, _: Surroundings) -> Vec<String> {
        let schedule = |set: fn(&Schedule) -> bool| self.schedule.as_ref().is_some_and(set);
        set_fields([
            ("spec.relay", self.relay.is_some()),
            (
                "spec.recipients.objectStore",
                self.recipients.as_ref().is_some_and(from_object_store),
            ),
            ("spec.schedule.waves", schedule(|schedule| schedule.waves.is_some())),
            (
                "spec.schedule.quietHours",
                schedule(|schedule| schedule.quiet_hours.is_some()),
            ),
            ("spec.guard", self.guard.is_some()),
            ("spec.ttlAfterFinished", self.ttl_after_finished.is_some()),
        ])
    }

    fn obstacles(&self) -> Vec<Problem> {
        let mut obstacles = Vec::new();
        if self.relay.is_some() {
            obstacles.push(Problem {
                field: "spec.relay".to_owned(),
                message: "this version does not take in relayed messages yet: use message and recipients".to_owned(),
            });
        }
        if self.recipients.as_ref().is_some_and(from_object_store) {
            obstacles.push(Problem {
                field: "spec.recipients.objectStore".to_owned(),
                message: "this version does not read object stores yet: use inline, configMapKeyRef or secretKeyRef"
                    .to_owned(),
            });
        }
        obstacles
    }
}

fn from_object_store(recipients: &Recipients) -> bool {
    recipients.object_store.is_some()
}

fn set_fields<const N: usize>(fields: [(&str, bool); N]) -> Vec<String> {
    fields
        .into_iter()
        .filter(|(_, set)| *set)
        .map(|(field, _)| field.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::json;

    use super::*;

    fn fields<S: NotInEffect + DeserializeOwned>(spec: serde_json::Value) -> (Vec<String>, Vec<String>) {
        let spec: S = serde_json::from_value(spec).unwrap();
        let obstacles = spec.obstacles().into_iter().map(|problem| problem.field).collect();
        (spec.fields_not_in_effect(Surroundings::Cluster), obstacles)
    }

    #[test]
    fn plain_objects_are_in_effect_as_a_whole() {
        assert_eq!(fields::<RelayPoolSpec>(json!({})), (vec![], vec![]));
        let address = json!({
            "pool": "a", "address": "192.0.2.1", "ehloName": "mx.example.com",
            "egress": { "bind": "10.0.0.1" },
            "warmUp": { "schedule": [10, 20], "timeZone": "Europe/Paris" },
        });
        assert_eq!(fields::<SendingIpSpec>(address), (vec![], vec![]));
        let policy = json!({
            "match": { "domains": ["*"] }, "limits": { "maxConnections": 5 }, "scope": "Pool", "tls": "Required",
            "timeouts": { "connect": "30s" }, "retry": { "firstInterval": "5m" },
            "adaptive": { "min": { "connections": 2 }, "max": { "connections": 9, "rate": "10/s" } },
            "replyRules": [{ "code": 421, "action": { "suspendFor": "1h" } }],
        });
        assert_eq!(fields::<MxPolicySpec>(policy), (vec![], vec![]));
        let key = json!({ "domain": "example.com", "selector": "s1", "secretRef": { "name": "key" } });
        assert_eq!(fields::<DkimKeySpec>(key), (vec![], vec![]));
        let delivery = json!({
            "pool": "a", "sender": { "address": "news@example.com" }, "message": { "subject": "s", "text": "t" },
            "recipients": { "inline": [{ "address": "ada@example.com" }] },
            "schedule": { "startAt": "2026-11-20T10:00:00Z" }, "reportDetail": "Counts", "testMode": true,
        });
        assert_eq!(fields::<DeliverySpec>(delivery), (vec![], vec![]));
    }

    #[test]
    fn each_field_is_named() {
        let pool = json!({
            "intake": { "smtp": {} }, "pod": {}, "storage": { "size": "10Gi" },
            "objectStores": [{ "name": "lists", "url": "s3://lists" }],
        });
        assert_eq!(
            fields::<RelayPoolSpec>(pool.clone()).0,
            ["spec.intake", "spec.objectStores", "spec.pod"]
        );
        let pool: RelayPoolSpec = serde_json::from_value(pool).unwrap();
        assert!(
            pool.fields_not_in_effect(Surroundings::Elsewhere)
                .contains(&"spec.storage".to_owned())
        );

        for (egress, field) in [
            (json!({ "socks5": "p:1080" }), "spec.egress.socks5"),
            (json!({ "proxyProtocol": "p:1080" }), "spec.egress.proxyProtocol"),
        ] {
            let address =
                json!({ "pool": "a", "address": "192.0.2.1", "ehloName": "mx.example.com", "egress": egress });
            assert_eq!(
                fields::<SendingIpSpec>(address),
                (vec![field.to_owned()], vec![field.to_owned()])
            );
        }
        let warm_up = json!({ "timeZone": "Europe/Lutetia" });
        let cold = json!({ "pool": "a", "address": "192.0.2.1", "ehloName": "mx.example.com", "warmUp": warm_up });
        assert_eq!(
            fields::<SendingIpSpec>(cold),
            (vec![], vec!["spec.warmUp.timeZone".to_owned()])
        );

        let policy = json!({
            "match": { "domains": ["*"] }, "adaptive": { "min": { "rate": "1/s" } },
        });
        assert_eq!(fields::<MxPolicySpec>(policy), (vec![], vec![]));

        let key = json!({ "domain": "example.com", "selector": "s1", "rotation": { "every": "90d" } });
        assert_eq!(
            fields::<DkimKeySpec>(key),
            (vec!["spec.rotation".to_owned()], vec!["spec.secretRef".to_owned()])
        );

        let relayed = json!({ "pool": "a", "sender": { "address": "news@example.com" }, "relay": {} });
        assert_eq!(
            fields::<DeliverySpec>(relayed),
            (vec!["spec.relay".to_owned()], vec!["spec.relay".to_owned()])
        );
        let delivery = json!({
            "pool": "a", "sender": { "address": "news@example.com" }, "message": { "subject": "s", "text": "t" },
            "recipients": { "objectStore": { "store": "lists", "path": "all.csv" } },
            "schedule": {
                "waves": { "shares": { "percent": 10, "every": "1h" } },
                "quietHours": { "from": "22:00", "to": "08:00" },
            },
            "guard": { "maxHardBouncePercent": 5 }, "ttlAfterFinished": "1d",
        });
        assert_eq!(
            fields::<DeliverySpec>(delivery),
            (
                [
                    "spec.recipients.objectStore",
                    "spec.schedule.waves",
                    "spec.schedule.quietHours",
                    "spec.guard",
                    "spec.ttlAfterFinished"
                ]
                .map(str::to_owned)
                .to_vec(),
                vec!["spec.recipients.objectStore".to_owned()]
            )
        );
    }

    #[test]
    fn the_notice_names_them() {
        let notice = notice(&["spec.guard".into(), "spec.relay".into()]);
        assert!(notice.ends_with("spec.guard, spec.relay"));
    }
}
