//! `relaypool bench adaptive`: the pacer and other ways to pace mail, against simulated providers in virtual time.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use relaypool_pacer_bench::campaign::{Campaign, Drawn, Results, Scales};
use relaypool_pacer_bench::chart::chart;
use relaypool_pacer_bench::scenario::{self, Scenario};
use relaypool_pacer_bench::table::table;
use relaypool_pacer_bench::{pacer, registry};
use relaypool_shaping::pacer::Part;

/// Arguments of `relaypool bench adaptive`.
#[derive(Args, Clone)]
pub struct Adaptive {
    /// Only these scenarios: names of public ones, or files (.yaml, .yml, .json) with scenarios of your own.
    #[arg(long, value_delimiter = ',', value_name = "NAME|FILE,…")]
    scenario: Vec<String>,
    /// Only these ways to pace mail. Without it, all.
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    controller: Vec<String>,
    /// The pacer with a part left out too, once for each part named, which shows what the part is worth. Without
    /// --controller, beside the whole pacer alone.
    #[arg(long, value_delimiter = ',', value_name = "PART,…", value_parser = PossibleValuesParser::new(Part::ALL.map(Part::name)))]
    without: Vec<String>,
    /// Runs of each scenario: the seeds from 1 to this. Without it 10, or what a scenario file says.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    seeds: Option<u64>,
    /// Sizes and times of the scenarios: as they are written, or half, twice and five times that as well. Without it, the
    /// pacer is run at all of them and the others as they are written.
    #[arg(long)]
    scales: Option<ScaleArgument>,
    /// Folder for the drawings, one for each scenario.
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
    /// Print one JSON list, an entry for each run.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScaleArgument {
    /// As they are written.
    Base,
    /// Everything at half, twice and five times the size and time too.
    All,
}

impl Adaptive {
    /// Plays, prints and draws. Fails when the pacer misses a goal.
    pub fn run(self) -> anyhow::Result<()> {
        let campaign = self.campaign()?;
        let results = campaign.play()?;
        let mut output = std::io::stdout();
        if self.json {
            writeln!(output, "{}", serde_json::to_string_pretty(&results.rows)?)?;
        } else {
            write!(output, "{}", table(&results.rows))?;
        }
        let drawings = self.draw(&campaign.scenarios, &results.drawn)?;
        if !self.json {
            writeln!(output, "\ndrawings: {}", drawings.join(", "))?;
        }
        no_goal_missed(&results)
    }

    fn campaign(&self) -> anyhow::Result<Campaign> {
        let scenarios = if self.scenario.is_empty() {
            scenario::all()
        } else {
            self.scenario.iter().map(|name| named(name)).collect::<Result<_, _>>()?
        };
        for (position, one) in scenarios.iter().enumerate() {
            let twice = scenarios.iter().skip(position + 1).any(|other| other.name == one.name);
            ensure!(!twice, "two scenarios are named '{}': give each its own name", one.name);
        }
        let mut controllers = match (self.controller.is_empty(), self.without.is_empty()) {
            (false, _) => self.controller.clone(),
            (true, true) => registry::names().into_iter().map(ToOwned::to_owned).collect(),
            (true, false) => vec![pacer::NAME.to_owned()],
        };
        let without = Part::ALL
            .into_iter()
            .filter(|part| self.without.iter().any(|name| name == part.name()));
        controllers.extend(without.map(|part| pacer::name_without(part).to_owned()));
        Ok(Campaign {
            scenarios,
            controllers,
            seeds: self.seeds,
            scales: match self.scales {
                None => Scales::AllForPacer,
                Some(ScaleArgument::Base) => Scales::Base,
                Some(ScaleArgument::All) => Scales::All,
            },
        })
    }

    fn draw(&self, scenarios: &[Scenario], drawn: &[Drawn]) -> anyhow::Result<Vec<String>> {
        std::fs::create_dir_all(&self.folder).with_context(|| format!("cannot make {}", self.folder.display()))?;
        let mut paths = Vec::new();
        for scenario in scenarios {
            let runs: Vec<&Drawn> = drawn.iter().filter(|run| run.scenario == scenario.name).collect();
            let name = format!("adaptive-{}.svg", scenario.name.replace(' ', "-"));
            let path = self.folder.join(name);
            std::fs::write(&path, chart(&scenario.name, &runs)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
            paths.push(path.display().to_string());
        }
        Ok(paths)
    }
}

/// A public scenario, or one in a file.
fn named(name: &str) -> anyhow::Result<Scenario> {
    let path = Path::new(name);
    let is_file = path
        .extension()
        .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
    if is_file {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        return Scenario::from_yaml(&text).with_context(|| format!("{name} is no scenario"));
    }
    let known = scenario::all();
    scenario::named(name).with_context(|| {
        let known: Vec<&str> = known.iter().map(|scenario| scenario.name.as_str()).collect();
        format!(
            "there is no scenario '{name}': name one of {}, or a file that ends in .yaml, .yml or .json",
            known.join(", ")
        )
    })
}

fn no_goal_missed(results: &Results) -> anyhow::Result<()> {
    let rows = results.rows.iter().filter(|row| row.controller == pacer::NAME);
    let (passed, missed): (Vec<_>, Vec<_>) = rows.partition(|row| row.pass);
    match missed.first() {
        None => Ok(()),
        Some(row) => bail!(
            "the pacer misses goals in {} of {} runs, first in scenario {} ({}, seed {}): {}",
            missed.len(),
            missed.len() + passed.len(),
            row.scenario,
            row.scale,
            row.seed,
            row.missed.join("; ")
        ),
    }
}
