//! What a strategy knows about all prompts together, from a first pass over the tables.
//!
//! Knows groups and rewards, not the ranking.

use std::collections::HashMap;

use super::expected_gain::GainPredictor;
use super::posterior::Beliefs;
use super::seen_rewards::SeenRewards;
use super::sorted_tables::SortedTables;
use super::strategies::strategy;
use crate::operators::OperatorError;
use crate::operators::support::running_spread::{RunningSpread, Spread};
use crate::pipeline::spec::select::{Select, Strategy};
use crate::sql::PromptGroups;

/// Facts about all prompts. Each is there if the settings need it.
#[derive(Default)]
pub(super) struct Population {
    /// The spread of the scores of each group.
    pub(super) group_spreads: Option<GroupSpreads>,
    /// The prediction of gains and tokens.
    pub(super) predictor: Option<GainPredictor>,
    /// The scale of beliefs.
    pub(super) beliefs: Option<Beliefs>,
}

impl Population {
    /// Reads all tables once, if the settings need it.
    pub(super) fn new<'s>(
        settings: &Select,
        tables: impl FnOnce() -> Result<PromptGroups<'s>, OperatorError>,
    ) -> Result<Self, OperatorError> {
        let mut group_spreads = strategy(settings).group_column().map(|_| GroupSpreads::default());
        let posterior = match settings.strategy {
            Strategy::Posterior(settings) => Some(settings),
            _ => None,
        };
        let mut seen = (settings.predicts() || posterior.is_some()).then(SeenRewards::default);
        if group_spreads.is_none() && seen.is_none() {
            return Ok(Self::default());
        }
        for tables in tables()? {
            let tables = tables?;
            SortedTables::new(&tables)?.for_each_prompt(settings, |prompt| {
                if let (Some(spreads), Some(score)) = (&mut group_spreads, prompt.score) {
                    spreads.add(prompt.group, score);
                }
                if let Some(seen) = &mut seen {
                    seen.add(prompt.rewards, prompt.token_counts);
                }
            })?;
        }
        let Some(seen) = seen else { return Ok(Self { group_spreads, ..Self::default() }) };
        let predictor = settings.predicts().then(|| GainPredictor::new(&seen, settings));
        let beliefs = posterior.map(|settings| Beliefs::new(&seen, settings)).transpose()?;
        Ok(Self { group_spreads, predictor, beliefs })
    }
}

/// Mean and standard deviation of the scores of each group.
#[derive(Default)]
pub(super) struct GroupSpreads {
    named: HashMap<String, RunningSpread>,
    /// The prompts without a group.
    unnamed: RunningSpread,
}

impl GroupSpreads {
    fn add(&mut self, group: Option<&str>, score: f64) {
        let Some(name) = group else { return self.unnamed.add(score) };
        // A name is copied once a group, not once a prompt.
        match self.named.get_mut(name) {
            Some(spread) => spread.add(score),
            None => self.named.entry(name.to_string()).or_default().add(score),
        }
    }

    /// Zeros for a group without any score.
    pub(super) fn of_group(&self, group: Option<&str>) -> Spread {
        match group {
            Some(name) => self.named.get(name).map_or(Spread::default(), RunningSpread::spread),
            None => self.unnamed.spread(),
        }
    }
}
