//! grade: the scores of a model's answers, one row an item.
//!
//! Scores follow lm-evaluation-harness 0.4.13: `acc` by logprobs, `acc_norm` by logprobs divided
//! by the choice's characters, `acc_bytes` by its bytes in UTF-8, `mc2` the share of probability of
//! the right choices. Knows no model.

mod query;
mod texts;

use std::collections::{BTreeMap, HashMap};

use super::support::benchmark_items::{Item, Right, items};
use super::support::rows::signed;
use super::{Context, OperatorError, Summary};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::benchmark::grade::{Grade, GradedMetric, GradedTask, MetricKind};
use crate::tables::{FinishReason, TableKind, answers, items as table, rewards};

pub use query::check as check_expression;
use texts::Scores;

/// This module in internal errors.
const PLACE: &str = "operators::grade";

/// Grades all answers.
pub(super) fn run(context: &Context, settings: &Grade) -> Result<Summary, OperatorError> {
    let mut answered: BTreeMap<String, Vec<answers::Row>> = BTreeMap::new();
    for row in context.rows(Slot::Answers, answers::rows)? {
        answered.entry(row.task.clone()).or_default().push(row);
    }
    let missing = || OperatorError::internal(PLACE, format!("{}: a task without a table", context.task.label()));
    let mut tables = context.task.inputs(Slot::Items);
    let mut rewards = context.task.inputs(Slot::AnswerRewards);
    let mut rows = Vec::new();
    for (name, graded) in &settings.tasks {
        let table = tables.next().ok_or_else(missing)?;
        let batches = context.batches_of(table.input)?;
        let items = items(&graded.question, &table.name, &batches)?;
        let answers = answered.remove(name).unwrap_or_default();
        if answers.len() != items.len() || answers.iter().zip(&items).any(|(answer, item)| answer.item != item.row as i64) {
            let problem = format!("task {name}: expected the answers to {} items in their order, found {}", items.len(), answers.len());
            return Err(OperatorError::internal(PLACE, problem));
        }
        let mut scores = vec![Scores::new(); items.len()];
        for (metric, GradedMetric { extract, kind }) in &graded.metrics {
            let extracted = texts::extracted(extract.as_ref(), &answers)?;
            match kind {
                MetricKind::ExactMatch(settings) => texts::exact_match(metric, settings, &extracted, &items, &mut scores)?,
                MetricKind::Sql(expression) => {
                    let found = query::scores(context, expression, &batches, &answers, &extracted, &items);
                    let found = found.map_err(|error| error.of(&format!("task {name}: metric {metric}")))?;
                    for (scores, score) in scores.iter_mut().zip(found) {
                        scores.extend(score.map(|score| (metric.clone(), score)));
                    }
                }
                MetricKind::Reward => {
                    let input = rewards.next().ok_or_else(missing)?;
                    add_rewards(metric, &context.batches_of(input.input)?, &items, &mut scores)?;
                }
            }
        }
        for ((item, answer), scores) in items.iter().zip(answers).zip(scores) {
            rows.push(row(graded, item, answer, scores)?);
        }
    }
    let graded = rows.len() as i64;
    let counts = [("items", graded)];
    context.write_relation(TableKind::Items, |relation| relation.write(&table::batch(&rows)).map(|()| counts))?;
    Ok(Summary::new(format!("{graded} answers graded")))
}

/// The row of an item with its answer.
fn row(task: &GradedTask, item: &Item, answer: answers::Row, mut scores: Scores) -> Result<table::Row, OperatorError> {
    let mut picked = None;
    let mut right = None;
    let mut text = answer.text;
    if let (Some(logprobs), Right::Choices(rights)) = (&answer.logprobs, &item.right) {
        if logprobs.len() != item.choices.len() {
            let problem = format!("item {}: {} logprobs of {} choices", item.id, logprobs.len(), item.choices.len());
            return Err(OperatorError::internal(PLACE, problem));
        }
        let first = choice_scores(logprobs, &item.choices, rights, &mut scores);
        if matches!(task.question.target, crate::pipeline::spec::benchmark::answer::RightAnswer::Labels(_)) {
            scores.insert("mc2".to_string(), right_share(logprobs, rights));
        }
        text = item.choices.get(first).cloned().unwrap_or_default();
        picked = Some(signed(first, PLACE)?);
        right = Some(rights.iter().map(|right| signed(*right, PLACE)).collect::<Result<Vec<_>, OperatorError>>()?);
    }
    let token_count = answer.token_ids.len().saturating_sub(usize::try_from(answer.prompt_token_count).unwrap_or(0));
    let is_generated = answer.finish_reason.is_some();
    Ok(table::Row {
        task: answer.task,
        item: answer.item,
        item_id: answer.item_id,
        logprobs: answer.logprobs,
        picked,
        right,
        text,
        answer: if item.right == Right::Unknown { None } else { Some(item.answer().to_string()) },
        token_count: if is_generated { Some(signed(token_count, PLACE)?) } else { None },
        truncated: answer.finish_reason.map(|reason| reason == FinishReason::Length),
        scores,
    })
}

/// Adds the accuracies of one item; returns the choice with the highest logprob.
fn choice_scores(logprobs: &[f64], choices: &[String], right: &[usize], scores: &mut Scores) -> usize {
    let by = |length: &dyn Fn(&str) -> usize| {
        let divided: Vec<f64> = logprobs.iter().zip(choices).map(|(logprob, choice)| logprob / length(choice) as f64).collect();
        highest(&divided)
    };
    let first = highest(logprobs);
    let picked = [("acc", first), ("acc_norm", by(&|choice| choice.chars().count())), ("acc_bytes", by(&str::len))];
    for (metric, picked) in picked {
        scores.insert(metric.to_string(), f64::from(u8::from(right.contains(&picked))));
    }
    first
}

/// The index of the highest number; of equal ones the first.
fn highest(numbers: &[f64]) -> usize {
    let mut best = 0;
    for (index, number) in numbers.iter().enumerate() {
        if number > &numbers[best] {
            best = index;
        }
    }
    best
}

/// The probability of the right choices divided by that of all choices (TruthfulQA's MC2, Lin et
/// al. 2021, arXiv 2109.07958).
fn right_share(logprobs: &[f64], right: &[usize]) -> f64 {
    let most = logprobs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let shares: Vec<f64> = logprobs.iter().map(|logprob| (logprob - most).exp()).collect();
    right.iter().filter_map(|right| shares.get(*right)).sum::<f64>() / shares.iter().sum::<f64>()
}

/// Adds the rewards of the items and their components. An item without a reward has no score.
fn add_rewards(metric: &str, batches: &[arrow::array::RecordBatch], items: &[Item], scores: &mut [Scores]) -> Result<(), OperatorError> {
    let mut rewards: HashMap<String, rewards::Row> = HashMap::new();
    for batch in batches {
        rewards.extend(rewards::rows(batch)?.into_iter().map(|row| (row.prompt_id.clone(), row)));
    }
    for (item, scores) in items.iter().zip(scores) {
        let missing = || OperatorError::internal(PLACE, format!("metric {metric}: no reward of item {}", item.id));
        let row = rewards.get(&item.id).ok_or_else(missing)?;
        scores.extend(row.reward.map(|reward| (metric.to_string(), reward)));
        let components = row.components.iter().flatten().map(|(name, value)| (format!("{metric}.{name}"), *value));
        scores.extend(components);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{highest, right_share};

    #[test]
    fn of_equal_logprobs_the_first_is_picked() {
        assert_eq!(highest(&[-2.0, -1.0, -1.0]), 1);
        assert_eq!(highest(&[-1.0, -1.0]), 0);
    }

    #[test]
    fn the_share_of_right_choices_is_that_of_their_probabilities() {
        let share = right_share(&[0.5_f64.ln(), 0.25_f64.ln(), 0.125_f64.ln()], &[0, 2]);
        assert!((share - 0.625 / 0.875).abs() < 1e-15, "{share}");
        // Probabilities below the smallest number.
        let share = right_share(&[-2000.0, -2000.0 - 3.0_f64.ln()], &[1]);
        assert!((share - 0.25).abs() < 1e-12, "{share}");
    }
}
