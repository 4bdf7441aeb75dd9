//! Reply classification.
