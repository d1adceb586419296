//! select: which prompts get new responses. A plan over `prompts` and the last iteration's `pool`.
//!
//! Knows rewards as numbers to rank by; not what a prompt or a response says.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::{Context, StageError, Summary, seed};
use crate::pipeline::spec::relational::{RankBy, Select, Strategy};
use crate::store::{Slices, StoreError};
use crate::tables::TableKind;

/// Ranks every prompt and selects the first ceil(ratio·N) (OPTune, arXiv 2406.07657); all of them where there is no pool yet.
pub(super) fn run(context: &Context, settings: &Select) -> Result<Summary, StageError> {
    let session = context.spilling_session()?;
    let prompts = context.register_prompt_ids(&session, "prompts", "prompts")?;
    let pool = context.has("pool");
    let count = selected_count(settings, prompts, pool);
    context.write_relation(TableKind::Selection, |relation| {
        let mut write = |query: &str| session.rows(query)?.try_for_each(|batch| relation.write(&batch?));
        if pool {
            context.register(&session, "pool", "pool")?;
            let mut slices = Slices::default();
            let ids = session.rows("SELECT prompt_id FROM prompts ORDER BY prompt_id")?;
            let stream = context.seed();
            slices.add_rows("prompts", drawn_schema(), ids.map(move |ids| drawn(&ids?, stream)));
            slices.add("pool", session.rows("SELECT prompt_id, reward FROM pool")?);
            let scored = format!("WITH {}\n{}", statistic(settings), scored(settings));
            slices.feed(&scored, &session, "scored", || write(&format!("WITH {}", ranked(settings, Some(count)))))?;
        } else {
            write(&sql(settings, None, false))?;
        }
        Ok([("prompts", prompts as i64), ("selected", count as i64)])
    })?;
    Ok(Summary::new(format!("{count} of {prompts} prompts selected")))
}

/// ceil(ratio·N), without the rounding errors of the product: 0.1·30 is 3, not 4.
fn selected_count(settings: &Select, prompts: usize, pool: bool) -> usize {
    if settings.strategy == Strategy::All || !pool {
        return prompts;
    }
    // The product's error is below one part in 2^52; anything closer to a whole number than this is meant to be it.
    let exact = settings.ratio * prompts as f64;
    let count = (exact - exact.abs() * 1e-12).ceil();
    (count as usize).clamp(usize::from(prompts > 0), prompts)
}

/// The ids of prompts, each with a number for the random strategy: drawn from the seed and the id, so neither order nor company matters.
fn drawn(ids: &RecordBatch, seed: seed::Stream) -> Result<RecordBatch, StoreError> {
    let draws: Int64Array = ids.column(0).as_string::<i32>().iter().map(|id| id.map(|id| seed.draw(id))).collect();
    let columns = vec![ids.column(0).clone(), Arc::new(draws) as _];
    RecordBatch::try_new(drawn_schema(), columns).map_err(|error| StoreError::Sql { message: error.to_string() })
}

fn drawn_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("prompt_id", DataType::Utf8, true), Field::new("draw", DataType::Int64, true)]))
}

/// The plan as SQL over `prompts(prompt_id, draw)` and, after the first iteration, `pool`.
///
/// Prompts without a reward come first: nothing is known of them, so they are asked again. Ties go by prompt_id.
/// `count` is how many to select; where it is not known, for people to read, its formula stands in its place.
pub fn sql(settings: &Select, count: Option<usize>, pool: bool) -> String {
    if !pool {
        return "SELECT prompt_id, CAST(NULL AS DOUBLE) AS score, CAST(row_number() OVER (ORDER BY prompt_id) AS BIGINT) AS rank,\n       \
                TRUE AS selected\nFROM prompts\nORDER BY rank"
            .to_string();
    }
    format!("WITH {}, scored AS (\n  {}\n), {}", statistic(settings), scored(settings), ranked(settings, count))
}

/// The statistic of each prompt's rewards, behind `WITH`.
fn statistic(settings: &Select) -> String {
    let statistic = match settings.rank_by {
        RankBy::Mean => "avg(reward)",
        RankBy::Min => "min(reward)",
        RankBy::Max => "max(reward)",
        RankBy::Gap => "max(reward) - min(reward)",
    };
    format!("statistic AS (\n  SELECT prompt_id, {statistic} AS score FROM pool GROUP BY prompt_id\n)")
}

/// What each prompt is ranked by.
fn scored(settings: &Select) -> String {
    let draw = if settings.strategy == Strategy::Random { "prompts.draw, " } else { "" };
    format!(
        "SELECT prompts.prompt_id, {draw}statistic.score
  FROM prompts LEFT JOIN statistic ON prompts.prompt_id = statistic.prompt_id"
    )
}

/// The ranking of all prompts over `scored`, behind `WITH`.
fn ranked(settings: &Select, count: Option<usize>) -> String {
    let order = match settings.strategy {
        Strategy::LowestReward | Strategy::All => "score ASC NULLS FIRST",
        Strategy::Random => "draw",
    };
    let count = match count {
        Some(count) => count.to_string(),
        None => format!("(SELECT ceil({:?} * count(*)) FROM prompts)", settings.ratio),
    };
    format!(
        "ranked AS (
  SELECT prompt_id, score, CAST(row_number() OVER (ORDER BY {order}, prompt_id) AS BIGINT) AS rank FROM scored
)
SELECT prompt_id, score, rank, rank <= {count} AS selected
FROM ranked
ORDER BY rank"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(ratio: f64) -> Select {
        Select { prompts: Default::default(), pool: None, strategy: Strategy::LowestReward, rank_by: RankBy::Mean, ratio }
    }

    #[test]
    fn the_count_is_the_exact_ceiling() {
        for prompts in 1..400_usize {
            for percent in 1..=100_usize {
                let expected = (percent * prompts).div_ceil(100);
                assert_eq!(selected_count(&settings(percent as f64 / 100.0), prompts, true), expected, "{percent} % of {prompts}");
            }
        }
        assert_eq!(selected_count(&settings(0.5), 7, false), 7);
        assert_eq!(selected_count(&settings(0.5), 0, true), 0);
    }
}
