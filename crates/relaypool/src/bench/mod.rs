//! Benchmarks against a baseline in the same run.

mod cpu;
mod postfix;
pub mod sink;
pub mod throughput;
