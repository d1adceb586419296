//! A judge's verdicts: win score, win rate, length-controlled win rate and position bias by
//! iteration, against each baseline, with intervals over prompts; and the tokens they cost.
//!
//! Knows verdicts, not the judge's questions.

use super::block::{Block, Chart, Marks, Section, Series, Table};
use super::error::ReportError;
use super::source::Source;
use super::statistics::Interval;
use super::words::{interval, maybe, number, whole};
use crate::pipeline::spec::baselines::Baselines;
use crate::store::Run;
use crate::tables::{TableKind, judgments};
use crate::win_rates::{Estimate, Figures};

/// One iteration's verdicts on the policy against one baseline.
pub struct Verdicts {
    /// The table.
    pub table: String,
    /// The iteration; 0 where there is none.
    pub iteration: u32,
    /// The figures; none if no pair has both verdicts.
    pub figures: Option<Figures>,
    /// Tokens of the questions, as the server counts them.
    pub prompt_tokens: i64,
    /// Tokens of the answers.
    pub completion_tokens: i64,
}

/// The verdicts of a run, as far as they are finished, by table and iteration.
///
/// # Errors
/// A table cannot be read.
pub fn verdicts(run: &Run) -> Result<Vec<Verdicts>, ReportError> {
    let mut all = Vec::new();
    for (place, manifest) in run.manifests()? {
        if manifest.table != Some(TableKind::Judgments) || !manifest.complete {
            continue;
        }
        let mut rows = Vec::new();
        for batch in run.read_table(&place, Some(TableKind::Judgments))? {
            rows.extend(judgments::rows(&batch).map_err(|error| super::source::form(&place.name, error))?);
        }
        all.push(Verdicts {
            table: place.name,
            iteration: place.iteration.unwrap_or(0),
            figures: Figures::of(&judgments::judged(&rows)),
            prompt_tokens: rows.iter().filter_map(|row| row.prompt_tokens).sum(),
            completion_tokens: rows.iter().filter_map(|row| row.completion_tokens).sum(),
        });
    }
    all.sort_by(|one, other| (&one.table, one.iteration).cmp(&(&other.table, other.iteration)));
    Ok(all)
}

/// The section; `None` without verdicts.
///
/// # Errors
/// As [`verdicts`].
pub fn section(source: &Source) -> Result<Option<Section>, ReportError> {
    let all = verdicts(&source.run)?;
    if all.is_empty() {
        return Ok(None);
    }
    let lead = "A judge's verdicts on the policy's responses beside a baseline's, asked in both orders. Bands and brackets: 95 % bootstrap \
                intervals over prompts.";
    let charts = vec![
        chart(source, &all, "Win score by the judge", "percent, a tie is half", |figures| Some(figures.win_score), Some(50.0)),
        chart(source, &all, "Length-controlled win rate", "percent", |figures| figures.length_controlled, Some(50.0)),
        chart(source, &all, "Position bias", "percent of pairs whose orders disagree", |figures| figures.position_bias, None),
    ];
    let section = Section::new("judge", "Judge", lead).with(Block::Charts { charts }).with(Block::Table(table(source, &all))).note(
        "Where the two orders disagree, the pair is a tie, and the disagreement is position bias. First: the share of verdicts for the \
               response in the first place, 50 % without a bias.",
    );
    Ok(Some(section))
}

/// The last win score against each baseline, for the overview.
///
/// # Errors
/// As [`verdicts`].
pub fn facts(source: &Source) -> Result<Vec<(String, String, String)>, ReportError> {
    let all = verdicts(&source.run)?;
    let by_table = all.chunk_by(|one, other| one.table == other.table);
    let last = by_table.filter_map(|verdicts| verdicts.iter().rev().find_map(|one| Some((one, one.figures?))));
    let fact = |(one, figures): (&Verdicts, Figures)| {
        let after = if one.iteration > 0 { format!("after iteration {}; ", one.iteration) } else { String::new() };
        let detail = match figures.length_controlled {
            Some(rate) => format!("{after}length-controlled win rate {} %", number(rate.value)),
            None => format!("{after}50 is no difference"),
        };
        let score = interval(Some(percent(figures.win_score, figures.prompts)));
        (format!("Judge's win score against {}", baseline(source, &one.table)), score, detail)
    };
    Ok(last.map(fact).collect())
}

/// The baseline of a table of verdicts.
fn baseline(source: &Source, table: &str) -> String {
    let Some(node) = source.owner(table) else { return table.to_string() };
    let names = node.reads.iter().filter(|read| read.slot == "baseline").enumerate();
    let of = |index: usize, name: &str| match index {
        0 => format!("{}_judge", node.name),
        _ => format!("{}_{}_judge", node.name, Baselines::part(index, name)),
    };
    let found = names.into_iter().find(|(index, read)| of(*index, &read.name) == table);
    found.map_or_else(|| table.to_string(), |(_, read)| if read.last { format!("{}[t-1]", read.name) } else { read.name.clone() })
}

fn chart(source: &Source, all: &[Verdicts], title: &str, y: &str, value: fn(&Figures) -> Option<Estimate>, rule: Option<f64>) -> Chart {
    let by_table = all.chunk_by(|one, other| one.table == other.table);
    let series = by_table.filter_map(|verdicts| {
        let points = verdicts.iter().filter_map(|one| {
            let figures = one.figures.as_ref()?;
            Some(Series::point(f64::from(one.iteration), percent(value(figures)?, figures.prompts)))
        });
        Some(Series { name: format!("against {}", baseline(source, &verdicts.first()?.table)), points: points.collect() })
    });
    let series: Vec<Series> = series.collect();
    let colors = series.iter().map(|series| series.name.clone()).collect();
    let marks = Marks::Lines { series, colors, rule, breaks: Vec::new(), range: None, whole: true };
    Chart { title: title.to_string(), note: String::new(), x: "iteration".to_string(), y: y.to_string(), marks }
}

fn percent(estimate: Estimate, count: usize) -> Interval {
    Interval { mean: estimate.value, low: estimate.low, high: estimate.high, count }
}

fn table(source: &Source, all: &[Verdicts]) -> Table {
    let columns = [
        "baseline",
        "#iteration",
        "#prompts",
        "#win score",
        "#win rate %",
        "#length-controlled %",
        "#position bias %",
        "#first %",
        "#without verdict",
        "#tokens in",
        "#tokens out",
    ];
    let mut table = Table::new("Verdicts", &columns);
    for one in all {
        let of = |value: fn(&Figures) -> Option<Estimate>| {
            interval(one.figures.as_ref().and_then(|figures| Some(percent(value(figures)?, figures.prompts))))
        };
        table.rows.push(vec![
            baseline(source, &one.table),
            one.iteration.to_string(),
            whole(one.figures.map_or(0, |figures| figures.prompts as i64)),
            of(|figures| Some(figures.win_score)),
            of(|figures| Some(figures.win_rate)),
            of(|figures| figures.length_controlled),
            of(|figures| figures.position_bias),
            maybe(one.figures.and_then(|figures| figures.first_preferred)),
            whole(one.figures.map_or(0, |figures| figures.unjudged as i64)),
            whole(one.prompt_tokens),
            whole(one.completion_tokens),
        ]);
    }
    table
}
