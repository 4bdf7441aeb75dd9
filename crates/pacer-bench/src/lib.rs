//! How well a way of pacing mail copes with what receiving providers do: scenarios in virtual time.
//!
//! A [`Controller`](controller::Controller) paces one lane. The pacer of this project is one; the others are what is in
//! use elsewhere, so that its figures can be seen beside theirs.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod controller;
pub mod rivals;
