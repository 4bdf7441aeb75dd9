//! Live progress in a terminal: one bar for all messages, one line for each provider.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use relaypool_api::delivery::Counts;
use relaypool_api::sending_ip::LaneState;

use super::Snapshot;

/// Providers that have a line of their own.
const MOST_LINES: usize = 12;

/// The bars. They draw on standard error, and only when that is a terminal.
pub struct ProgressBars {
    bars: MultiProgress,
    total: ProgressBar,
    providers: BTreeMap<String, ProgressBar>,
}

/// What one provider's line says, over all sending IPs.
#[derive(Default)]
struct Provider {
    sent: u64,
    failed: u64,
    waiting: u64,
    per_second: f64,
    connections: u32,
    suspended: bool,
}

impl ProgressBars {
    /// Empty bars.
    pub fn new() -> Self {
        let bars = MultiProgress::new();
        let total = bars.add(ProgressBar::new(0));
        total.set_style(style("{prefix:<28} {bar:32} {pos}/{len}  {msg}"));
        total.set_prefix("all messages");
        total.enable_steady_tick(Duration::from_millis(250));
        Self {
            bars,
            total,
            providers: BTreeMap::new(),
        }
    }

    /// Shows how everything stands.
    pub fn show(&mut self, snapshot: &Snapshot) {
        let counts = all_counts(snapshot);
        self.total.set_length(counts.total);
        self.total
            .set_position(counts.sent + counts.failed + counts.ignored + counts.canceled);
        self.total.set_message(format!(
            "sent {}  waiting {}  failed {}  ignored {}  {:.0}/s",
            counts.sent,
            counts.pending + counts.taken_into_account,
            counts.failed,
            counts.ignored,
            snapshot.delivery_per_second
        ));
        for (site, provider) in by_site(snapshot) {
            if let Some(line) = self.line(&site) {
                line.set_message(describe(&provider));
            }
        }
    }

    /// Leaves the last state on the screen.
    pub fn finish(&self) {
        self.total.abandon();
        for line in self.providers.values() {
            line.abandon();
        }
    }

    fn line(&mut self, site: &str) -> Option<&ProgressBar> {
        if !self.providers.contains_key(site) {
            if self.providers.len() >= MOST_LINES {
                return None;
            }
            let line = self.bars.add(ProgressBar::new_spinner());
            line.set_style(style("  {prefix:<26} {msg}"));
            line.set_prefix(site.to_owned());
            self.providers.insert(site.to_owned(), line);
        }
        self.providers.get(site)
    }
}

/// Counts over all Deliveries.
pub fn all_counts(snapshot: &Snapshot) -> Counts {
    let counts = snapshot
        .deliveries
        .iter()
        .filter_map(|delivery| delivery.status.as_ref()?.counts);
    counts.fold(Counts::default(), |sum, one| Counts {
        total: sum.total + one.total,
        pending: sum.pending + one.pending,
        taken_into_account: sum.taken_into_account + one.taken_into_account,
        sent: sum.sent + one.sent,
        failed: sum.failed + one.failed,
        ignored: sum.ignored + one.ignored,
        canceled: sum.canceled + one.canceled,
    })
}

fn by_site(snapshot: &Snapshot) -> BTreeMap<String, Provider> {
    let mut sites: BTreeMap<String, Provider> = BTreeMap::new();
    for lane in &snapshot.lanes {
        let provider = sites.entry(lane.site.site.clone()).or_default();
        provider.sent += lane.sent;
        provider.failed += lane.failed;
        provider.waiting += u64::try_from(lane.site.queued).unwrap_or(0);
        provider.per_second += lane.site.delivered_per_second;
        provider.connections += lane.site.connections;
        provider.suspended |= lane.site.state == LaneState::Suspended;
    }
    sites
}

fn describe(provider: &Provider) -> String {
    format!(
        "sent {:>6}  waiting {:>6}  failed {:>5}  {:>5.0}/s  {:>3} connections{}",
        provider.sent,
        provider.waiting,
        provider.failed,
        provider.per_second,
        provider.connections,
        if provider.suspended {
            "  paused by the provider"
        } else {
            ""
        }
    )
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is fixed and valid")
}
