//! Results of several runs against a numeric setting, such as the ratio: a curve for each
//! combination of the other settings.

use std::collections::BTreeMap;

use super::block::{Block, Chart, Marks, Section, Series};
use super::groups::{Group, Groups, last_word};
use super::statistics::Interval;

/// The fewest values that make a curve.
const FEWEST_VALUES: usize = 3;
/// The most curves in one chart.
const MOST_CURVES: usize = 8;

/// The drawn value of a group: the chart's title, its axis, a value to compare with, and the mean
/// over the group's runs.
pub struct Measure<'a> {
    /// The chart's title.
    pub title: &'static str,
    /// The title of the vertical axis.
    pub axis: &'static str,
    /// A value to compare with.
    pub rule: Option<f64>,
    /// The mean of a group; none where its runs have none.
    pub of: &'a dyn Fn(&Group) -> Option<Interval>,
}

/// The section; `None` where no setting has enough numbers.
pub fn section(groups: &Groups, measures: &[Measure]) -> Option<Section> {
    let lead = "After the last iteration, against the settings that are numbers. Bands: 95 % bootstrap intervals over the runs of a group, of a single run over its prompts.";
    let mut section = Section::new("trends", "By setting", lead);
    for setting in 0..groups.settings.len() {
        let Some(curves) = curves(groups, setting) else { continue };
        let name = last_word(&groups.settings[setting]);
        let charts = measures.iter().filter_map(|measure| {
            let series: Vec<Series> =
                curves.iter().map(|(name, points)| series(name, points, measure)).filter(|series| !series.points.is_empty()).collect();
            let colors = curves.keys().cloned().collect();
            let rule = measure.rule;
            let breaks = Vec::new();
            (!series.is_empty()).then(|| Chart {
                title: format!("{} by {name}", measure.title),
                note: String::new(),
                x: name.to_string(),
                y: measure.axis.to_string(),
                marks: Marks::Lines { series, colors, rule, breaks, range: None, whole: false },
            })
        });
        let charts: Vec<Chart> = charts.collect();
        if !charts.is_empty() {
            section = section.with(Block::Charts { charts });
        }
    }
    (!section.blocks.is_empty()).then_some(section)
}

/// The groups along a setting, by the values of the other settings; none where it is not a number
/// in all of them, or has too few values.
fn curves(groups: &Groups, setting: usize) -> Option<BTreeMap<String, Vec<(f64, &Group)>>> {
    let mut curves: BTreeMap<String, Vec<(f64, &Group)>> = BTreeMap::new();
    for group in &groups.all {
        let value = group.values.get(setting)?.parse().ok()?;
        let others = groups.settings.iter().zip(&group.values).enumerate().filter(|(index, _)| *index != setting);
        let name: Vec<String> = others.map(|(_, (name, value))| format!("{} {value}", last_word(name))).collect();
        curves.entry(name.join(", ")).or_default().push((value, group));
    }
    // A single point is compared in the tables.
    curves.retain(|_, points| points.len() > 1);
    let longest = curves.values().map(Vec::len).max()?;
    (longest >= FEWEST_VALUES && curves.len() <= MOST_CURVES).then_some(curves)
}

fn series(name: &str, points: &[(f64, &Group)], measure: &Measure) -> Series {
    let points = points.iter().filter_map(|(x, group)| Some(Series::point(*x, (measure.of)(group)?)));
    Series { name: name.to_string(), points: points.collect() }
}
