//! select: which prompts get new responses. Made from `prompts` and the last iteration's `pool`.
//!
//! [`sql`] says what it is; prompts are scored by a walk through the pool, which has its rows in the order of its prompts, and ranked by a
//! query. Knows rewards as numbers to rank by; not what a prompt or a response says.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::{Context, StageError, Summary, seed};
use crate::pipeline::spec::relational::{RankBy, Select, Strategy};
use crate::store::{Session, Slices};
use crate::tables::{TableKind, column, selection};

/// Ranks every prompt and selects the first ceil(ratio·N) (OPTune, arXiv 2406.07657); all of them where there is no pool yet.
pub(super) fn run(context: &Context, settings: &Select) -> Result<Summary, StageError> {
    // Two sorts at a time: each has memory of its own, so that none can take all of it.
    let (session, ranking) = (context.spilling_session()?, context.spilling_session()?);
    let prompts = context.register_prompt_ids(&session, "prompts", "prompts")?;
    let pool = context.has("pool");
    if pool {
        context.register(&session, "pool", "pool")?;
    }
    let count = selected_count(settings, prompts, pool);
    context.write_relation(TableKind::Selection, |relation| {
        if pool {
            rows(&session, &ranking, settings, count, context.seed(), Slices::default())?.try_for_each(|batch| relation.write(&batch?))?;
        } else {
            session.rows(&sql(settings, None, false))?.try_for_each(|batch| relation.write(&batch?))?;
        }
        Ok([("prompts", prompts as i64), ("selected", count as i64)])
    })?;
    Ok(Summary::new(format!("{count} of {prompts} prompts selected")))
}

/// ceil(ratio·N), without the rounding errors of the product: 0.1·30 is 3, not 4.
pub fn selected_count(settings: &Select, prompts: usize, pool: bool) -> usize {
    if settings.strategy == Strategy::All || !pool {
        return prompts;
    }
    // The product's error is below one part in 2^52; anything closer to a whole number than this is meant to be it.
    let exact = settings.ratio * prompts as f64;
    let count = (exact - exact.abs() * 1e-12).ceil();
    (count as usize).clamp(usize::from(prompts > 0), prompts)
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

/// What [`sql`] says of the tables `prompts` and `pool` of a session, the pool's rows being in the order of its key: batch by batch. The
/// draws of `prompts` come from `seed` and the ids, so neither order nor company matters. Prompts are ranked in the session `ranking`, which
/// works while it is given them and so must be one with a limit of memory.
///
/// # Errors
/// A table is missing, or a row of the pool is not in its place. What fails later is an error in the place of a batch.
pub fn rows<'s>(
    session: &'s Session,
    ranking: &'s Session,
    settings: &Select,
    count: usize,
    seed: seed::Stream,
    slices: Slices<'s>,
) -> Result<impl Iterator<Item = Result<RecordBatch, StageError>> + use<'s>, StageError> {
    let ids = session.rows("SELECT prompt_id FROM prompts ORDER BY prompt_id")?;
    let slices = slices.with("prompts", selection::KEY, ids).with("pool", &[], session.rows("SELECT prompt_id, reward FROM pool")?);
    let (sender, scored) = sync_channel(1);
    ranking.register_rows("scored", scored_schema(settings.strategy), scored)?;
    let ranked = ranking.rows("SELECT prompt_id, score FROM scored ORDER BY ranked_by ASC NULLS FIRST, place")?;
    let mut place = 0;
    for slice in slices {
        let slice = slice?;
        let prompts: &StringArray = column(&slice[0], "prompt_id")?;
        let scores = scores(prompts, &slice[1], settings.rank_by)?;
        let ranked_by: ArrayRef = match settings.strategy {
            Strategy::LowestReward | Strategy::All => Arc::new(scores.clone()),
            Strategy::Random => draws(prompts, seed),
        };
        let places = Int64Array::from_iter_values(place..place + prompts.len() as i64);
        place += prompts.len() as i64;
        let columns: Vec<ArrayRef> = vec![slice[0].column(0).clone(), Arc::new(scores), ranked_by, Arc::new(places)];
        // Nobody receives where the query has failed; its rows say why.
        if sender.send(RecordBatch::try_new(scored_schema(settings.strategy), columns)?).is_err() {
            break;
        }
    }
    drop(sender);
    let mut before = 0;
    Ok(ranked.map(move |batch| {
        let batch = batch?;
        let ranks = Int64Array::from_iter_values(before + 1..=before + batch.num_rows() as i64);
        before += batch.num_rows() as i64;
        let selected: BooleanArray = ranks.values().iter().map(|rank| Some(*rank <= count as i64)).collect();
        let [ids, scores] = [0, 1].map(|index| batch.column(index).clone());
        Ok(RecordBatch::try_new(selection::schema(), vec![ids, scores, Arc::new(ranks), Arc::new(selected)])?)
    }))
}

/// Prompts in the order of their ids, whose `place` that is.
fn scored_schema(strategy: Strategy) -> SchemaRef {
    let ranked_by = if strategy == Strategy::Random { DataType::Int64 } else { DataType::Float64 };
    Arc::new(Schema::new(vec![
        Field::new("prompt_id", DataType::Utf8, false),
        Field::new("score", DataType::Float64, true),
        Field::new("ranked_by", ranked_by, true),
        Field::new("place", DataType::Int64, false),
    ]))
}

/// The statistic of each prompt's rewards; null for a prompt that is not in the pool. Both ascend by prompt_id.
fn scores(prompts: &StringArray, pool: &RecordBatch, rank_by: RankBy) -> Result<Float64Array, StageError> {
    let (ids, rewards): (&StringArray, &Float64Array) = (column(pool, "prompt_id")?, column(pool, "reward")?);
    let mut next = 0;
    let score = |prompt: &str| {
        while next < ids.len() && ids.value(next) < prompt {
            next += 1;
        }
        let start = next;
        while next < ids.len() && ids.value(next) == prompt {
            next += 1;
        }
        let rewards = &rewards.values()[start..next];
        (!rewards.is_empty()).then(|| statistic(rewards, rank_by))
    };
    Ok(prompts.iter().flatten().map(score).collect())
}

fn statistic(rewards: &[f64], rank_by: RankBy) -> f64 {
    let least = || rewards.iter().copied().fold(f64::INFINITY, |least, reward| if reward < least { reward } else { least });
    let most = || rewards.iter().copied().fold(f64::NEG_INFINITY, |most, reward| if reward > most { reward } else { most });
    match rank_by {
        RankBy::Mean => rewards.iter().fold(0.0, |sum, reward| sum + reward) / rewards.len() as f64,
        RankBy::Min => least(),
        RankBy::Max => most(),
        RankBy::Gap => most() - least(),
    }
}

/// One number a prompt for the random strategy.
fn draws(prompts: &StringArray, seed: seed::Stream) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(prompts.iter().flatten().map(|id| seed.draw(id))))
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
