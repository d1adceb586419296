//! pair: the best response of each prompt and a worse one, and how much the pair counts. Made from the pool.
//!
//! Which one is rejected is a `Rejection`, one file each; what a pair counts is in `weight`. [`sql`] says what pairs are; they are made by
//! a walk through the pool, which has its rows in the order of its prompts. Knows rewards within a prompt; the reference's logprobs are filled
//! in later, by the `reference` stage.

mod random;
mod two_sigma;
mod walk;
mod weight;
mod worst;

pub use walk::{Rows, rows};

use super::support::rng;
use super::{Context, OperatorError, Summary};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::pair::{Pair, Rejected};
use crate::sql::PromptGroups;
use crate::tables::TableKind;

/// One pair a prompt whose responses differ in reward; prompts whose do not are counted as ties.
pub(super) fn run(context: &Context, settings: &Pair) -> Result<Summary, OperatorError> {
    let session = context.spilling_session()?;
    context.register(&session, "pool", Slot::Pool)?;
    let mut prompts = 0;
    let pairs = context.write_relation(TableKind::Pairs, |relation| {
        let mut rows = rows(&session, settings, context.seed(), PromptGroups::default)?;
        rows.try_for_each(|batch| relation.write(&batch?))?;
        prompts = rows.prompts();
        Ok([("prompts", prompts), ("pairs", relation.rows()), ("ties", prompts - relation.rows())])
    })?;
    Ok(Summary::new(format!("{pairs} pairs, {} prompts without a difference in reward", prompts - pairs)))
}

/// The plan as SQL over `pool`, with the column `draw` where the rejected response is drawn. Chosen: highest reward; rejected: of those with
/// less, the first in the order of the `Rejection`; ties by response_index, then sampled_iteration.
pub fn sql(settings: &Pair) -> String {
    let rejection = rejection(settings.rejected);
    let (order, weights) = (rejection.order(), weight::Sql::of(&settings.weight));
    let first = |column: &str, order: &str| format!("first_value({column} ORDER BY {order}, response_index, sampled_iteration)");
    let spread = match rejection.by_spread() {
        true => ",\n         avg(reward) AS mean, stddev_pop(reward) AS deviation",
        false => "",
    };
    format!(
        "WITH best AS (
  SELECT prompt_id, {chosen_sampled_iteration} AS chosen_sampled_iteration, {chosen_index} AS chosen_index, max(reward) AS highest{spread}
  FROM pool GROUP BY prompt_id
), worse AS (
  SELECT * FROM pool JOIN best USING (prompt_id) WHERE highest - reward > 0
), paired AS (
  SELECT prompt_id, first_value(chosen_sampled_iteration) AS chosen_sampled_iteration, first_value(chosen_index) AS chosen_index,
         {rejected_sampled_iteration} AS rejected_sampled_iteration, {rejected_index} AS rejected_index,
         {rejected_gap} AS reward_gap
  FROM worse GROUP BY prompt_id
), weighted AS (
  SELECT *, {raw} AS raw FROM paired
), scaled AS (
  SELECT *, {normalized} AS normalized FROM weighted
)
SELECT prompt_id, chosen_sampled_iteration, chosen_index, rejected_sampled_iteration, rejected_index, reward_gap, {clipped} AS weight,
       CAST(NULL AS DOUBLE) AS reference_logprob_chosen, CAST(NULL AS DOUBLE) AS reference_logprob_rejected
FROM scaled
ORDER BY prompt_id",
        chosen_sampled_iteration = first("sampled_iteration", "reward DESC"),
        chosen_index = first("response_index", "reward DESC"),
        rejected_sampled_iteration = first("sampled_iteration", order),
        rejected_index = first("response_index", order),
        rejected_gap = first("highest - reward", order),
        raw = weights.raw,
        normalized = weights.normalized,
        clipped = weights.clipped,
    )
}

/// A way to say which response is rejected, of those that are rewarded less than the chosen one: the first in its order. What it says in SQL
/// and what its function says is the same.
trait Rejection {
    /// The order as SQL over the pool's columns, `draw`, and `mean` and `deviation` of the prompt's rewards.
    fn order(&self) -> &'static str;

    /// Where a response stands in it; the least is rejected.
    fn place(&self, response: &Candidate) -> f64;

    /// Whether it looks at the mean and the deviation of the prompt's rewards.
    fn by_spread(&self) -> bool {
        false
    }
}

/// A response that may be rejected.
struct Candidate<'a> {
    prompt_id: &'a str,
    response_index: i32,
    reward: f64,
    /// Mean and standard deviation of all the prompt's rewards, where they are asked for.
    mean: f64,
    deviation: f64,
    stream: rng::Stream,
}

fn rejection(rejected: Rejected) -> &'static dyn Rejection {
    match rejected {
        Rejected::Worst => &worst::Worst,
        Rejected::Random => &random::Random,
        Rejected::TwoSigma => &two_sigma::TwoSigma,
    }
}
