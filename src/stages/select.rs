//! select: which prompts get new responses. A plan over `prompts` and the last iteration's `pool`.
//!
//! Knows rewards as numbers to rank by; not what a prompt or a response says.

use arrow::array::{Int64Array, RecordBatch, StringArray};

use super::{Context, StageError, Summary, seed};
use crate::pipeline::spec::relational::{RankBy, Select, Strategy};
use crate::tables::TableKind;

/// Ranks every prompt and selects the first ceil(ratio·N) (OPTune, arXiv 2406.07657); all of them where there is no pool yet.
pub(super) fn run(context: &Context, settings: &Select) -> Result<Summary, StageError> {
    let prompts = context.prompts("prompts")?;
    let session = context.session()?;
    session.register_batches("prompts", vec![draws(&prompts.ids(), context.seed())?])?;
    let pool = context.has("pool");
    if pool {
        context.register(&session, "pool", "pool")?;
    }
    let count = selected_count(settings, prompts.len(), pool);
    let selection = session.query(&sql(settings, Some(count), pool))?;
    context.write_relation(TableKind::Selection, &selection, [("prompts", prompts.len() as i64), ("selected", count as i64)])?;
    Ok(Summary::new(format!("{count} of {} prompts selected", prompts.len())))
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

/// One number a prompt for the random strategy: drawn from the seed and the prompt's id, so neither order nor company matters.
fn draws(ids: &[&str], seed: seed::Stream) -> Result<RecordBatch, StageError> {
    let draws: Int64Array = ids.iter().map(|id| Some(seed.draw(id))).collect();
    let ids: StringArray = ids.iter().map(|id| Some(*id)).collect();
    Ok(RecordBatch::try_from_iter([("prompt_id", std::sync::Arc::new(ids) as _), ("draw", std::sync::Arc::new(draws) as _)])?)
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
    let statistic = match settings.rank_by {
        RankBy::Mean => "avg(reward)",
        RankBy::Min => "min(reward)",
        RankBy::Max => "max(reward)",
        RankBy::Gap => "max(reward) - min(reward)",
    };
    let order = match settings.strategy {
        Strategy::LowestReward | Strategy::All => "statistic.score ASC NULLS FIRST",
        Strategy::Random => "prompts.draw",
    };
    let count = match count {
        Some(count) => count.to_string(),
        None => format!("(SELECT ceil({:?} * count(*)) FROM prompts)", settings.ratio),
    };
    format!(
        "WITH statistic AS (
  SELECT prompt_id, {statistic} AS score FROM pool GROUP BY prompt_id
), ranked AS (
  SELECT prompts.prompt_id, statistic.score,
         CAST(row_number() OVER (ORDER BY {order}, prompts.prompt_id) AS BIGINT) AS rank
  FROM prompts LEFT JOIN statistic ON prompts.prompt_id = statistic.prompt_id
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
