//! The results as a table: one line for each scenario, controller and scale.

use std::fmt::{self, Write};

use crate::judge::Row;

/// Formats rows, which are in order, as a table.
pub fn table(rows: &[Row]) -> String {
    let mut text = heading();
    let mut last: Option<&Row> = None;
    for line in rows.chunk_by(|one, other| kind(one) == kind(other)) {
        let Some(first) = line.first() else { continue };
        if last.is_some_and(|last| last.scenario != first.scenario) {
            text.push('\n');
        }
        last = Some(first);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", Line(line));
    }
    text
}

fn kind(row: &Row) -> (&str, &str, &str) {
    (&row.scenario, &row.controller, &row.scale)
}

fn heading() -> String {
    format!(
        "{:<8} {:<27} {:<10} {:>7}  {:>15}  {:>15}  {:>15}  {:>15}  {:>9}  {:>13}  not reached\n\
         {:<8} {:<27} {:<10} {:>7}  {:>15}  {:>15}  {:>15}  {:>15}  {:>9}  {:>13}\n",
        "scenario",
        "controller",
        "scale",
        "pass",
        "refused %",
        "of capacity %",
        "delivered/s",
        "delivered %",
        "blocks",
        "cuts (undone)",
        "",
        "",
        "",
        "",
        "median worst",
        "median worst",
        "median worst",
        "median worst",
        "worst",
        "worst",
    )
}

/// The runs of all seeds.
struct Line<'a>(&'a [Row]);

impl fmt::Display for Line<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.0.first() else {
            return Ok(());
        };
        let passed = self.0.iter().filter(|row| row.pass).count();
        let percent = |value: Option<f64>| value.map(|value| 100.0 * value);
        let most_cuts = self
            .0
            .iter()
            .max_by_key(|row| (row.cuts - row.cuts_undone.min(row.cuts), row.cuts));
        write!(
            formatter,
            "{:<8} {:<27} {:<10} {:>7}  {:>15}  {:>15}  {:>15}  {:>15}  {:>9}  {:>13}  {}",
            first.scenario,
            first.controller,
            first.scale,
            format!("{passed}/{}", self.0.len()),
            self.pair(Worst::Most, |row| percent(Some(row.refused_share))),
            self.pair(Worst::Least, |row| percent(row.utilisation)),
            self.pair(Worst::Least, |row| Some(row.delivered_per_second)),
            self.pair(Worst::Least, |row| percent(row.delivered_share)),
            self.0
                .iter()
                .filter_map(|row| row.blocks)
                .max()
                .map_or("-".to_owned(), |blocks| blocks.to_string()),
            most_cuts.map_or(String::new(), |row| format!("{} ({})", row.cuts, row.cuts_undone)),
            self.misses(),
        )
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Worst {
    Least,
    Most,
}

impl Line<'_> {
    fn pair(&self, worst: Worst, value: impl Fn(&Row) -> Option<f64>) -> String {
        let mut values: Vec<f64> = self.0.iter().filter_map(value).collect();
        values.sort_by(f64::total_cmp);
        if worst == Worst::Most {
            values.reverse();
        }
        let (Some(upper), Some(lower)) = (
            values.get(values.len() / 2),
            values.get(values.len().saturating_sub(1) / 2),
        ) else {
            return "-".to_owned();
        };
        let worst = values.first().unwrap_or(upper);
        format!("{:.2} {worst:>7.2}", f64::midpoint(*upper, *lower))
    }

    /// What the first run that misses something misses, and the ratios where there are any.
    fn misses(&self) -> String {
        let ratios = self
            .0
            .iter()
            .filter_map(|row| Some((row.throughput_ratio?, row.soft_bounce_ratio?)));
        let worst = ratios.reduce(|worst, ratios| (worst.0.min(ratios.0), worst.1.max(ratios.1)));
        let ratios = worst.map(|(throughput, refusals)| {
            format!("[throughput x{throughput:.2}, refusals x{refusals:.3} of those compared with] ")
        });
        let missed = self.0.iter().find(|row| !row.pass);
        let missed = missed.map(|row| match row.missed.as_slice() {
            [] => String::new(),
            [only] => format!("seed {}: {only}", row.seed),
            [first, others @ ..] => format!("seed {}: {first} (and {} more)", row.seed, others.len()),
        });
        ratios.unwrap_or_default() + &missed.unwrap_or_default()
    }
}
