//! A judge's verdicts at the end of a run, one line a baseline and iteration.

use serde_json::{Value, json};

use super::error::CliError;
use crate::report::{self, Verdicts};
use crate::store::Run;
use crate::win_rates::{Estimate, Figures};

/// The columns after the table's name.
const TITLES: [&str; 7] = ["iteration", "prompts", "win score", "win rate %", "length-controlled %", "position bias %", "tokens"];

/// The width of an estimate with its interval: `100.0 [100.0, 100.0]`.
const ESTIMATE_WIDTH: usize = 20;

/// The verdicts of a run as lines; none without a judge.
pub(super) fn lines(run: &Run) -> Result<Vec<String>, CliError> {
    let all = report::verdicts(run)?;
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let name_width = all.iter().map(|one| one.table.len()).max().unwrap_or(0);
    let widths =
        TITLES.map(|title| if title.ends_with('%') || title.ends_with("score") { title.len().max(ESTIMATE_WIDTH) } else { title.len() });
    let line = |name: &str, cells: [String; 7]| {
        let cells = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:>width$}"));
        format!("{name:<name_width$}  {}", cells.collect::<Vec<_>>().join("  "))
    };
    let mut lines = vec![line("judge", TITLES.map(str::to_string))];
    lines.extend(all.iter().map(|one| line(&one.table, cells(one))));
    lines.push("position bias: pairs whose two orders disagree; they are ties. Brackets: 95 % intervals over prompts\n".to_string());
    Ok(lines)
}

fn cells(one: &Verdicts) -> [String; 7] {
    let of = |value: fn(&Figures) -> Option<Estimate>| one.figures.as_ref().and_then(value).map_or("-".to_string(), shown);
    [
        one.iteration.to_string(),
        one.figures.map_or(0, |figures| figures.prompts).to_string(),
        of(|figures| Some(figures.win_score)),
        of(|figures| Some(figures.win_rate)),
        of(|figures| figures.length_controlled),
        of(|figures| figures.position_bias),
        (one.prompt_tokens + one.completion_tokens).to_string(),
    ]
}

fn shown(estimate: Estimate) -> String {
    format!("{:.1} [{:.1}, {:.1}]", estimate.value, estimate.low, estimate.high)
}

/// The verdicts of a run as JSON.
pub(super) fn to_json(run: &Run) -> Result<Vec<Value>, CliError> {
    let estimate = |estimate: Option<Estimate>| {
        estimate.map_or(Value::Null, |estimate| json!({ "value": estimate.value, "low": estimate.low, "high": estimate.high }))
    };
    let all = report::verdicts(run)?;
    let one = |one: &Verdicts| {
        let figures = one.figures.as_ref();
        json!({
            "table": one.table, "iteration": one.iteration,
            "prompts": figures.map(|figures| figures.prompts), "pairs": figures.map(|figures| figures.pairs),
            "without_verdict": figures.map(|figures| figures.unjudged),
            "win_score": estimate(figures.map(|figures| figures.win_score)),
            "win_rate": estimate(figures.map(|figures| figures.win_rate)),
            "length_controlled_win_rate": estimate(figures.and_then(|figures| figures.length_controlled)),
            "position_bias": estimate(figures.and_then(|figures| figures.position_bias)),
            "first_preferred": figures.and_then(|figures| figures.first_preferred),
            "prompt_tokens": one.prompt_tokens, "completion_tokens": one.completion_tokens,
        })
    };
    Ok(all.iter().map(one).collect())
}
