//! What a pacer is told.

use relaypool_api::Rate;

/// The limits of one lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacerLimits {
    /// Connections, by policy. At least 1.
    pub connections: u32,
    /// Messages on one connection. At least 1.
    pub messages_per_connection: u32,
    /// Messages per unit of time, by policy: never more than that many in any span of that unit.
    pub rate: Option<Rate>,
    /// This lane's share of limits that all sending IPs of the pool have together.
    pub share: Option<Share>,
    /// How far learning may go; none for a pool in static mode, which learns nothing.
    pub adaptive: Option<AdaptiveLimits>,
}

/// A share of pool-wide limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Connections; zero while this lane has no share.
    pub connections: u32,
    /// Messages per unit of time; none where the pool has no such limit.
    pub rate: Option<Rate>,
}

/// Bounds for what is learned. The hard limits hold besides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdaptiveLimits {
    /// No slower than this, except while suspended.
    pub min_rate: Option<Rate>,
    /// No fewer connections than this.
    pub min_connections: Option<u32>,
    /// No more connections than this.
    pub max_connections: Option<u32>,
    /// No faster than this.
    pub max_rate: Option<Rate>,
}

impl PacerLimits {
    /// The rates that are hard limits: of the policy, the bound of learning, the share.
    pub(super) fn rates(&self) -> [Option<Rate>; 3] {
        [
            self.rate,
            self.adaptive.as_ref().and_then(|adaptive| adaptive.max_rate),
            self.share.as_ref().and_then(|share| share.rate),
        ]
    }

    /// The same with zeros raised to one: a lane that may never open a connection would hold its mail for ever.
    pub(super) fn usable(mut self) -> Self {
        self.connections = self.connections.max(1);
        self.messages_per_connection = self.messages_per_connection.max(1);
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.max_connections = adaptive.max_connections.map(|most| most.max(1));
        }
        self
    }
}
