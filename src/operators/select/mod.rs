//! select: the prompts to sample new responses for, from `prompts` and the `pool` of the last
//! iteration.
//!
//! `strategies` ranks prompts and says if they are eligible. `merge_join` makes the selection in
//! one pass over sorted tables; `reference_sql` is the equivalent SQL. Knows rewards as numbers to
//! rank by, not the texts of prompts and responses.

mod merge_join;
mod reference_sql;
mod strategies;

pub use merge_join::{POOL_QUERY, SelectionParameters, rows};
pub use reference_sql::sql;

use super::{Context, OperatorError, Summary};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::select::{Select, Strategy};
use crate::sql::{PromptGroups, Session};
use crate::tables::TableKind;

/// Ranks every prompt and selects the first ceil(ratio·N) (OPTune, arXiv 2406.07657). Without a
/// pool, it selects all of them.
pub(super) fn run(context: &Context, settings: &Select) -> Result<Summary, OperatorError> {
    // Two sorts run at the same time. Each has its own memory limit, so neither can starve the
    // other.
    let session = context.spilling_session()?;
    let ranking = context.spilling_session()?;
    let prompts = context.register_prompts(&session, "prompts", Slot::Prompts)?;
    let has_pool = context.has(Slot::Pool);
    let is_own_pool = context.task.input(Slot::Pool).map_or(Ok(false), |pool| context.is_own_table(pool))?;
    if is_own_pool {
        context.register(&session, "recorded", Slot::Pool)?;
        register_recorded(&session)?;
    } else if has_pool {
        context.register(&session, "pool", Slot::Pool)?;
    }
    if context.has(Slot::Previous) {
        context.register(&session, "previous", Slot::Previous)?;
    }
    let stream = context.seed();
    let quota = Quota::new(settings, prompts, stream.iteration, has_pool);
    let mut selected = 0;
    context.write_relation(TableKind::Selection, |relation| {
        if has_pool {
            let pool_query = if is_own_pool { SORTED_POOL_QUERY } else { POOL_QUERY };
            let parameters = SelectionParameters { settings, quota, stream, pool_query };
            let mut rows = rows(&session, &ranking, parameters, PromptGroups::default)?;
            rows.try_for_each(|batch| relation.write(&batch?))?;
            selected = rows.selected();
        } else {
            session.rows(EVERY_PROMPT)?.try_for_each(|batch| relation.write(&batch?))?;
            selected = prompts;
        }
        Ok([("prompts", prompts as i64), ("selected", selected as i64)])
    })?;
    Ok(Summary::new(format!("{selected} of {prompts} prompts selected")))
}

/// The selection without a pool.
const EVERY_PROMPT: &str =
    "SELECT prompt_id, CAST(NULL AS DOUBLE) AS score, CAST(row_number() OVER (ORDER BY prompt_id) AS BIGINT) AS rank,
       TRUE AS selected
FROM prompts
ORDER BY rank";

/// The rows of a user's table of rewards, which may be in any order.
const SORTED_POOL_QUERY: &str = "SELECT prompt_id, reward, sampled_iteration FROM pool ORDER BY prompt_id";

/// Registers the view `pool` over the user's table `recorded`, with the columns of a pool needed
/// here. Rows without a reward are left out.
fn register_recorded(session: &Session) -> Result<(), OperatorError> {
    let has_iteration = session.schema_of("SELECT * FROM recorded")?.field_with_name("sampled_iteration").is_ok();
    let sampled_iteration = if has_iteration { "CAST(sampled_iteration AS INT)" } else { "CAST(0 AS INT)" };
    session.register_view(
        "pool",
        &format!(
            "SELECT CAST(prompt_id AS VARCHAR) AS prompt_id, CAST(reward AS DOUBLE) AS reward, {sampled_iteration} AS sampled_iteration
             FROM recorded WHERE reward IS NOT NULL"
        ),
    )?;
    let invalid = "prompt_id IS NULL OR isnan(reward) OR abs(reward) = CAST('Infinity' AS DOUBLE)";
    match session.count(&format!("SELECT count(*) FROM pool WHERE {invalid}"))? {
        0 => Ok(()),
        count => {
            Err(OperatorError::Input(format!("pool: expected a prompt_id and a finite reward in every row, found {count} rows without")))
        }
    }
}

/// A column of the user's table as text. The name may contain any characters.
fn text_column(name: &str) -> String {
    format!("CAST(\"{}\" AS VARCHAR)", name.replace('"', "\"\""))
}

/// The number of prompts to select, and of prompts to leave out at the start of the ranking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How many prompts are selected.
    pub count: usize,
    /// How many prompts are left out, or fewer if fewer than `count` would remain.
    pub dropped: usize,
}

impl Quota {
    /// ceil(ρ·N) of N prompts, and floor(share·N) for a strategy with a dropped share. Rounding
    /// errors of the products do not count: 0.1·30 is 3, so its ceiling is 3 and not 4.
    pub fn new(settings: &Select, prompts: usize, iteration: u32, has_pool: bool) -> Self {
        if settings.strategy == Strategy::All || !has_pool {
            return Self { count: prompts, dropped: 0 };
        }
        // The relative error of a product is below 2^-52. A product closer than 1e-12 to a whole
        // number is meant to be this number.
        let exact = ratio(settings, iteration) * prompts as f64;
        let count = (exact - exact * 1e-12).ceil() as usize;
        let dropped = strategies::strategy(settings).dropped_share() * prompts as f64;
        let dropped = (dropped + dropped * 1e-12).floor() as usize;
        Self { count: count.clamp(usize::from(prompts > 0), prompts), dropped: dropped.min(prompts) }
    }

    /// The selected ranks. The `overdue` prompts rank first and are selected in any case; the
    /// `eligible` prompts rank behind them.
    fn ranks(self, overdue: usize, eligible: usize) -> SelectedRanks {
        let room = self.count.saturating_sub(overdue).min(eligible);
        let first = overdue + self.dropped.min(eligible - room);
        SelectedRanks { overdue, first, room }
    }
}

/// The ranks of selected prompts: up to `overdue`, and the next `room` ranks behind `first`.
struct SelectedRanks {
    overdue: usize,
    first: usize,
    room: usize,
}

impl SelectedRanks {
    /// Whether the prompt of a rank is selected. Ranks count from 1.
    fn contains(&self, rank: usize) -> bool {
        rank <= self.overdue || (rank > self.first && rank <= self.first + self.room)
    }
}

/// The selection ratio ρ of an iteration.
fn ratio(settings: &Select, iteration: u32) -> f64 {
    if settings.strategy == Strategy::All {
        1.0
    } else {
        settings.ratio * settings.ratio_decay.powf(f64::from(iteration.saturating_sub(2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::spec::select::DropHardest;

    #[test]
    fn the_count_is_the_exact_ceiling() {
        let quota = |ratio: f64, prompts, pool| Quota::new(&Select { ratio, ..Select::default() }, prompts, 2, pool);
        for prompts in 1..400_usize {
            for percent in 1..=100_usize {
                let expected = (percent * prompts).div_ceil(100);
                assert_eq!(quota(percent as f64 / 100.0, prompts, true).count, expected, "{percent} % of {prompts}");
            }
        }
        assert_eq!(quota(0.5, 7, false).count, 7);
        assert_eq!(quota(0.5, 0, true).count, 0);
    }

    #[test]
    fn what_is_dropped_is_the_exact_floor() {
        for prompts in 1..400_usize {
            for percent in 0..100_usize {
                let strategy = Strategy::DropHardest(DropHardest { share: percent as f64 / 100.0 });
                let quota = Quota::new(&Select { strategy, ratio: 0.5, ..Select::default() }, prompts, 2, true);
                assert_eq!(quota.dropped, percent * prompts / 100, "{percent} % of {prompts}");
            }
        }
    }

    #[test]
    fn the_ratio_decays_from_the_third_iteration_on() {
        let settings = Select { ratio: 0.8, ratio_decay: 0.5, ..Select::default() };
        let counts = [2, 3, 4, 5].map(|iteration| Quota::new(&settings, 100, iteration, true).count);
        assert_eq!(counts, [80, 40, 20, 10]);
    }
}
