//! The resources of Relaypool as Rust types: what users write, what the operator answers, and the rules between them.
//!
//! This crate is pure: no I/O, no tasks, no clock. Everything above it parses with these types at its border and trusts
//! them from there on.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]
// Every `printcolumn` of a kind has a type; the lint takes the attributes of kube's derive for one another's duplicates.
#![allow(clippy::duplicated_attributes)]

mod cel;
pub mod conditions;
pub mod crds;
pub mod delivery;
pub mod delivery_slice;
pub mod dkim_key;
pub mod index_ranges;
pub mod message;
pub mod mx_policy;
pub mod names;
pub mod not_in_effect;
pub mod pool_limits;
pub mod progress;
pub mod reference;
pub mod relay_pool;
pub mod reply;
pub mod schema;
pub mod sending_ip;
pub mod types;
pub mod validation;
pub mod validity;

pub use delivery::{Delivery, DeliverySpec, DeliveryStatus};
pub use delivery_slice::{DeliverySlice, DeliverySliceSpec, DeliverySliceStatus};
pub use dkim_key::{DkimKey, DkimKeySpec, DkimKeyStatus};
pub use index_ranges::{IndexRanges, IndexRangesError};
pub use mx_policy::{MxPolicy, MxPolicySpec, MxPolicyStatus};
pub use relay_pool::{RelayPool, RelayPoolSpec, RelayPoolStatus};
pub use sending_ip::{SendingIp, SendingIpSpec, SendingIpStatus};
pub use types::{Domain, Duration, EmailAddress, Mask, Rate};
pub use validation::{Problem, Validate};
pub use validity::{MAX_VALIDITY, effective_validity};
