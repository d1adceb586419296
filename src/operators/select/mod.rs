//! select: which prompts get new responses. Made from `prompts` and the last iteration's `pool`.
//!
//! A strategy is a `Rule`, one file each: what prompts are ranked by, and which of them may be selected. `definition` says in SQL what a
//! selection is; `walk` makes it, from one way through the pool, which has its rows in the order of its prompts, and a query that ranks.
//! Knows rewards as numbers to rank by; not what a prompt or a response says.

mod band;
mod definition;
mod drop_hardest;
mod highest_reward;
mod lowest_reward;
mod random;
mod reward_gain;
mod skip_uninformative;
mod walk;
mod z_score;

pub use definition::sql;
pub use walk::{POOL, Question, rows};

use super::support::rng;
use super::{Context, OperatorError, Summary};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::select::{Select, Strategy};
use crate::sql::{PromptGroups, Session};
use crate::tables::TableKind;

/// Ranks every prompt and selects the first ceil(ratio·N) (OPTune, arXiv 2406.07657); all of them where there is no pool yet.
pub(super) fn run(context: &Context, settings: &Select) -> Result<Summary, OperatorError> {
    // Two sorts at a time: each has memory of its own, so that none can take all of it.
    let (session, ranking) = (context.spilling_session()?, context.spilling_session()?);
    let prompts = context.register_prompts(&session, "prompts", Slot::Prompts)?;
    let pool = context.has(Slot::Pool);
    let recorded = context.task.input(Slot::Pool).is_some_and(|pool| context.is_own_table(pool));
    if pool {
        context.register(&session, if recorded { "recorded" } else { "pool" }, Slot::Pool)?;
    }
    if recorded {
        register_recorded(&session)?;
    }
    if context.has(Slot::Previous) {
        context.register(&session, "previous", Slot::Previous)?;
    }
    let stream = context.seed();
    let quota = Quota::of(settings, prompts, stream.iteration, pool);
    let mut selected = 0;
    context.write_relation(TableKind::Selection, |relation| {
        if pool {
            let question = Question { settings, quota, stream, pool: if recorded { RECORDED } else { POOL } };
            let mut rows = rows(&session, &ranking, question, PromptGroups::default)?;
            rows.try_for_each(|batch| relation.write(&batch?))?;
            selected = rows.selected();
        } else {
            session.rows(&sql(settings, stream.iteration, None, false))?.try_for_each(|batch| relation.write(&batch?))?;
            selected = prompts;
        }
        Ok([("prompts", prompts as i64), ("selected", selected as i64)])
    })?;
    Ok(Summary::new(format!("{selected} of {prompts} prompts selected")))
}

/// The rows of a table of rewards that the user has, in any order.
const RECORDED: &str = "SELECT prompt_id, reward, sampled_iteration FROM pool ORDER BY prompt_id";

/// Makes the user's table `recorded` a pool as far as a selection looks at one; rows without a reward are left out.
fn register_recorded(session: &Session) -> Result<(), OperatorError> {
    let has_born = session.schema_of("SELECT * FROM recorded")?.field_with_name("sampled_iteration").is_ok();
    let sampled_iteration = if has_born { "CAST(sampled_iteration AS INT)" } else { "CAST(0 AS INT)" };
    session.register_view(
        "pool",
        &format!(
            "SELECT CAST(prompt_id AS VARCHAR) AS prompt_id, CAST(reward AS DOUBLE) AS reward, {sampled_iteration} AS sampled_iteration FROM recorded WHERE reward IS NOT NULL"
        ),
    )?;
    let wrong = "prompt_id IS NULL OR isnan(reward) OR abs(reward) = CAST('Infinity' AS DOUBLE)";
    match session.count(&format!("SELECT count(*) FROM pool WHERE {wrong}"))? {
        0 => Ok(()),
        count => {
            Err(OperatorError::Input(format!("pool: expected a prompt_id and a finite reward in every row, found {count} rows without")))
        }
    }
}

/// How many prompts are selected, and how many of the first are left out, unless too few may be selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How many are selected.
    pub count: usize,
    /// How many of the first are left out.
    pub dropped: usize,
}

impl Quota {
    /// ceil(ρ·N) of N prompts, and floor(share·N) for a strategy that drops a share; without the rounding errors of the products: 0.1·30
    /// are 3, not 4.
    pub fn of(settings: &Select, prompts: usize, iteration: u32, pool: bool) -> Self {
        if settings.strategy == Strategy::All || !pool {
            return Self { count: prompts, dropped: 0 };
        }
        // The products' errors are below one part in 2^52; anything closer to a whole number than this is meant to be it.
        let exact = ratio(settings, iteration) * prompts as f64;
        let count = (exact - exact * 1e-12).ceil() as usize;
        let dropped = rule(settings).dropped() * prompts as f64;
        let dropped = (dropped + dropped * 1e-12).floor() as usize;
        Self { count: count.clamp(usize::from(prompts > 0), prompts), dropped: dropped.min(prompts) }
    }

    /// The ranks that are selected, from 1, where so many are selected whatever their rank says and rank first, and so many `eligible` ones
    /// come behind them.
    fn ranks(self, overdue: usize, eligible: usize) -> impl Fn(usize) -> bool {
        let room = self.count.saturating_sub(overdue).min(eligible);
        let first = overdue + self.dropped.min(eligible - room);
        move |rank| rank <= overdue || (rank > first && rank <= first + room)
    }
}

/// ρ_t.
fn ratio(settings: &Select, iteration: u32) -> f64 {
    match settings.strategy {
        Strategy::All => 1.0,
        _ => settings.ratio * settings.ratio_decay.powf(f64::from(iteration.saturating_sub(2))),
    }
}

/// A strategy. What it says in SQL and what its functions say is the same.
trait Rule {
    /// What prompts are ranked by, if not by their score; over [`definition`]'s columns. Null is before all.
    fn key_sql(&self) -> Option<String> {
        None
    }

    /// The same of one prompt.
    fn key(&self, prompt: &Known) -> Option<f64> {
        prompt.score
    }

    /// The order of prompts by `key` and `score`; of equal ones by prompt_id.
    fn order(&self) -> &'static str {
        if self.key_sql().is_some() { "key ASC NULLS FIRST" } else { "score ASC NULLS FIRST" }
    }

    /// Which prompts may be selected, if not all may.
    fn eligible_sql(&self) -> Option<String> {
        None
    }

    /// The same of one prompt.
    fn is_eligible(&self, _: &Known) -> bool {
        true
    }

    /// The share of all prompts that is left out, from the first on.
    fn dropped(&self) -> f64 {
        0.0
    }

    /// The column of the prompts that says with which others one is compared.
    fn group(&self) -> Option<&str> {
        None
    }
}

/// What is known of a prompt.
struct Known<'a> {
    id: &'a str,
    /// Of its responses in the pool.
    rewards: &'a [f64],
    /// The statistic of the rewards; none without any.
    score: Option<f64>,
    /// The score that it had in the last selection.
    before: Option<f64>,
    /// The scores of its group.
    group: Spread,
    stream: rng::Stream,
}

/// Mean and standard deviation.
#[derive(Clone, Copy, Default)]
struct Spread {
    mean: f64,
    deviation: f64,
}

fn rule(settings: &Select) -> &dyn Rule {
    match &settings.strategy {
        Strategy::LowestReward | Strategy::All => &lowest_reward::LowestReward,
        Strategy::HighestReward => &highest_reward::HighestReward,
        Strategy::Random => &random::Random,
        Strategy::RewardGain => &reward_gain::RewardGain,
        Strategy::DropHardest(settings) => settings,
        Strategy::Band(settings) => settings,
        Strategy::ZScore(settings) => settings,
        Strategy::SkipUninformative(settings) => settings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::spec::select::DropHardest;

    #[test]
    fn the_count_is_the_exact_ceiling() {
        let quota = |ratio: f64, prompts, pool| Quota::of(&Select { ratio, ..Select::default() }, prompts, 2, pool);
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
                let quota = Quota::of(&Select { strategy, ratio: 0.5, ..Select::default() }, prompts, 2, true);
                assert_eq!(quota.dropped, percent * prompts / 100, "{percent} % of {prompts}");
            }
        }
    }

    #[test]
    fn the_ratio_decays_from_the_third_iteration_on() {
        let settings = Select { ratio: 0.8, ratio_decay: 0.5, ..Select::default() };
        let counts = [2, 3, 4, 5].map(|iteration| Quota::of(&settings, 100, iteration, true).count);
        assert_eq!(counts, [80, 40, 20, 10]);
    }
}
