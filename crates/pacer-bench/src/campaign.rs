//! Many runs: scenarios × controllers × scales × seeds, on all processors.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::bench::{Bench, Cell, UnknownController};
use crate::judge::Row;
use crate::omniscient;
use crate::pacer;
use crate::registry;
use crate::run::LaneOutcome;
use crate::scenario::{Scale, Scenario};

/// How many seeds are played where nobody says.
pub const DEFAULT_SEEDS: u64 = 10;

/// The seed of the runs that are drawn.
pub const DRAWN_SEED: u64 = 1;

/// What is to be played.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The scenarios.
    pub scenarios: Vec<Scenario>,
    /// The names of the controllers.
    pub controllers: Vec<String>,
    /// Seeds, from 1; none for what each scenario says.
    pub seeds: Option<u64>,
    /// At which scales.
    pub scales: Scales,
}

/// At which scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scales {
    /// As the scenarios are written.
    Base,
    /// At all.
    All,
    /// The pacer at all, the others as the scenarios are written.
    AllForPacer,
}

/// Everything that was played.
#[derive(Debug, Default)]
pub struct Results {
    /// In the order of the campaign: scenario, controller, scale, seed.
    pub rows: Vec<Row>,
    /// The runs that are drawn.
    pub drawn: Vec<Drawn>,
}

/// A run that is drawn.
#[derive(Debug)]
pub struct Drawn {
    /// The scenario's name.
    pub scenario: String,
    /// The controller's name.
    pub controller: String,
    /// The providers' names, and how it went with each.
    pub lanes: Vec<(String, LaneOutcome)>,
}

/// The runs of one scenario with one seed. They share what they are compared with.
type Job<'a> = (usize, &'a Scenario, u64);

impl Campaign {
    /// Plays all of it.
    ///
    /// # Errors
    ///
    /// When a controller is not known.
    pub fn play(&self) -> Result<Results, UnknownController> {
        if let Some(unknown) = self.controllers.iter().find(|name| !registry::is_known(name)) {
            return Err(UnknownController(unknown.clone()));
        }
        let jobs: Vec<Job<'_>> = self.jobs().collect();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                done.push((job.0, self.play_job(*job)?));
            }
            Ok(done)
        };
        let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let done = thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let done = workers
                .into_iter()
                .map(|worker| worker.join().expect("a worker does not panic"));
            done.collect::<Result<Vec<_>, UnknownController>>()
        })?;
        Ok(self.in_order(done.into_iter().flatten().collect()))
    }

    fn jobs(&self) -> impl Iterator<Item = Job<'_>> {
        self.scenarios.iter().enumerate().flat_map(|(position, scenario)| {
            let seeds = self.seeds.or(scenario.seeds).unwrap_or(DEFAULT_SEEDS);
            (1..=seeds).map(move |seed| (position, scenario, seed))
        })
    }

    fn play_job(&self, (_, scenario, seed): Job<'_>) -> Result<Results, UnknownController> {
        let (mut bench, mut results) = (Bench::default(), Results::default());
        for controller in &self.controllers {
            for &scale in self.scales.of(controller) {
                let cell = Cell { scenario, scale, seed };
                let (row, outcome) = bench.row(cell, controller)?;
                results.rows.push(row);
                if scale == Scale::Base && seed == DRAWN_SEED {
                    results.drawn.push(Drawn::new(scenario, controller, outcome.lanes));
                }
            }
        }
        if seed == DRAWN_SEED && !self.controllers.iter().any(|name| name == omniscient::NAME) {
            let cell = Cell {
                scenario,
                scale: Scale::Base,
                seed,
            };
            let (_, outcome) = bench.row(cell, omniscient::NAME)?;
            results
                .drawn
                .push(Drawn::new(scenario, omniscient::NAME, outcome.lanes));
        }
        Ok(results)
    }

    fn in_order(&self, done: Vec<(usize, Results)>) -> Results {
        let mut rows: Vec<(usize, Row)> = Vec::new();
        let mut drawn: Vec<(usize, Drawn)> = Vec::new();
        for (position, results) in done {
            rows.extend(results.rows.into_iter().map(|row| (position, row)));
            drawn.extend(results.drawn.into_iter().map(|run| (position, run)));
        }
        let controller = |name: &str| self.controllers.iter().position(|known| known == name);
        let scale = |name: &str| Scale::ALL.iter().position(|scale| scale.to_string() == name);
        rows.sort_by_key(|(position, row)| (*position, controller(&row.controller), scale(&row.scale), row.seed));
        drawn.sort_by_key(|(position, _)| *position);
        Results {
            rows: rows.into_iter().map(|(_, row)| row).collect(),
            drawn: drawn.into_iter().map(|(_, run)| run).collect(),
        }
    }
}

impl Scales {
    fn of(self, controller: &str) -> &'static [Scale] {
        match self {
            Self::All => &Scale::ALL,
            Self::AllForPacer if controller == pacer::NAME => &Scale::ALL,
            Self::Base | Self::AllForPacer => &[Scale::Base],
        }
    }
}

impl Drawn {
    fn new(scenario: &Scenario, controller: &str, lanes: Vec<LaneOutcome>) -> Self {
        let names = scenario.parts().into_iter().map(|(_, receiver)| receiver.name.clone());
        Self {
            scenario: scenario.name.clone(),
            controller: controller.to_owned(),
            lanes: names.zip(lanes).collect(),
        }
    }
}
