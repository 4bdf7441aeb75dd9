//! One reconciler per resource kind.
