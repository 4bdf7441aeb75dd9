//! The delivery worker: intake, spool, lanes, sessions, outcomes, reports.
