//! Scenario × controller × seed × scale, played and judged.

use std::collections::HashMap;

use crate::judge::{Measured, Row, judge};
use crate::omniscient;
use crate::registry::{self, Brief};
use crate::run::{Outcome, Plan, play};
use crate::scenario::{Scale, Scenario};

/// What is played.
#[derive(Debug, Clone, Copy)]
pub struct Cell<'a> {
    /// Who receives what.
    pub scenario: &'a Scenario,
    /// How large and fast.
    pub scale: Scale,
    /// Decides all chance.
    pub seed: u64,
}

/// A name that no controller has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no controller '{0}'; there are {known}", known = registry::names().join(", "))]
pub struct UnknownController(pub String);

/// Plays runs, and remembers what others are compared with.
#[derive(Debug, Default)]
pub struct Bench {
    measured: HashMap<(String, String, String, u64), Measured>,
}

impl Bench {
    /// Plays one cell with the controller of this name, and judges it.
    ///
    /// # Errors
    ///
    /// When there is no such controller.
    pub fn row(&mut self, cell: Cell<'_>, controller: &str) -> Result<(Row, Outcome), UnknownController> {
        let plan = Plan::new(cell.scenario, cell.scale, cell.seed);
        let outcome = run(&plan, controller)?;
        let measured = Measured::of(&plan, &outcome);
        self.measured.insert(key(cell, controller), measured.clone());
        let capacity = self.measured(cell, omniscient::NAME)?;
        let base = Cell {
            scale: Scale::Base,
            ..cell
        };
        let base_capacity = self.measured(base, omniscient::NAME)?;
        let rival = match &cell.scenario.goals.against {
            Some(against) => Some(self.measured(cell, &against.controller)?),
            None => None,
        };
        let row = judge(cell, controller, &measured, &capacity, &base_capacity, rival.as_ref());
        Ok((row, outcome))
    }

    fn measured(&mut self, cell: Cell<'_>, controller: &str) -> Result<Measured, UnknownController> {
        let key = key(cell, controller);
        if let Some(measured) = self.measured.get(&key) {
            return Ok(measured.clone());
        }
        let plan = Plan::new(cell.scenario, cell.scale, cell.seed);
        let measured = Measured::of(&plan, &run(&plan, controller)?);
        self.measured.insert(key, measured.clone());
        Ok(measured)
    }
}

fn key(cell: Cell<'_>, controller: &str) -> (String, String, String, u64) {
    let scenario = cell.scenario.name.clone();
    (scenario, cell.scale.to_string(), controller.to_owned(), cell.seed)
}

/// Plays `plan` with controllers of this name.
///
/// # Errors
///
/// When there is no such controller.
pub fn run(plan: &Plan, controller: &str) -> Result<Outcome, UnknownController> {
    let controllers = plan.lanes.iter().map(|lane| {
        let brief = Brief {
            window_cap: lane.window_cap,
            provider: &lane.provider,
            seed: plan.seed,
        };
        registry::controller(controller, brief).ok_or_else(|| UnknownController(controller.to_owned()))
    });
    Ok(play(plan, controllers.collect::<Result<_, _>>()?))
}
