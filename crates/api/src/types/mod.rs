//! Values that are parsed once, where they enter, and cannot be wrong afterwards.
//!
//! Each type reads and writes one string in YAML and JSON, and its schema carries the rule and a message that says how
//! to fix a bad value, so that an API server that knows CEL refuses it, and every other reader (an old API server, local
//! mode) gets the same words from the parser.

#[cfg(test)]
mod agreement;
mod domain;
mod duration;
mod email_address;
mod mask;
mod rate;
mod string_schema;
mod time_zone;

pub use domain::{Domain, DomainError};
pub use duration::{Duration, DurationError};
pub use email_address::{EmailAddress, EmailAddressError};
pub use mask::{Mask, MaskError};
pub use rate::{Rate, RateError, RateUnit};
pub use time_zone::time_zone;
