//! One drawing for each scenario: what was delivered, how many connections were allowed, what was refused.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::campaign::Drawn;
use crate::run::Sample;
use crate::{omniscient, pacer};

const SIZE: (u32, u32) = (1_200, 1_000);
/// Room beside each panel for what its lines are.
const LEGEND: u32 = 210;
const PANELS: usize = 3;
const FONT: &str = "sans-serif";

/// Of the lines beside the pacer's and the capacity's.
const COLOURS: [RGBColor; 8] = [
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(180, 170, 30),
];
const PACER: RGBColor = RGBColor(0, 60, 200);
const CAPACITY: RGBColor = RGBColor(130, 130, 130);

/// A drawing could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw the runs of scenario '{scenario}': {problem}")]
pub struct ChartError {
    scenario: String,
    problem: String,
}

/// One line of a panel.
#[derive(Debug)]
struct Line {
    label: String,
    style: ShapeStyle,
    points: Vec<(f64, f64)>,
}

/// One of the drawings under one another.
struct Panel {
    title: &'static str,
    lines: Vec<Line>,
    /// Powers of ten are at even distances.
    logarithmic: bool,
}

/// Draws the runs of one scenario, as SVG.
///
/// # Errors
///
/// When the drawing library fails, which it has no reason to.
pub fn chart(scenario: &str, runs: &[&Drawn]) -> Result<String, ChartError> {
    let mut text = String::new();
    draw(scenario, runs, &mut text).map_err(|problem| ChartError {
        scenario: scenario.to_owned(),
        problem: problem.to_string(),
    })?;
    Ok(text)
}

type Drawing<T> = Result<T, Box<dyn std::error::Error>>;

fn draw(scenario: &str, runs: &[&Drawn], text: &mut String) -> Drawing<()> {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let heading = format!("Scenario {scenario}, seed {}", crate::campaign::DRAWN_SEED);
    let body = root.titled(&heading, (FONT, 26))?;
    // The pacer is drawn on top.
    let mut runs: Vec<(&Drawn, ShapeStyle)> = runs.iter().copied().zip(styles(runs)).collect();
    runs.sort_by_key(|(run, _)| run.controller == pacer::NAME);
    let (unit, name) = time_unit(&runs);
    let panels = [
        Panel {
            title: "delivered, messages a second",
            lines: delivered(&runs, unit),
            logarithmic: false,
        },
        Panel {
            title: "connections allowed",
            lines: windows(&runs, unit),
            logarithmic: false,
        },
        Panel {
            title: "refusals so far, plus one",
            lines: refusals(&runs, unit),
            logarithmic: true,
        },
    ];
    for (area, panel) in body.split_evenly((PANELS, 1)).iter().zip(&panels) {
        panel.draw(area, name)?;
    }
    root.present()?;
    Ok(())
}

fn styles(runs: &[&Drawn]) -> Vec<ShapeStyle> {
    let mut colours = COLOURS.iter().cycle();
    let style = |run: &&Drawn| match run.controller.as_str() {
        pacer::NAME => PACER.stroke_width(3),
        omniscient::NAME => CAPACITY.stroke_width(3),
        _ => colours.next().unwrap_or(&BLACK).stroke_width(1),
    };
    runs.iter().map(style).collect()
}

/// Seconds of the unit of the time axis, and its name.
fn time_unit(runs: &[(&Drawn, ShapeStyle)]) -> (f64, &'static str) {
    let ends = runs
        .iter()
        .flat_map(|(run, _)| samples(run).last().map(|sample| sample.at));
    match ends.max().unwrap_or_default().as_secs() {
        ..=600 => (1.0, "seconds"),
        601..=18_000 => (60.0, "minutes"),
        _ => (3_600.0, "hours"),
    }
}

/// The samples of all lanes together; the view is the first lane's.
fn samples(run: &Drawn) -> Vec<Sample> {
    let mut lanes = run.lanes.iter().map(|(_, lane)| &lane.timeline.samples);
    let mut sum = lanes.next().cloned().unwrap_or_default();
    for lane in lanes {
        if sum.len() < lane.len() {
            sum.extend_from_slice(&lane[sum.len()..]);
        }
        for (sum, sample) in sum.iter_mut().zip(lane) {
            sum.accepted += sample.accepted;
            sum.refused += sample.refused;
        }
    }
    sum
}

fn line(label: &str, style: ShapeStyle, points: impl Iterator<Item = (f64, f64)>) -> Line {
    Line {
        label: label.to_owned(),
        style,
        points: points.collect(),
    }
}

fn delivered(runs: &[(&Drawn, ShapeStyle)], unit: f64) -> Vec<Line> {
    let mut lines: Vec<Line> = runs
        .iter()
        .map(|(run, style)| {
            let step = run
                .lanes
                .first()
                .map_or(1.0, |(_, lane)| lane.timeline.step.as_secs_f64());
            let points = samples(run)
                .into_iter()
                .map(|sample| (sample.at.as_secs_f64() / unit, sample.accepted as f64 / step));
            line(&run.controller, *style, points)
        })
        .collect();
    for (run, style) in runs.iter().filter(|(run, _)| run.controller == pacer::NAME) {
        for (name, lane) in &run.lanes {
            let rates = lane.timeline.samples.iter().filter_map(|sample| {
                let rate = sample.view.rate.filter(|rate| rate.is_finite())?;
                Some((sample.at.as_secs_f64() / unit, rate))
            });
            let points: Vec<_> = rates.collect();
            if !points.is_empty() {
                let label = format!("pacer: rate to {name}");
                lines.push(line(&label, style.color.stroke_width(1), points.into_iter()));
            }
        }
    }
    lines
}

/// The pacer's lanes one by one, or every controller where there is one lane.
fn windows(runs: &[(&Drawn, ShapeStyle)], unit: f64) -> Vec<Line> {
    let mut lines = Vec::new();
    for (run, style) in runs {
        let is_mix = run.lanes.len() > 1;
        if is_mix && run.controller != pacer::NAME {
            continue;
        }
        for ((name, lane), colour) in run.lanes.iter().zip(COLOURS.iter().cycle()) {
            let points = lane.timeline.samples.iter().map(|sample| {
                let view = sample.view;
                let window = if view.is_suspended { 0.0 } else { view.window };
                (sample.at.as_secs_f64() / unit, window)
            });
            lines.push(if is_mix {
                line(
                    &format!("{}: to {name}", run.controller),
                    colour.stroke_width(2),
                    points,
                )
            } else {
                line(&run.controller, *style, points)
            });
        }
    }
    lines
}

fn refusals(runs: &[(&Drawn, ShapeStyle)], unit: f64) -> Vec<Line> {
    let line_of = |(run, style): &(&Drawn, ShapeStyle)| {
        let mut so_far = 1;
        let points = samples(run).into_iter().map(move |sample| {
            so_far += sample.refused;
            (sample.at.as_secs_f64() / unit, so_far as f64)
        });
        line(&run.controller, *style, points)
    };
    runs.iter().map(line_of).collect()
}

impl Panel {
    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>, time: &str) -> Drawing<()> {
        let (area, beside) = area.split_horizontally(SIZE.0 - LEGEND);
        self.legend(&beside)?;
        let end = |of: fn(&(f64, f64)) -> f64| {
            let values = self.lines.iter().flat_map(|line| &line.points).map(of);
            values.filter(|value| value.is_finite()).fold(0.0, f64::max)
        };
        let (width, height) = (end(|point| point.0).max(1e-3), end(|point| point.1));
        let mut builder = ChartBuilder::on(&area);
        builder
            .margin(10)
            .margin_right(20)
            .x_label_area_size(34)
            .y_label_area_size(64)
            .caption(self.title, (FONT, 18));
        if self.logarithmic {
            let chart = builder.build_cartesian_2d(0.0..width, (1.0..height.max(10.0) * 1.5).log_scale())?;
            self.fill(chart, time)
        } else {
            let heights: Range<f64> = 0.0..height.max(1.0) * 1.08;
            let chart = builder.build_cartesian_2d(0.0..width, heights)?;
            self.fill(chart, time)
        }
    }

    /// What each line is, the pacer first.
    fn legend(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Drawing<()> {
        let mut y = 50;
        for line in self.lines.iter().rev() {
            area.draw(&PathElement::new([(0, y), (22, y)], line.style))?;
            area.draw(&Text::new(line.label.as_str(), (28, y - 7), (FONT, 13)))?;
            y += 20;
        }
        Ok(())
    }

    fn fill<'a, 'b: 'a, Y>(
        &self,
        mut chart: ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, Y>>,
        time: &str,
    ) -> Drawing<()>
    where
        Y: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
    {
        chart
            .configure_mesh()
            .x_desc(time)
            .light_line_style(WHITE)
            .label_style((FONT, 13))
            .x_label_formatter(&|value| short(*value))
            .y_label_formatter(&|value| short(*value))
            .draw()?;
        for line in &self.lines {
            chart.draw_series(LineSeries::new(line.points.iter().copied(), line.style))?;
        }
        Ok(())
    }
}

/// A number with no more digits than it needs.
fn short(value: f64) -> String {
    let rounded = (value * 100.0).round() / 100.0;
    format!("{rounded}")
}
