//! The demo: two thousand personalised, signed messages to simulated providers on this machine.

mod objects;
mod report;
mod verify;

pub use objects::{DemoNetwork, demo_files};
pub use report::DemoReport;
pub use verify::verified_signatures;
