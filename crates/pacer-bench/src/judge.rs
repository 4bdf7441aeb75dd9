//! What a run is worth.

use std::ops::Range;

use serde::Serialize;

use crate::bench::Cell;
use crate::run::{Day, Outcome, Plan, Tally};
use crate::scenario::{Demand, Scale, Share};

/// What was measured in a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    tally: Tally,
    elapsed_seconds: f64,
    messages: Option<u64>,
    cuts: u64,
    cuts_undone: u64,
    whole_days: Range<usize>,
}

/// A run and its figures. What does not apply is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The scenario's name.
    pub scenario: String,
    /// The controller's name.
    pub controller: String,
    /// The seed.
    pub seed: u64,
    /// The scale: `base`, `sizes x0.5`, `times x5`, …
    pub scale: String,
    /// Refused attempts as a share of all with an outcome.
    pub refused_share: f64,
    /// Deliveries as a share of what an omniscient sender delivers.
    pub utilisation: Option<f64>,
    /// Deliveries a second.
    pub delivered_per_second: f64,
    /// Share of a finite list that was delivered: by the deadline where there is one.
    pub delivered_share: Option<f64>,
    /// How often the provider locked the sender out; none where no provider does such a thing.
    pub blocks: Option<u64>,
    /// Deliveries as a multiple of those of the controller compared with.
    pub throughput_ratio: Option<f64>,
    /// Refusals as a fraction of those of the controller compared with.
    pub soft_bounce_ratio: Option<f64>,
    /// What the controller compared with delivered.
    pub compared_accepted: Option<u64>,
    /// How often it was refused.
    pub compared_refused: Option<u64>,
    /// Refusals per message delivered.
    pub refusals_per_delivered: Option<f64>,
    /// Every goal of the scenario is reached.
    pub pass: bool,
    /// The goals that are not, in words.
    pub missed: Vec<String>,
    /// Attempts started.
    pub attempts: u64,
    /// Attempts accepted.
    pub accepted: u64,
    /// Attempts refused.
    pub refused: u64,
    /// What an omniscient sender delivers in such a run.
    pub capacity: u64,
    /// How long the run took.
    pub duration_seconds: f64,
    /// How many messages there were, where their number has an end.
    pub messages: Option<u64>,
    /// Messages delivered by the deadline, where there is one.
    pub delivered_by_deadline: Option<u64>,
    /// How often limits were lowered because of refusals.
    pub cuts: u64,
    /// How many of these cuts were taken back.
    pub cuts_undone: u64,
    /// Whole days of the provider, where goals count days.
    pub days: Vec<DayRow>,
}

/// A day of the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DayRow {
    /// Attempts accepted.
    pub accepted: u64,
    /// Attempts refused.
    pub refused: u64,
    /// False for the one in which the run starts, if it does not start at midnight.
    pub whole: bool,
}

impl Measured {
    /// The figures of a run.
    pub fn of(plan: &Plan, outcome: &Outcome) -> Self {
        let days = plan.lanes.first().map(|lane| lane.days);
        let first_whole = usize::from(days.is_some_and(|days| !days.starts_at_midnight()));
        let end = days.map_or(0, |days| days.number(plan.duration));
        Self {
            tally: outcome.total(),
            elapsed_seconds: outcome.elapsed.as_secs_f64(),
            messages: plan.messages(),
            cuts: outcome.lanes.iter().map(|lane| lane.view.cuts).sum(),
            cuts_undone: outcome.lanes.iter().map(|lane| lane.view.cuts_undone).sum(),
            whole_days: first_whole..usize::try_from(end).unwrap_or_default(),
        }
    }

    fn per_second(&self) -> f64 {
        ratio(self.tally.accepted as f64, self.elapsed_seconds).unwrap_or_default()
    }

    fn day(&self, number: usize) -> Day {
        self.tally.days.get(number).copied().unwrap_or_default()
    }

    fn least_of_a_day(&self) -> u64 {
        let days = self.whole_days.clone().map(|number| self.day(number).accepted);
        days.min().unwrap_or_default()
    }
}

/// The row of a run, beside what an omniscient sender does with the same mail (and with the mail of the scenario as it is
/// written), and what the controller does that it is to be compared with.
pub(crate) fn judge(
    cell: Cell<'_>,
    controller: &str,
    run: &Measured,
    capacity: &Measured,
    base_capacity: &Measured,
    rival: Option<&Measured>,
) -> Row {
    let scaled = cell.scale.of(cell.scenario);
    let utilisation = match scaled.demand {
        // The run is as long as the controller makes it.
        Demand::Deliveries(_) => ratio(run.per_second(), capacity.per_second()),
        Demand::Messages(_) => None,
        _ => ratio(run.tally.accepted as f64, capacity.tally.accepted as f64),
    };
    let has_deadline = scaled.goals.min_delivered.is_some();
    let delivered = if has_deadline {
        run.tally.accepted_by_deadline
    } else {
        run.tally.accepted
    };
    let mut row = Row {
        scenario: cell.scenario.name.clone(),
        controller: controller.to_owned(),
        seed: cell.seed,
        scale: cell.scale.to_string(),
        refused_share: run.tally.refused_share(),
        utilisation,
        delivered_per_second: run.per_second(),
        delivered_share: run
            .messages
            .and_then(|messages| ratio(delivered as f64, messages as f64)),
        blocks: scaled.has_blocks().then_some(run.tally.blocks),
        throughput_ratio: rival.and_then(|rival| ratio(run.tally.accepted as f64, rival.tally.accepted as f64)),
        soft_bounce_ratio: rival.and_then(|rival| ratio(run.tally.refused as f64, rival.tally.refused as f64)),
        compared_accepted: rival.map(|rival| rival.tally.accepted),
        compared_refused: rival.map(|rival| rival.tally.refused),
        refusals_per_delivered: ratio(run.tally.refused as f64, run.tally.accepted as f64),
        pass: false,
        missed: Vec::new(),
        attempts: run.tally.attempts,
        accepted: run.tally.accepted,
        refused: run.tally.refused,
        capacity: capacity.tally.accepted,
        duration_seconds: run.elapsed_seconds,
        messages: run.messages,
        delivered_by_deadline: has_deadline.then_some(delivered),
        cuts: run.cuts,
        cuts_undone: run.cuts_undone,
        days: days(cell, run),
    };
    row.missed = missed(cell, &row, run, capacity, base_capacity);
    row.pass = row.missed.is_empty();
    row
}

fn days(cell: Cell<'_>, run: &Measured) -> Vec<DayRow> {
    let goals = &cell.scenario.goals;
    if goals.min_delivered_per_day.is_none() && goals.max_refusals_per_day.is_none() {
        return Vec::new();
    }
    (0..run.whole_days.end)
        .map(|number| DayRow {
            accepted: run.day(number).accepted,
            refused: run.day(number).refused,
            whole: run.whole_days.contains(&number),
        })
        .collect()
}

/// The goals that the run does not reach.
fn missed(cell: Cell<'_>, row: &Row, run: &Measured, capacity: &Measured, base_capacity: &Measured) -> Vec<String> {
    let scaled = cell.scale.of(cell.scenario);
    let goals = scaled.goals;
    let mut missed = Vec::new();
    let mut check = |what: &str, value: Option<f64>, least: Option<f64>, most: Option<f64>| {
        let Some(value) = value else { return };
        if let Some(least) = least.filter(|least| value < *least) {
            missed.push(format!("{what} {value:.4} < {least:.4}"));
        }
        if let Some(most) = most.filter(|most| value > *most) {
            missed.push(format!("{what} {value:.4} > {most:.4}"));
        }
    };
    let by_capacity = |goal: f64, base: f64, scaled: f64| shortfall(cell.scale, goal, base, scaled);
    let speed = goals
        .min_delivered_per_second
        .map(|goal| by_capacity(goal, base_capacity.per_second(), capacity.per_second()));
    // The limits of the others do not grow with the scenario: against them only the row as it is written counts.
    let against = goals.against.as_ref().filter(|_| cell.scale == Scale::Base);
    check(
        "refused share",
        Some(row.refused_share),
        None,
        goals.max_refused_share.map(Share::get),
    );
    check(
        "utilisation",
        row.utilisation,
        goals.min_utilisation.map(Share::get),
        None,
    );
    check("delivered a second", Some(row.delivered_per_second), speed, None);
    check(
        "delivered share",
        row.delivered_share,
        goals.min_delivered.map(|goal| goal.share.get()),
        None,
    );
    check(
        "blocks",
        Some(run.tally.blocks as f64),
        None,
        goals.max_blocks.map(|most| most as f64),
    );
    check(
        "cuts",
        Some(run.cuts as f64),
        None,
        goals.max_cuts.map(|most| most as f64),
    );
    let all_cuts = goals.every_cut_undone.then_some(run.cuts as f64);
    check("cuts undone", Some(run.cuts_undone as f64), all_cuts, None);
    // As counts, which are there even where a ratio to nothing is not.
    let compared = |ratio: Option<f64>, with: Option<u64>| Some(ratio? * with? as f64);
    let throughput = compared(
        against.map(|against| against.min_throughput_ratio),
        row.compared_accepted,
    );
    check(
        "accepted, beside the other",
        Some(row.accepted as f64),
        throughput,
        None,
    );
    let refusals = compared(
        against.map(|against| against.max_soft_bounce_ratio),
        row.compared_refused,
    );
    check("refused, beside the other", Some(row.refused as f64), None, refusals);
    let per_day = goals.min_delivered_per_day.map(|goal| {
        let (base, scaled) = (base_capacity.least_of_a_day(), capacity.least_of_a_day());
        by_capacity(goal as f64, base as f64, scaled as f64)
    });
    for number in 0..run.whole_days.end {
        let day = run.day(number);
        let delivered = run.whole_days.contains(&number).then_some(day.accepted as f64);
        check(&format!("day {number} delivered"), delivered, per_day, None);
        let refusals = goals.max_refusals_per_day.map(|most| most as f64);
        check(
            &format!("day {number} refusals"),
            Some(day.refused as f64),
            None,
            refusals,
        );
    }
    missed
}

/// The goal of a scaled row where the goal is an amount: its distance from that row's capacity, as a share, is the base
/// row's, widened.
fn shortfall(scale: Scale, goal: f64, base_capacity: f64, capacity: f64) -> f64 {
    match scale {
        Scale::Base => goal,
        Scale::Sizes(_) | Scale::Times(_) => {
            let missing = ratio(goal, base_capacity).map_or(0.0, |share| (1.0 - share).max(0.0));
            capacity * (1.0 - scale.slack() * missing).max(0.0)
        }
    }
}

fn ratio(value: f64, of: f64) -> Option<f64> {
    (of > 0.0).then(|| value / of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Scenario, named};

    fn measured(accepted: u64, refused: u64) -> Measured {
        Measured {
            tally: Tally {
                accepted,
                refused,
                ..Tally::default()
            },
            elapsed_seconds: 3_600.0,
            messages: None,
            cuts: 0,
            cuts_undone: 0,
            whole_days: 0..0,
        }
    }

    fn judged(scenario: &Scenario, scale: Scale, run: &Measured, capacity: &Measured, rival: &Measured) -> Row {
        let cell = Cell {
            scenario,
            scale,
            seed: 1,
        };
        judge(cell, "pacer", run, capacity, &measured(70_800, 0), Some(rival))
    }

    #[test]
    fn each_goal_that_is_missed_is_named() {
        let scenario = named("H").unwrap();
        let (capacity, rival) = (measured(60_000, 0), measured(12_000, 20_000));
        let row = |accepted, refused| judged(&scenario, Scale::Base, &measured(accepted, refused), &capacity, &rival);
        assert!(row(51_000, 2_000).pass);
        assert_eq!(row(50_000, 1_000).missed, ["utilisation 0.8333 < 0.8500"]);
        let bad = row(47_000, 2_001);
        assert_eq!(bad.missed.len(), 3, "{:?}", bad.missed);
        assert_eq!(
            (bad.compared_accepted, bad.compared_refused),
            (Some(12_000), Some(20_000))
        );
        let scaled = judged(
            &scenario,
            Scale::Sizes(5.0),
            &measured(47_000, 9_000),
            &capacity,
            &rival,
        );
        assert!(scaled.pass, "the others are not scaled: {:?}", scaled.missed);
    }

    #[test]
    fn a_speed_is_scaled_by_its_distance_from_the_capacity() {
        // 18 of 19.67 a second is a shortfall of 8.5 %, so 12.7 % at another size.
        let scenario = named("D").unwrap();
        let row = |scale, accepted| {
            judged(
                &scenario,
                scale,
                &measured(accepted, 0),
                &measured(354_000, 0),
                &measured(1, 1),
            )
            .pass
        };
        assert!(row(Scale::Base, 64_800) && !row(Scale::Base, 64_700));
        let least = 354_000.0 * (1.0 - 1.5 * (1.0 - 64_800.0 / 70_800.0));
        assert!(row(Scale::Sizes(5.0), least as u64 + 1));
        assert!(!row(Scale::Sizes(5.0), least as u64 - 1));
    }

    #[test]
    fn whole_days_are_judged_by_deliveries_and_all_by_refusals() {
        let scenario = named("G").unwrap();
        let judged_days = |days: [(u64, u64); 3]| {
            let mut run = measured(9_900, 0);
            run.tally.days = days.map(|(accepted, refused)| Day { accepted, refused }).to_vec();
            run.whole_days = 1..3;
            judged(&scenario, Scale::Base, &run, &run, &measured(1, 1))
        };
        let row = judged_days([(10, 40), (4_900, 0), (5_000, 40)]);
        assert!(row.pass, "{:?}", row.missed);
        assert_eq!(row.days.iter().filter(|day| day.whole).count(), 2);
        assert_eq!(judged_days([(10, 41), (4_899, 0), (5_000, 0)]).missed.len(), 2);
    }

    #[test]
    fn a_list_without_an_end_has_no_delivered_share() {
        let row = judged(
            &named("C").unwrap(),
            Scale::Base,
            &measured(36_000, 0),
            &measured(36_000, 0),
            &measured(0, 0),
        );
        assert_eq!((row.delivered_share, row.blocks), (None, Some(0)));
        assert_eq!(row.throughput_ratio, None, "nothing is no measure");
    }
}
