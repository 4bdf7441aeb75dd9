//! The delivery worker of one sender: slices come in, lie in the spool, are routed to lanes, sent over SMTP, and what
//! became of each message is recorded before the next but one leaves on the same connection.
//!
//! ```text
//! intake ─► spool ─► dispatcher ─► lane (sending IP × site) ─► session ─► attempt ─► ledger ─► report
//!                      ▲    ▲                                     │           │
//!                  routes  pacer ◄──────── verdict ───────────────┴───────────┘
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod cluster;
mod connect;
mod dispatcher;
mod driver;
mod engine;
pub mod keys;
mod lane_metrics;
mod ledger;
mod metrics;
pub mod resolver;
mod session;

pub use dispatcher::{
    ChangeCounts, GrantedShares, IntakeError, IpReport, KeyRing, LaneChange, LaneChangeKind, LaneChanges, LaneReport,
    PoolClaims, PoolSettings, PoolShares, RunState, SenderReport, SliceReport, SourceIp, WarmUpReport, WarmUpStart,
};
pub use driver::Accepted;
pub use engine::{Engine, EngineConfig, EngineEnded, EngineError, NewSlice};
pub use ledger::DamagedRecord;
pub use metrics::SenderMetrics;
