//! Templates, MIME composition and DKIM signatures.
//!
//! A message is rendered and signed at the moment of sending, once for each attempt, and must be the same at every
//! attempt: same Message-ID, Date, boundaries, same bytes. [`Composer`] is a pure function of the run's snapshot, the
//! recipient and the message's [`Identity`]; nothing here is random or reads a clock. Only a DKIM signature says when
//! it was made.
//!
//! Composed messages are 7-bit in all parts, so they need no 8BITMIME; only an address outside ASCII needs SMTPUTF8.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod composer;
pub mod dkim;
mod encoding;
mod error;
mod header;
mod identity;
mod layout;
mod template;

pub use composer::{Composed, Composer, check_template};
pub use error::{ComposeError, Problem, TemplateError};
pub use identity::{Identity, IdentityError};
