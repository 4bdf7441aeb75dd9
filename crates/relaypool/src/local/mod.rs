//! Deliveries without a cluster: the same objects, the same planning, the same sender engine, in one process.

mod document;
mod objects;
mod plan;
mod progress_bars;
mod runner;

pub use objects::Objects;
pub use progress_bars::ProgressBars;
pub use runner::{Runner, RunnerOptions, Snapshot};
