//! The durable queue of one sender.
