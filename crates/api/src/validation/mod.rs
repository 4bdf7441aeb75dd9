//! The rules between the fields of an object, as plain functions.
//!
//! Each rule stands once: a CEL expression that the CRD carries, and right beside it the plain check that the reconcilers
//! and local mode run again, because an API server older than 1.25 drops CEL. Both report the same words for the same
//! field. What one value alone must look like is decided when it is parsed (see [`types`](crate::types)); bounds of
//! numbers and lengths are in the schema (see [`schema`](crate::schema)).

use std::fmt;

use crate::cel::CelRule;
use crate::{Delivery, DeliverySlice, DkimKey, Duration, MxPolicy, RelayPool, SendingIp};

pub(crate) mod delivery;
pub(crate) mod delivery_slice;
pub(crate) mod dkim_key;
pub(crate) mod message;
pub(crate) mod mx_policy;
pub(crate) mod relay_pool;
pub(crate) mod sending_ip;
pub(crate) mod text;

pub use delivery::{validate_delivery, validate_delivery_update};
pub use delivery_slice::{validate_delivery_slice, validate_delivery_slice_update};
pub use dkim_key::{validate_dkim_key, validate_dkim_key_update};
pub use mx_policy::{BOUNCE_CATEGORIES, validate_mx_policy, validate_mx_policy_update};
pub use relay_pool::{validate_relay_pool, validate_relay_pool_update};
pub use sending_ip::{validate_sending_ip, validate_sending_ip_update};

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Problem {
    /// Path of the field that the rule belongs to, such as `spec.message.headers[0].name`.
    pub field: String,
    /// What is wrong and how to fix it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.message)
    }
}

/// All problems as one line for a condition or an Event.
pub fn summary(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}

/// An object whose rules can be checked without an API server.
pub trait Validate {
    /// What is wrong with the object by itself. Empty: nothing.
    fn problems(&self) -> Vec<Problem>;

    /// What is wrong with the step from `old` to `new`: fields that must not change. Not what is wrong with `new` alone.
    fn update_problems(old: &Self, new: &Self) -> Vec<Problem>;
}

macro_rules! validate {
    ($($kind:ty: $problems:path, $update_problems:path;)+) => {$(
        impl Validate for $kind {
            fn problems(&self) -> Vec<Problem> {
                $problems(&self.spec)
            }

            fn update_problems(old: &Self, new: &Self) -> Vec<Problem> {
                $update_problems(&old.spec, &new.spec)
            }
        }
    )+};
}

validate! {
    RelayPool: validate_relay_pool, validate_relay_pool_update;
    SendingIp: validate_sending_ip, validate_sending_ip_update;
    MxPolicy: validate_mx_policy, validate_mx_policy_update;
    DkimKey: validate_dkim_key, validate_dkim_key_update;
    Delivery: validate_delivery, validate_delivery_update;
    DeliverySlice: validate_delivery_slice, validate_delivery_slice_update;
}

/// For spans of time that would stop or flood everything when they were zero. The plain check also refuses what is shorter
/// than a millisecond.
pub(crate) const LONGER_THAN_ZERO: CelRule = CelRule::new("self.matches('[1-9]')", "must be longer than 0s");

/// Problems found while a spec is walked.
#[derive(Default)]
struct Findings(Vec<Problem>);

impl Findings {
    /// Notes that `rule` does not hold at `field`.
    fn check(&mut self, field: impl fmt::Display, rule: CelRule, holds: bool) {
        if !holds {
            self.0.push(Problem {
                field: field.to_string(),
                message: rule.message.to_owned(),
            });
        }
    }

    /// Notes a span of time that is there and zero.
    fn check_longer_than_zero(&mut self, field: impl fmt::Display, duration: Option<Duration>) {
        self.check(
            field,
            LONGER_THAN_ZERO,
            duration.is_none_or(|duration| !duration.get().is_zero()),
        );
    }
}
