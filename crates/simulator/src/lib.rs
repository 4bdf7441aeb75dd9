//! Receiving mail providers with hidden limits, for the demo, tests and benchmarks.
