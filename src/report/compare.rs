//! Several runs beside each other: their differences, their results and their costs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::block::{Block, Chart, Dot, Marks, Section, Series, Table, round};
use super::cost::{Cost, Time, costs};
use super::error::ReportError;
use super::evaluation::{Evaluated, evaluated};
use super::groups::{Group, Groups, last_word};
use super::overview::state;
use super::regeneration;
use super::source::Source;
use super::spending::Spending;
use super::statistics::{Interval, mean};
use super::trend::{self, Measure};
use super::words::{interval, maybe, missing, seconds, whole};

/// The most curves in one chart.
const MOST_CURVES: usize = 8;
/// The most settings in the table of differences.
const MOST_SETTINGS: usize = 24;
/// The most runs that are listed at once.
const MOST_LISTED: usize = 12;

/// The compared values of a run.
struct Compared {
    evaluated: Vec<Evaluated>,
    /// Its costs. The time of an output from the cache is that of the run in this report that
    /// computed it.
    spending: Spending,
    /// The mean gain over all prompts that were regenerated after the first iteration.
    gain: Option<f64>,
}

/// The sections.
///
/// # Errors
/// A run cannot be read.
pub fn sections(sources: &[Source]) -> Result<Vec<Section>, ReportError> {
    let groups = Groups::of(sources)?;
    let runs = compared(sources)?;
    let mut sections = vec![settings(&groups), results(&groups, &runs)];
    sections.extend(trends(&groups, &runs));
    sections.extend(curves(&groups, &runs));
    sections.push(listed(sources, &groups, &runs));
    Ok(sections)
}

fn compared(sources: &[Source]) -> Result<Vec<Compared>, ReportError> {
    let all: Vec<Vec<Cost>> = sources.iter().map(costs).collect::<Result<_, ReportError>>()?;
    let fingerprint = |source: &Source, cost: &Cost| {
        let of = source.outputs.iter().filter(|(place, _)| place.name == cost.node && place.iteration == cost.iteration);
        of.map(|(_, manifest)| manifest.fingerprint.to_string()).next()
    };
    let mut spent: HashMap<String, Time> = HashMap::new();
    for (source, costs) in sources.iter().zip(&all) {
        for cost in costs.iter().filter(|cost| !cost.reused) {
            spent.extend(fingerprint(source, cost).map(|fingerprint| (fingerprint, cost.time())));
        }
    }
    let of = |(source, costs): (&Source, Vec<Cost>)| {
        let evaluated = match source.with_operator("evaluate").next() {
            Some(node) => evaluated(source, &node.name)?,
            None => Vec::new(),
        };
        let spending = Spending::new(costs, |cost| spent.get(&fingerprint(source, cost)?).copied());
        Ok(Compared { evaluated, spending, gain: regeneration::mean_gain(source)? })
    };
    sources.iter().zip(all).map(of).collect()
}

impl Compared {
    fn last(&self) -> Option<&Evaluated> {
        self.evaluated.last()
    }
}

fn settings(groups: &Groups) -> Section {
    let lead = "The settings in which the runs differ, seeds aside. Runs that differ in nothing else are averaged.";
    let mut section = Section::new("differences", "What differs", lead);
    let mut columns = vec!["group".to_string(), "#runs".to_string()];
    columns.extend(groups.settings.iter().take(MOST_SETTINGS).cloned());
    let mut table = Table { columns, ..Table::default() };
    for group in &groups.all {
        let mut row = vec![group.name.clone(), whole(group.runs.len() as i64)];
        row.extend(group.values.iter().take(MOST_SETTINGS).cloned());
        table.rows.push(row);
    }
    section = section.with(Block::Table(table));
    match groups.settings.len().saturating_sub(MOST_SETTINGS) {
        0 => section,
        more => section.note(format!("{more} further settings differ.")),
    }
}

/// A mean over a group's runs; of a single run, over its prompts.
fn over(group: &Group, runs: &[Compared], of: impl Fn(&Compared) -> Option<Interval>, seed: &str) -> Option<Interval> {
    let each: Vec<Interval> = group.runs.iter().filter_map(|run| of(runs.get(*run)?)).collect();
    match each.as_slice() {
        [only] => Some(*only),
        several => Interval::of(&several.iter().map(|interval| interval.mean).collect::<Vec<_>>(), &format!("{} {seed}", group.name)),
    }
}

/// A mean over the runs of a group with a known value.
fn average(group: &Group, runs: &[Compared], of: impl Fn(&Compared) -> Option<f64>) -> Option<f64> {
    mean(&group.runs.iter().filter_map(|run| of(runs.get(*run)?)).collect::<Vec<_>>())
}

fn results(groups: &Groups, runs: &[Compared]) -> Section {
    let lead = "After the last iteration that each has. Brackets: 95 % bootstrap intervals over the runs of a group, of a single run over its prompts.";
    let columns = [
        "group",
        "#runs",
        "#held-out reward",
        "#win score",
        "#NLL",
        "#gain of a regenerated prompt",
        "#tokens sampled",
        "#generating",
        "#the loop",
        "#all nodes",
    ];
    let mut table = Table::new("", &columns);
    for group in &groups.all {
        let end = |of: fn(&Evaluated) -> Option<Interval>, seed: &str| over(group, runs, |run| of(run.last()?), seed);
        table.rows.push(vec![
            group.name.clone(),
            whole(group.runs.len() as i64),
            interval(end(|last| last.reward, "reward")),
            interval(end(|last| last.win_score, "win score")),
            interval(end(Evaluated::nll, "NLL")),
            interval(gain(group, runs)),
            average(group, runs, |run| Some(run.spending.tokens(i64::MAX))).map_or_else(missing, |tokens| whole(tokens.round() as i64)),
            average(group, runs, |run| run.spending.generation_seconds(i64::MAX)).map_or_else(missing, seconds),
            average(group, runs, |run| run.spending.loop_seconds(i64::MAX)).map_or_else(missing, seconds),
            average(group, runs, |run| run.spending.all_seconds()).map_or_else(missing, seconds),
        ]);
    }
    let words = "The loop: all nodes of the iterations but evaluation. Gain: mean reward of a regenerated prompt's responses after an iteration less before it, \
                 from the second iteration on; where prompts are selected for low rewards, partly regression to the mean.";
    let unknown = "Seconds of what came from the cache are those of the run here that made it. Where none of these runs did, a run's seconds are not known, \
                   and its group's are those of its other runs.";
    Section::new("results", "Results", lead).with(Block::Table(table)).note(words).note(unknown)
}

/// The mean gain of regenerated prompts, over the runs of a group.
fn gain(group: &Group, runs: &[Compared]) -> Option<Interval> {
    let each: Option<Vec<f64>> = group.runs.iter().map(|run| runs.get(*run)?.gain).collect();
    Interval::of(&each?, &format!("{} gain", group.name))
}

/// The results of the groups against the numeric settings.
fn trends(groups: &Groups, runs: &[Compared]) -> Option<Section> {
    let end = |group: &Group, of: fn(&Evaluated) -> Option<Interval>, seed: &str| over(group, runs, |run| of(run.last()?), seed);
    let spent = |group: &Group| {
        let each: Vec<f64> = group.runs.iter().filter_map(|run| runs.get(*run)?.spending.loop_seconds(i64::MAX)).collect();
        Interval::of(&each, &format!("{} seconds", group.name))
    };
    let measures = [
        Measure { title: "Win score", axis: "win score", rule: None, of: &|group| end(group, |last| last.win_score, "win score") },
        Measure { title: "Held-out reward", axis: "mean reward", rule: None, of: &|group| end(group, |last| last.reward, "reward") },
        Measure { title: "Gain of a regenerated prompt", axis: "reward after − before", rule: Some(0.0), of: &|group| gain(group, runs) },
        Measure { title: "Seconds of the loop", axis: "seconds without evaluation", rule: None, of: &spent },
    ];
    trend::section(groups, &measures)
}

type Along = (&'static str, &'static str, fn(&Compared, i64) -> Option<f64>);
type Reached = (&'static str, &'static str, fn(&Evaluated) -> Option<Interval>);

/// The horizontal axis of the curves: words for the title, the axis, and the position of a run
/// after an iteration.
const ALONG: [Along; 4] = [
    ("by iteration", "iteration", |_, iteration| Some(iteration as f64)),
    ("by tokens sampled", "tokens sampled so far", |run, iteration| Some(run.spending.tokens(iteration))),
    ("by seconds of generating", "seconds of generating so far", |run, iteration| run.spending.generation_seconds(iteration)),
    ("by seconds of the loop", "seconds of the loop so far", |run, iteration| run.spending.loop_seconds(iteration)),
];
const REACHED: [Reached; 2] =
    [("Held-out reward", "mean reward", |evaluated| evaluated.reward), ("Win score", "win score", |evaluated| evaluated.win_score)];

/// A chart's curves: the words in its title, and each curve's name with its group.
type Panel<'a> = (String, Vec<(String, &'a Group)>);

fn curves(groups: &Groups, runs: &[Compared]) -> Vec<Section> {
    if runs.iter().all(|run| run.evaluated.is_empty()) {
        return Vec::new();
    }
    let (panels, left_out) = panels(groups, runs);
    let colors = named(panels.iter().flat_map(|(_, curves)| curves).map(|(name, _)| name));
    let section = |along: &Along, id: &str| {
        let lead = "Bands: 95 % bootstrap intervals over the runs of a group, of a single run over its prompts.";
        let mut section = Section::new(id, format!("Evaluation {}", along.0), lead);
        if panels.len() > 1 && along.1 != "iteration" {
            section.lead = format!("First where each group is after its last iteration, then its way there. {lead}");
            let charts = REACHED.iter().map(|reached| dots(&panels, runs, along, reached, &colors)).collect();
            section = section.with(Block::Charts { charts });
        }
        let charts: Vec<Vec<Chart>> = REACHED.iter().map(|reached| lines(&panels, runs, along, reached, &colors)).collect();
        let side_by_side = if panels.len() > 1 { charts } else { vec![charts.into_iter().flatten().collect()] };
        section = side_by_side.into_iter().fold(section, |section, charts| section.with(Block::Charts { charts }));
        if left_out > 0 { section.note(format!("{left_out} groups with lower rewards are left out.")) } else { section }
    };
    let sections = ALONG.iter().zip(["evaluation", "tokens", "seconds", "loop"]).map(|(along, id)| section(along, id));
    sections.chain([quality(groups, runs)]).collect()
}

/// The results of every group after each iteration, and what it had spent until then.
fn quality(groups: &Groups, runs: &[Compared]) -> Section {
    let columns =
        ["group", "#iteration", "#runs", "#held-out reward", "#win score", "#tokens sampled", "#generating", "#the loop", "#on the device"];
    let mut table = Table::new("Until each iteration", &columns);
    for group in &groups.all {
        let members = group.runs.iter().filter_map(|run| runs.get(*run));
        for iteration in iterations(members) {
            let at = |run: &Compared| run.evaluated.iter().position(|one| one.iteration == iteration);
            let reached =
                |of: fn(&Evaluated) -> Option<Interval>| over(group, runs, |run| of(run.evaluated.get(at(run)?)?), &iteration.to_string());
            let there = group.runs.iter().filter(|run| runs.get(**run).is_some_and(|run| at(run).is_some())).count();
            let spent =
                |of: fn(&Spending, i64) -> Option<f64>| average(group, runs, |run| at(run).and_then(|_| of(&run.spending, iteration)));
            table.rows.push(vec![
                group.name.clone(),
                iteration.to_string(),
                whole(there as i64),
                interval(reached(|one| one.reward)),
                interval(reached(|one| one.win_score)),
                spent(|spending, t| Some(spending.tokens(t))).map_or_else(missing, |tokens| whole(tokens.round() as i64)),
                spent(Spending::generation_seconds).map_or_else(missing, seconds),
                spent(Spending::loop_seconds).map_or_else(missing, seconds),
                spent(Spending::loop_device_seconds).map_or_else(missing, seconds),
            ]);
        }
    }
    table.folded = table.rows.len() > MOST_LISTED;
    let lead =
        "The numbers of the curves. On the device: the part of the loop in which models computed, without loading, tokenizing and writing.";
    Section::new("quality", "Quality by cost", lead).with(Block::Table(table))
}

/// The evaluated iterations of some runs.
fn iterations<'a>(runs: impl Iterator<Item = &'a Compared>) -> BTreeSet<i64> {
    runs.flat_map(|run| run.evaluated.iter().map(|one| one.iteration)).collect()
}

/// The names, each once.
fn named<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut once: Vec<String> = Vec::new();
    for name in names {
        if !once.contains(name) {
            once.push(name.clone());
        }
    }
    once
}

/// A chart of curves for each panel.
fn lines(panels: &[Panel], runs: &[Compared], (_, axis, x): &Along, (what, y, reached): &Reached, colors: &[String]) -> Vec<Chart> {
    let drawn: Vec<(&str, Vec<Series>)> = panels
        .iter()
        .map(|(words, curves)| (words.as_str(), curves.iter().map(|(name, group)| curve(name, group, runs, *x, *reached)).collect()))
        .collect();
    let range = (drawn.len() > 1).then(|| range(&drawn)).flatten();
    let charts = drawn.into_iter().map(|(words, series)| Chart {
        title: if words.is_empty() { (*what).to_string() } else { format!("{what}: {words}") },
        note: String::new(),
        x: (*axis).to_string(),
        y: (*y).to_string(),
        marks: Marks::Lines {
            series,
            colors: colors.to_vec(),
            rule: (*what == "Win score" && range.is_none()).then_some(50.0),
            breaks: Vec::new(),
            range,
            whole: *axis == "iteration",
        },
    });
    charts.collect()
}

/// The result of every group at the end, in one chart.
fn dots(panels: &[Panel], runs: &[Compared], (_, axis, x): &Along, (what, y, reached): &Reached, colors: &[String]) -> Chart {
    let dot = |shape: &str, name: &str, group: &Group| {
        let at = |run: &Compared| x(run, run.last()?.iteration);
        let point = Series::point(average(group, runs, at)?, over(group, runs, |run| reached(run.last()?), what)?);
        Some(Dot { color: name.to_string(), shape: shape.to_string(), point })
    };
    let dots = panels.iter().flat_map(|(words, curves)| curves.iter().filter_map(move |(name, group)| dot(words, name, group)));
    let marks = Marks::Dots { dots: dots.collect(), colors: colors.to_vec(), shapes: named(panels.iter().map(|(words, _)| words)) };
    Chart { title: (*what).to_string(), note: String::new(), x: (*axis).to_string(), y: (*y).to_string(), marks }
}

/// The charts of each kind: one, or one for each combination of the settings without colours. And
/// the number of groups without a curve.
fn panels<'a>(groups: &'a Groups, runs: &[Compared]) -> (Vec<Panel<'a>>, usize) {
    if let Some(colored) = groups.colored_by(MOST_CURVES) {
        let mut panels: Vec<Panel> = Vec::new();
        for group in &groups.all {
            let word = |index: usize| format!("{} {}", last_word(&groups.settings[index]), group.values[index]);
            let others: Vec<String> = (0..groups.settings.len()).filter(|index| *index != colored).map(word).collect();
            let words = others.join(", ");
            match panels.iter_mut().find(|(other, _)| *other == words) {
                Some((_, curves)) => curves.push((word(colored), group)),
                None => panels.push((words, vec![(word(colored), group)])),
            }
        }
        return (panels, 0);
    }
    let mut all: Vec<&Group> = groups.all.iter().collect();
    if all.len() > MOST_CURVES {
        let reached = |group: &Group| average(group, runs, |run| Some(run.last()?.reward?.mean)).unwrap_or(f64::NEG_INFINITY);
        all.sort_by(|one, other| reached(other).total_cmp(&reached(one)));
    }
    let left_out = all.len().saturating_sub(MOST_CURVES);
    all.truncate(MOST_CURVES);
    (vec![(String::new(), all.into_iter().map(|group| (group.name.clone(), group)).collect())], left_out)
}

fn curve(
    name: &str,
    group: &Group,
    runs: &[Compared],
    x: fn(&Compared, i64) -> Option<f64>,
    reached: fn(&Evaluated) -> Option<Interval>,
) -> Series {
    let members = || group.runs.iter().filter_map(|run| runs.get(*run));
    let points = iterations(members()).into_iter().filter_map(|iteration| {
        let at = |run: &Compared| reached(run.evaluated.iter().find(|one| one.iteration == iteration)?);
        let there: Vec<f64> = members().filter(|run| at(run).is_some()).filter_map(|run| x(run, iteration)).collect();
        Some(Series::point(mean(&there)?, over(group, runs, at, &iteration.to_string())?))
    });
    Series { name: name.to_string(), points: points.collect() }
}

/// The lowest and the highest value of all curves and their bands.
fn range(drawn: &[(&str, Vec<Series>)]) -> Option<(f64, f64)> {
    let points = drawn.iter().flat_map(|(_, series)| series).flat_map(|series| &series.points);
    let values: Vec<f64> = points.flat_map(|[_, y, low, high]| [*y, *low, *high]).flatten().collect();
    let low = values.iter().copied().reduce(f64::min)?;
    let high = values.iter().copied().reduce(f64::max)?;
    Some((round(low)?, round(high)?))
}

fn listed(sources: &[Source], groups: &Groups, runs: &[Compared]) -> Section {
    let group_of: BTreeMap<usize, &str> =
        groups.all.iter().flat_map(|group| group.runs.iter().map(|run| (*run, group.name.as_str()))).collect();
    let columns =
        ["run", "group", "#seed", "state", "#iterations", "#held-out reward", "#win score", "#tokens sampled", "#all nodes", "missing"];
    let mut table = Table::new("All runs", &columns);
    table.folded = sources.len() > MOST_LISTED;
    for (index, (source, run)) in sources.iter().zip(runs).enumerate() {
        let last = run.last();
        table.rows.push(vec![
            source.name().to_string(),
            group_of.get(&index).copied().unwrap_or_default().to_string(),
            source.spec.seed.to_string(),
            state(source).to_string(),
            maybe(last.map(|last| last.iteration as f64)),
            interval(last.and_then(|last| last.reward)),
            interval(last.and_then(|last| last.win_score)),
            whole(run.spending.tokens(i64::MAX) as i64),
            run.spending.all_seconds().map_or_else(missing, seconds),
            match source.missing().len() {
                0 => String::new(),
                some => format!("{some} outputs"),
            },
        ]);
    }
    Section::new("runs", "Runs", "Each run on its own. A report about a single run shows it in full.").with(Block::Table(table))
}
