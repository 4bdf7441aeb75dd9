//! Conditions: what an object says of itself, in the form that `kubectl wait` and GitOps tools read (kstatus).
//!
//! Every kind has Ready, Reconciling and Stalled, written together by [`Readiness`]: Ready is normal-true, the other two
//! are abnormal-true, and at most one of the three is True. A Delivery is Ready as soon as it is accepted and planned;
//! that it is finished says `Completed`, for which no tool should wait 84 hours.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Declares an enum whose names are said outside: each variant's name is its text, its documentation its description.
macro_rules! described {
    ($(#[doc = $enum_doc:literal])+ $name:ident { $($(#[doc = $doc:literal])+ $variant:ident,)+ }) => {
        $(#[doc = $enum_doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name that objects say.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant),)+
                }
            }

            /// What it means.
            pub fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+).trim_start(),)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(self.as_str())
            }
        }
    };
}

mod reasons;

pub use reasons::{
    DeliveryReason, DeliverySliceReason, DkimKeyReason, MxPolicyReason, Reason, RelayPoolReason, SendingIpReason,
};

/// Characters of the longest message: conditions are read in a terminal, and a status has a bounded size.
const MAX_MESSAGE_CHARACTERS: usize = 1_024;

described! {
    /// Types of conditions; the description says what True means. Those that [`is_abnormal`](Self::is_abnormal) are True
    /// when something wants attention.
    ConditionType {
        /// The object is accepted and in force.
        Ready,
        /// Work on the object goes on; it will get on without a person.
        Reconciling,
        /// Something must be changed by a person first.
        Stalled,
        /// Every message came to its end.
        Completed,
        /// The DNS record of the key is there and right.
        Published,
        /// The address resolves to the EHLO name and the name back to the address.
        ForwardConfirmed,
        /// Nothing is sent to at least one site for a while, because it refuses mail from the address.
        SitesSuspended,
        /// The warm-up does not go on to its next stage: a provider refused mail for reputation or rate.
        WarmUpHeld,
        /// Fields are set that this version accepts but does not act upon.
        NotInEffect,
        /// No DkimKey fits the sender's domain: the mail is not signed.
        DkimMissing,
        /// The validity asked for was longer than 84h and is not used.
        ValidityClamped,
        /// Another policy says something different about the same sites, and only the name decides which wins.
        Conflicting,
    }
}

impl ConditionType {
    /// True for the types whose True means that something is unusual: what is well leaves them out or says False.
    pub const fn is_abnormal(self) -> bool {
        matches!(
            self,
            Self::Reconciling
                | Self::Stalled
                | Self::SitesSuspended
                | Self::WarmUpHeld
                | Self::NotInEffect
                | Self::DkimMissing
                | Self::ValidityClamped
                | Self::Conflicting
        )
    }

    /// The types that objects of a kind can have; none for a kind that is not ours.
    pub fn of_kind(kind: &str) -> &'static [Self] {
        use ConditionType::*;
        match kind {
            "RelayPool" => &[Ready, Reconciling, Stalled, NotInEffect],
            "SendingIp" => &[
                Ready,
                Reconciling,
                Stalled,
                ForwardConfirmed,
                SitesSuspended,
                WarmUpHeld,
                NotInEffect,
            ],
            "MxPolicy" => &[Ready, Reconciling, Stalled, Conflicting, NotInEffect],
            "DkimKey" => &[Ready, Reconciling, Stalled, Published, NotInEffect],
            "Delivery" => &[
                Ready,
                Reconciling,
                Stalled,
                Completed,
                DkimMissing,
                ValidityClamped,
                NotInEffect,
            ],
            "DeliverySlice" => &[Ready, Reconciling, Stalled, Completed],
            _ => &[],
        }
    }
}

/// Status of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConditionStatus {
    /// Yes.
    True,
    /// No.
    False,
    /// Not known.
    Unknown,
}

impl ConditionStatus {
    /// The name in `status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// Writes one condition: changes it where it stands, or adds it at the end. All other conditions stay as they are.
///
/// `lastTransitionTime` becomes `now` only when the status changes, so that writing the same again changes nothing. A
/// message of more than 1,024 characters is cut; an empty one becomes the reason's description, because readers look there
/// for words, and version 1.20 refuses empty texts.
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    kind: ConditionType,
    status: ConditionStatus,
    reason: impl Reason,
    message: impl Into<String>,
    generation: Option<i64>,
    now: Time,
) {
    let existing = conditions.iter_mut().find(|condition| condition.type_ == kind.as_str());
    let unchanged_since = existing
        .as_ref()
        .filter(|condition| condition.status == status.as_str())
        .map(|condition| condition.last_transition_time.clone());
    let condition = Condition {
        type_: kind.as_str().to_owned(),
        status: status.as_str().to_owned(),
        reason: reason.as_str().to_owned(),
        message: bounded(message.into(), reason),
        observed_generation: generation,
        last_transition_time: unchanged_since.unwrap_or(now),
    };
    match existing {
        Some(existing) => *existing = condition,
        None => conditions.push(condition),
    }
}

/// Takes a condition away, for abnormal ones that no longer apply.
pub fn remove_condition(conditions: &mut Vec<Condition>, kind: ConditionType) {
    conditions.retain(|condition| condition.type_ != kind.as_str());
}

/// The condition of a type, where it is there.
pub fn find_condition(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

/// True when the condition is there and True.
pub fn is_true(conditions: &[Condition], kind: ConditionType) -> bool {
    find_condition(conditions, kind).is_some_and(|condition| condition.status == ConditionStatus::True.as_str())
}

fn bounded(message: String, reason: impl Reason) -> String {
    if message.is_empty() {
        return reason.description().to_owned();
    }
    match message.char_indices().nth(MAX_MESSAGE_CHARACTERS) {
        None => message,
        Some(_) => message.chars().take(MAX_MESSAGE_CHARACTERS - 1).chain(['…']).collect(),
    }
}

/// How an object is doing. Each of the three says all three conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Accepted and in force.
    Ready,
    /// On its way; no person is needed.
    Reconciling,
    /// A person must change something.
    Stalled,
}

impl Readiness {
    /// Writes Ready, Reconciling and Stalled with one reason and message. The status needs the same `generation` as its
    /// `observedGeneration`.
    pub fn write(
        self,
        conditions: &mut Vec<Condition>,
        reason: impl Reason,
        message: impl Into<String>,
        generation: Option<i64>,
        now: Time,
    ) {
        let message = message.into();
        for (kind, holds) in [
            (ConditionType::Ready, self == Self::Ready),
            (ConditionType::Reconciling, self == Self::Reconciling),
            (ConditionType::Stalled, self == Self::Stalled),
        ] {
            set_condition(
                conditions,
                kind,
                holds.into(),
                reason,
                message.clone(),
                generation,
                now.clone(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn foreign() -> Condition {
        Condition {
            type_: "example.com/Reviewed".into(),
            status: "True".into(),
            reason: "ByAda".into(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: at(1),
        }
    }

    #[test]
    fn the_time_changes_with_the_status_only() {
        let mut conditions = Vec::new();
        let mut write = |status, message: &str, now| {
            set_condition(
                &mut conditions,
                ConditionType::Published,
                status,
                DkimKeyReason::RecordFound,
                message,
                Some(3),
                at(now),
            );
            (
                conditions[0].last_transition_time.clone(),
                conditions[0].message.clone(),
            )
        };
        assert_eq!(write(ConditionStatus::True, "found", 10), (at(10), "found".into()));
        assert_eq!(
            write(ConditionStatus::True, "found again", 20),
            (at(10), "found again".into())
        );
        assert_eq!(write(ConditionStatus::False, "gone", 30), (at(30), "gone".into()));
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0].observed_generation, Some(3));
    }

    #[test]
    fn foreign_conditions_and_order_stay() {
        let mut conditions = vec![foreign()];
        Readiness::Ready.write(&mut conditions, MxPolicyReason::Accepted, "fine", Some(1), at(2));
        conditions.swap(0, 3);
        let order: Vec<String> = conditions.iter().map(|condition| condition.type_.clone()).collect();
        Readiness::Stalled.write(&mut conditions, MxPolicyReason::InvalidSpec, "not fine", Some(2), at(3));
        remove_condition(&mut conditions, ConditionType::Conflicting);
        assert_eq!(
            order,
            conditions
                .iter()
                .map(|condition| condition.type_.clone())
                .collect::<Vec<_>>()
        );
        assert!(conditions.contains(&foreign()));
    }

    #[test]
    fn one_of_the_three_is_true() {
        let mut conditions = Vec::new();
        for readiness in [
            Readiness::Reconciling,
            Readiness::Ready,
            Readiness::Stalled,
            Readiness::Ready,
        ] {
            readiness.write(&mut conditions, RelayPoolReason::Pending, "", Some(1), at(1));
            let holding = [
                (Readiness::Ready, ConditionType::Ready),
                (Readiness::Reconciling, ConditionType::Reconciling),
                (Readiness::Stalled, ConditionType::Stalled),
            ];
            for (state, kind) in holding {
                assert!(find_condition(&conditions, kind).is_some());
                assert_eq!(
                    is_true(&conditions, kind),
                    state == readiness,
                    "{kind} at {readiness:?}"
                );
            }
        }
        assert_eq!(conditions.len(), 3);
    }

    #[test]
    fn messages_are_bounded() {
        let mut conditions = Vec::new();
        Readiness::Stalled.write(
            &mut conditions,
            RelayPoolReason::InvalidSpec,
            "ü".repeat(5_000),
            None,
            at(1),
        );
        assert_eq!(conditions[0].message.chars().count(), 1_024);
        assert!(conditions[0].message.ends_with('…'));
        let longest = "ü".repeat(1_024);
        assert_eq!(bounded(longest.clone(), RelayPoolReason::Pending), longest);
        assert_eq!(bounded(String::new(), RelayPoolReason::Pending), "Not looked at yet.");
    }

    #[test]
    fn every_kind_has_the_three() {
        for kind in [
            "RelayPool",
            "SendingIp",
            "MxPolicy",
            "DkimKey",
            "Delivery",
            "DeliverySlice",
        ] {
            let types = ConditionType::of_kind(kind);
            for needed in [ConditionType::Ready, ConditionType::Reconciling, ConditionType::Stalled] {
                assert!(types.contains(&needed), "{kind} lacks {needed}");
            }
        }
        for kind in ConditionType::ALL {
            assert!(
                kind.description().ends_with('.') && !kind.description().starts_with(' '),
                "{kind}"
            );
        }
    }
}
