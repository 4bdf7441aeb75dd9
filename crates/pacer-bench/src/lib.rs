//! How well a way of pacing mail copes with what receiving providers do: scenarios in virtual time.
//!
//! A [`Controller`](controller::Controller) paces one lane. The pacer of this project is one; the others are what is in
//! use elsewhere, so that its figures can be seen beside theirs. [`Bench`](bench::Bench) plays a
//! [`Scenario`](scenario::Scenario) with any of them.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod bench;
pub mod campaign;
pub mod chart;
pub mod controller;
pub mod days;
pub mod judge;
pub mod omniscient;
pub mod pacer;
pub mod registry;
pub mod rivals;
pub mod run;
pub mod scenario;
pub mod table;
