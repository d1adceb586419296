//! Prompts scored on one way through the pool, and ranked by a query: what `definition` says, faster.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int8Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::definition::text_column;
use super::{Known, Quota, Rule, Spread, rule};
use crate::operators::OperatorError;
use crate::operators::support::rng;
use crate::pipeline::spec::select::{RankBy, Select};
use crate::sql::{PromptGroups, Rows as Ranked, Session};
use crate::tables::{column, selection};

/// What is asked of the tables.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// How prompts are ranked.
    pub settings: &'a Select,
    /// How many are selected.
    pub quota: Quota,
    /// What draws come from.
    pub stream: rng::Stream,
    /// The query for the pool's rows, `prompt_id, reward, sampled_iteration`, in the order of their prompts: [`POOL`], or one that sorts.
    pub pool: &'a str,
}

/// The rows of a pool, which has them in the order of its prompts.
pub const POOL: &str = "SELECT prompt_id, reward, sampled_iteration FROM pool";

/// What [`sql`](super::sql) says of the tables `prompts`, `pool` and maybe `previous` of a session: batch by batch. The draws of `prompts` come from `stream` and the ids, so neither order nor company matters. Prompts are ranked in
/// the session `ranking`, which works while it is given them and so must be one with a limit of memory. The tables are read once more where
/// groups are compared.
///
/// # Errors
/// A table is missing, or a row of the pool is not in its place. What fails later is an error in the place of a batch.
pub fn rows<'s>(
    session: &'s Session,
    ranking: &'s Session,
    Question { settings, quota, stream, pool }: Question,
    slices: impl Fn() -> PromptGroups<'s>,
) -> Result<Rows<'s>, OperatorError> {
    let rule = rule(settings);
    let walk = || {
        let group = rule.group().map_or(String::new(), |group| format!(", {} AS of_group", text_column(group)));
        let ids = session.rows(&format!("SELECT prompt_id{group} FROM prompts ORDER BY prompt_id"))?;
        let slices = slices().with("prompts", selection::KEY, ids);
        let slices = slices.with("pool", &[], session.rows(pool)?);
        Ok::<_, OperatorError>(match settings.previous {
            Some(_) => slices.with("previous", selection::KEY, session.rows("SELECT prompt_id, score FROM previous ORDER BY prompt_id")?),
            None => slices,
        })
    };
    let groups = if rule.group().is_some() { spreads(walk()?, settings, stream)? } else { HashMap::new() };
    let tiers = settings.max_age.is_some() || rule.eligible_sql().is_some() || rule.dropped() > 0.0;
    let schema = scored_schema(rule, tiers);
    let (sender, scored) = sync_channel(1);
    ranking.register_rows("scored", schema.clone(), scored)?;
    let first = if tiers { "tier, " } else { "" };
    let ranked = ranking.rows(&format!("SELECT prompt_id, score FROM scored ORDER BY {first}{}, place", rule.order()))?;
    // The latest iteration whose responses are too old by now.
    let overdue = settings.max_age.map(|age| i64::from(stream.iteration) - i64::from(age));
    let (mut place, mut counts) = (0, [0; 3]);
    for slice in walk()? {
        let slice = slice?;
        let prompts: &StringArray = column(&slice[0], "prompt_id")?;
        let (mut scores, mut keys, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
        each(&slice, settings, &groups, stream, |prompt, sampled_iteration| {
            scores.push(prompt.score);
            keys.push(rule.key(prompt));
            kinds.push(match (overdue, sampled_iteration) {
                (Some(overdue), Some(sampled_iteration)) if i64::from(sampled_iteration) <= overdue => 0_i8,
                _ if rule.is_eligible(prompt) => 1,
                _ => 2,
            });
        })?;
        kinds.iter().for_each(|kind| counts[*kind as usize] += 1);
        let places = Int64Array::from_iter_values(place..place + prompts.len() as i64);
        place += prompts.len() as i64;
        let mut columns: Vec<ArrayRef> = vec![slice[0].column(0).clone(), Arc::new(Float64Array::from(scores)), Arc::new(places)];
        columns.extend(rule.key_sql().map(|_| Arc::new(Float64Array::from(keys)) as ArrayRef));
        columns.extend(tiers.then(|| Arc::new(Int8Array::from(kinds)) as ArrayRef));
        // Nobody receives where the query has failed; its rows say why.
        if sender.send(RecordBatch::try_new(schema.clone(), columns)?).is_err() {
            break;
        }
    }
    drop(sender);
    let [overdue, eligible, _] = counts;
    Ok(Rows { ranked, is_selected: Box::new(quota.ranks(overdue, eligible)), before: 0, selected: 0 })
}

/// The selection, batch by batch, in the order of ranks.
pub struct Rows<'s> {
    ranked: Ranked<'s>,
    is_selected: Box<dyn Fn(usize) -> bool>,
    before: usize,
    selected: usize,
}

impl Rows<'_> {
    /// How many prompts were selected so far.
    pub fn selected(&self) -> usize {
        self.selected
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<RecordBatch, OperatorError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.ranked.next()?;
        Some(batch.map_err(OperatorError::from).and_then(|batch| {
            let ranks = self.before + 1..=self.before + batch.num_rows();
            self.before += batch.num_rows();
            let selected: Vec<bool> = ranks.clone().map(&self.is_selected).collect();
            self.selected += selected.iter().filter(|selected| **selected).count();
            let ranks = Int64Array::from_iter_values(ranks.map(|rank| rank as i64));
            let [ids, scores] = [0, 1].map(|index| batch.column(index).clone());
            let columns: Vec<ArrayRef> = vec![ids, scores, Arc::new(ranks), Arc::new(BooleanArray::from(selected))];
            Ok(RecordBatch::try_new(selection::schema(), columns)?)
        }))
    }
}

/// Prompts in the order of their ids, whose `place` that is.
fn scored_schema(rule: &dyn Rule, tiers: bool) -> SchemaRef {
    let mut fields = vec![
        Field::new("prompt_id", DataType::Utf8, false),
        Field::new("score", DataType::Float64, true),
        Field::new("place", DataType::Int64, false),
    ];
    fields.extend(rule.key_sql().map(|_| Field::new("key", DataType::Float64, true)));
    fields.extend(tiers.then(|| Field::new("tier", DataType::Int8, false)));
    Arc::new(Schema::new(fields))
}

/// Tells all of a slice's prompts, one after the other, each with the iteration in which its responses were sampled. All tables ascend by prompt_id.
fn each(
    slice: &[RecordBatch],
    settings: &Select,
    groups: &HashMap<Option<String>, Spread>,
    stream: rng::Stream,
    mut tell: impl FnMut(&Known, Option<i32>),
) -> Result<(), OperatorError> {
    let prompts: &StringArray = column(&slice[0], "prompt_id")?;
    let group: Option<&StringArray> = if groups.is_empty() { None } else { Some(column(&slice[0], "of_group")?) };
    let pool = &slice[1];
    let (ids, rewards, sampled_iteration): (&StringArray, &Float64Array, &Int32Array) =
        (column(pool, "prompt_id")?, column(pool, "reward")?, column(pool, "sampled_iteration")?);
    let previous: Option<(&StringArray, &Float64Array)> = match slice.get(2) {
        Some(previous) => Some((column(previous, "prompt_id")?, column(previous, "score")?)),
        None => None,
    };
    let (mut next, mut next_before) = (0, 0);
    for (row, id) in prompts.iter().flatten().enumerate() {
        while next < ids.len() && ids.value(next) < id {
            next += 1;
        }
        let start = next;
        while next < ids.len() && ids.value(next) == id {
            next += 1;
        }
        let before = previous.and_then(|(ids, scores)| {
            while next_before < ids.len() && ids.value(next_before) < id {
                next_before += 1;
            }
            let is_there = next_before < ids.len() && ids.value(next_before) == id && scores.is_valid(next_before);
            is_there.then(|| scores.value(next_before))
        });
        let group = group.and_then(|group| groups.get(&group.is_valid(row).then(|| group.value(row).to_string())));
        let rewards = &rewards.values()[start..next];
        let score = (!rewards.is_empty()).then(|| statistic(rewards, settings.rank_by));
        let known = Known { id, rewards, score, before, group: group.copied().unwrap_or_default(), stream };
        tell(&known, sampled_iteration.values()[start..next].iter().copied().max());
    }
    Ok(())
}

/// Mean and standard deviation of the scores of every group, by Welford's sums.
fn spreads(slices: PromptGroups, settings: &Select, stream: rng::Stream) -> Result<HashMap<Option<String>, Spread>, OperatorError> {
    let mut groups: HashMap<Option<String>, (f64, Spread)> = HashMap::new();
    for slice in slices {
        let slice = slice?;
        let names: &StringArray = column(&slice[0], "of_group")?;
        let mut names = names.iter();
        each(&slice, settings, &HashMap::new(), stream, |prompt, _| {
            let (count, spread) = groups.entry(names.next().flatten().map(str::to_string)).or_default();
            if let Some(score) = prompt.score {
                *count += 1.0;
                let distance = score - spread.mean;
                spread.mean += distance / *count;
                spread.deviation += distance * (score - spread.mean);
            }
        })?;
    }
    let spread = |(count, spread): (f64, Spread)| Spread { deviation: (spread.deviation / count.max(1.0)).sqrt(), ..spread };
    Ok(groups.into_iter().map(|(name, sums)| (name, spread(sums))).collect())
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
