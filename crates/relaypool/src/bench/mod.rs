//! Benchmarks against a baseline in the same run.

pub mod adaptive;
mod cpu;
mod postfix;
pub mod sink;
pub mod throughput;
