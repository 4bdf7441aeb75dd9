//! What the demo tells at its end.

use std::fmt;

use relaypool_api::DeliveryStatus;
use relaypool_api::delivery::Counts;
use relaypool_simulator::books::Summary;
use serde::Serialize;

/// The whole answer of the demo.
#[derive(Debug, Serialize)]
pub struct DemoReport {
    /// Rows of the recipient list.
    pub total: u64,
    /// Accepted by a provider.
    pub sent: u64,
    /// Given up.
    pub failed: u64,
    /// Excluded before sending.
    pub ignored: u64,
    /// Neither: should be none.
    pub unaccounted: u64,
    /// What the simulated providers say that they accepted.
    pub accepted_by_simulator: u64,
    /// Messages that they accepted a second time.
    pub duplicates: u64,
    /// Accepted messages whose signatures all verify.
    pub dkim_verified: u64,
    /// From the first look at the files to the last message.
    pub seconds: f64,
    /// The DKIM records in the simulated DNS.
    pub dkim_records: Vec<(String, String)>,
    /// The simulated providers' books.
    pub simulator: Summary,
    /// Status of the Delivery.
    pub status: DeliveryStatus,
}

impl DemoReport {
    /// Puts the two sides together.
    pub fn new(
        status: DeliveryStatus,
        simulator: Summary,
        dkim_verified: usize,
        dkim_records: Vec<(String, String)>,
        seconds: f64,
    ) -> Self {
        let Counts {
            total,
            sent,
            failed,
            ignored,
            ..
        } = status.counts.unwrap_or_default();
        Self {
            total,
            sent,
            failed,
            ignored,
            unaccounted: total.saturating_sub(sent + failed + ignored),
            accepted_by_simulator: simulator.recipients_accepted,
            duplicates: simulator.duplicates,
            dkim_verified: dkim_verified as u64,
            seconds,
            dkim_records,
            simulator,
            status,
        }
    }

    /// Whether both sides agree and nothing is lost, doubled or unsigned.
    pub fn is_sound(&self) -> bool {
        self.unaccounted == 0
            && self.accepted_by_simulator == self.sent
            && self.duplicates == 0
            && self.dkim_verified == self.sent
    }
}

impl fmt::Display for DemoReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let success = self.status.success.as_deref().unwrap_or("-");
        writeln!(
            formatter,
            "\nDelivery autumn-sale: {} in {:.1} s",
            self.phase(),
            self.seconds
        )?;
        writeln!(formatter, "  {:>6} recipients in the list", self.total)?;
        writeln!(formatter, "  {:>6} sent      (success {success})", self.sent)?;
        writeln!(formatter, "  {:>6} failed", self.failed)?;
        writeln!(formatter, "  {:>6} ignored   (excluded before sending)", self.ignored)?;
        if self.unaccounted > 0 {
            writeln!(formatter, "  {:>6} UNACCOUNTED FOR", self.unaccounted)?;
        }
        self.write_reasons(formatter)?;
        self.write_providers(formatter)?;
        self.write_checks(formatter)
    }
}

impl DemoReport {
    fn phase(&self) -> String {
        self.status
            .phase
            .map_or_else(|| "unknown".to_owned(), |phase| format!("{phase:?}"))
    }

    fn write_reasons(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "\nWhy messages failed or were ignored:")?;
        for reason in &self.status.reasons {
            let category = reason.category.as_deref().unwrap_or("-");
            writeln!(
                formatter,
                "  {:>6} {:<9} {:<22} {category}",
                reason.count,
                format!("{:?}", reason.status),
                reason.reason
            )?;
        }
        Ok(())
    }

    fn write_providers(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "\nWhat the simulated providers say:")?;
        writeln!(
            formatter,
            "  {:<10} {:>9} {:>9} {:>12} {:>14}",
            "provider", "accepted", "refusals", "connections", "most at once"
        )?;
        for provider in &self.simulator.providers {
            let refusals: u64 = provider.refusals.iter().map(|refusal| refusal.count).sum();
            writeln!(
                formatter,
                "  {:<10} {:>9} {:>9} {:>12} {:>14}",
                provider.name,
                provider.recipients_accepted,
                refusals,
                provider.connections,
                provider.highest_open_connections
            )?;
        }
        Ok(())
    }

    fn write_checks(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = |good: bool| if good { "yes" } else { "NO" };
        writeln!(formatter, "\nChecks:")?;
        writeln!(
            formatter,
            "  every recipient accounted for:                    {}",
            mark(self.unaccounted == 0)
        )?;
        let equal = self.accepted_by_simulator == self.sent;
        writeln!(
            formatter,
            "  providers accepted exactly what counts as sent:   {} ({})",
            mark(equal),
            self.accepted_by_simulator
        )?;
        writeln!(
            formatter,
            "  nobody got a message twice:                       {}",
            mark(self.duplicates == 0)
        )?;
        let signed = self.dkim_verified == self.sent;
        writeln!(
            formatter,
            "  both DKIM signatures of each message verify:      {} ({})",
            mark(signed),
            self.dkim_verified
        )
    }
}
