//! The pacer against providers put together by chance: `random [NUMBER] [FIRST] [yaml]`.
//!
//! One line each, worst first: what is used of what an omniscient sender delivers, what is refused, and how often the
//! provider locked the sender out. With `yaml`, the descriptions of the worst ten follow.

#![allow(clippy::print_stdout)]

mod compositions;

use std::error::Error;

use compositions::{Kind, composition};
use relaypool_pacer_bench::bench::{Bench, Cell};
use relaypool_pacer_bench::judge::Row;
use relaypool_pacer_bench::omniscient;
use relaypool_pacer_bench::scenario::{Scale, Scenario};

const KIND: Kind = Kind {
    seconds: 3_600,
    unlimited_from: None,
    with_broken: true,
    busiest: 150.0,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let number: u64 = arguments.next().map_or(Ok(60), |number| number.parse())?;
    let first: u64 = arguments.next().map_or(Ok(1), |first| first.parse())?;
    let with_yaml = arguments.next().is_some_and(|argument| argument == "yaml");
    let mut bench = Bench::default();
    let mut rows = Vec::new();
    for number in first..first + number {
        let yaml = composition(number, KIND);
        let scenario = Scenario::from_yaml(&yaml)?;
        let cell = Cell {
            scenario: &scenario,
            scale: Scale::Base,
            seed: 1,
        };
        let (possible, _) = bench.row(cell, omniscient::NAME)?;
        let (row, _) = bench.row(cell, "pacer")?;
        rows.push((row, possible, yaml));
    }
    rows.sort_by(|(one, ..), (other, ..)| used(one).total_cmp(&used(other)));
    for (row, possible, _) in &rows {
        println!(
            "{:<10} used {:>6.1} % ({:>6} of {:>6}) refused {:>6} ({:>5.2} %; at best {:>5.2} %) blocks {} cuts {}/{}",
            row.scenario,
            used(row) * 100.0,
            row.accepted,
            row.capacity,
            row.refused,
            row.refused_share * 100.0,
            possible.refused_share * 100.0,
            row.blocks.map_or_else(|| "-".to_owned(), |blocks| blocks.to_string()),
            row.cuts_undone,
            row.cuts,
        );
    }
    let mean = rows.iter().map(|(row, ..)| used(row)).sum::<f64>() / rows.len().max(1) as f64;
    println!("mean {:.1} %", mean * 100.0);
    if with_yaml {
        rows.iter().take(10).for_each(|(_, _, yaml)| println!("\n{yaml}"));
    }
    Ok(())
}

fn used(row: &Row) -> f64 {
    row.utilisation.unwrap_or_default()
}
