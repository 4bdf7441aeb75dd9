//! Raw figures, one line a run: `run [SCENARIO,…] [SEEDS] [SCALE,…|all] [CONTROLLER]`.
//!
//! A scale is `base`, `s0.5`, `s2`, `s5`, `t0.5`, `t2` or `t5`.

#![allow(clippy::print_stdout)]

use std::error::Error;

use relaypool_pacer_bench::bench::{Bench, Cell};
use relaypool_pacer_bench::judge::Row;
use relaypool_pacer_bench::scenario::{Scale, all, named};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let scenarios = match arguments.next() {
        None => all(),
        Some(names) if names == "all" => all(),
        Some(names) => names
            .split(',')
            .map(|name| named(name).ok_or_else(|| format!("no scenario '{name}'")))
            .collect::<Result<_, _>>()?,
    };
    let seeds = arguments.next().map_or(Ok(10), |seeds| seeds.parse())?;
    let scales = scales(&arguments.next().unwrap_or_else(|| "base".to_owned()))?;
    let controller = arguments.next().unwrap_or_else(|| "pacer".to_owned());
    let mut bench = Bench::default();
    for mut scenario in scenarios {
        if controller == "omniscient" {
            scenario.goals.against = None;
        }
        for &scale in &scales {
            for seed in 1..=seeds {
                let cell = Cell {
                    scenario: &scenario,
                    scale,
                    seed,
                };
                let (row, _) = bench.row(cell, &controller)?;
                println!("{}", line(&row));
            }
        }
    }
    Ok(())
}

fn scales(text: &str) -> Result<Vec<Scale>, Box<dyn Error>> {
    if text == "all" {
        return Ok(Scale::ALL.to_vec());
    }
    text.split(',')
        .map(|scale| match scale.split_at_checked(1) {
            _ if scale == "base" => Ok(Scale::Base),
            Some(("s", factor)) => Ok(Scale::Sizes(factor.parse()?)),
            Some(("t", factor)) => Ok(Scale::Times(factor.parse()?)),
            _ => Err(format!("no scale '{scale}'").into()),
        })
        .collect()
}

fn line(row: &Row) -> String {
    let days: Vec<String> = row
        .days
        .iter()
        .map(|day| format!("{}-{}", day.accepted, day.refused))
        .collect();
    format!(
        "{:<3} {:<10} seed {:<3} {} refused {:>6} ({:5.2} %) accepted {:>6} of {:>6} ({:>5.1} %) {:6.2}/s in {:>6.0} s{}{}{}{}  {}",
        row.scenario,
        row.scale,
        row.seed,
        if row.pass { "pass" } else { "FAIL" },
        row.refused,
        row.refused_share * 100.0,
        row.accepted,
        row.capacity,
        row.utilisation.unwrap_or(f64::NAN) * 100.0,
        row.delivered_per_second,
        row.duration_seconds,
        row.blocks.map_or(String::new(), |blocks| format!(" blocks {blocks}")),
        row.delivered_by_deadline
            .map_or(String::new(), |delivered| format!(" in time {delivered}")),
        format_args!(" cuts {}/{}", row.cuts_undone, row.cuts),
        if days.is_empty() {
            String::new()
        } else {
            format!(" days {}", days.join(" "))
        },
        row.missed.join("; "),
    )
}
