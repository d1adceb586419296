//! judge: a judge's verdicts on the policy's responses beside a baseline's, each pair in both
//! orders.
//!
//! Answers are kept as they come, so an interrupted node asks for the missing ones only. Equal
//! texts are a tie without a question. Knows nothing of rewards.

use std::collections::{BTreeMap, HashSet};

use super::support::judging::{Asked, Choice, Cost, Judging, Key, Subjects, read_choice};
use super::support::rows::rows_of;
use super::{Context, OperatorError, Summary};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::engine::Failures;
use crate::pipeline::spec::judge::{Judge, Question};
use crate::store::TableWriter;
use crate::tables::judgments::{BASELINE_FIRST, POLICY_FIRST};
use crate::tables::{Outcome, TableKind, judgments, responses};
use crate::win_rates::{Figures, Judged};

/// Pairs in one part, unless the node's resources have another number. Their answers are kept
/// before.
const PAIRS_PER_PART: usize = 256;

/// This module in internal errors.
const PLACE: &str = "operators::judge";

/// The orders of a question, with whether the policy's response is the first.
const ORDERS: [(&str, bool); 2] = [(BASELINE_FIRST, false), (POLICY_FIRST, true)];

/// Writes two rows a pair of responses.
pub(super) fn run(context: &Context, judge: &Judge) -> Result<Summary, OperatorError> {
    let pairs = pairs(context)?;
    let mut writer = context.writer(Some(TableKind::Judgments), pairs.len(), PAIRS_PER_PART)?;
    let open = open_parts(&writer)?;
    let mut cost = Cost::default();
    if !open.is_empty() {
        let mut judging = Judging::open(context, judge, Question::Pair)?;
        let subjects = Subjects::read(context, judging.template(), Question::Pair)?;
        let mut parts = Vec::with_capacity(open.len());
        for part in open {
            let items = rows_of(&pairs, writer.rows_of(part), PLACE)?.iter().map(|pair| items(&judging, &subjects, pair));
            parts.push((part, items.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect::<Vec<_>>()));
        }
        let asked = ask(context, judge, &mut judging, &parts);
        judging.record()?;
        let asked = asked?;
        cost = asked.cost;
        for (part, items) in &parts {
            let rows = items.iter().map(|item| item.row(judge, &judging, &asked)).collect::<Vec<_>>();
            writer.replace(*part, &judgments::batch(&rows))?;
        }
    }
    finish(context, judge, writer, cost)
}

/// A response of the policy beside one of the baseline.
struct Pair {
    prompt_id: String,
    response_index: i32,
    text: String,
    baseline_text: String,
}

/// The pairs, in the order of the table: the policy's n-th response beside the baseline's n-th,
/// which begin again where they are fewer.
fn pairs(context: &Context) -> Result<Vec<Pair>, OperatorError> {
    let answered = |slot: Slot| -> Result<BTreeMap<String, Vec<responses::Row>>, OperatorError> {
        let mut by_prompt: BTreeMap<String, Vec<responses::Row>> = BTreeMap::new();
        for row in context.rows(slot, responses::rows)?.into_iter().filter(|row| row.error.is_none()) {
            by_prompt.entry(row.prompt_id.clone()).or_default().push(row);
        }
        by_prompt.values_mut().for_each(|rows| rows.sort_by_key(|row| row.response_index));
        Ok(by_prompt)
    };
    let baseline = answered(Slot::BaselineResponses)?;
    let mut pairs = Vec::new();
    for (prompt_id, policy) in answered(Slot::Responses)? {
        let Some(baseline) = baseline.get(&prompt_id) else { continue };
        for (row, other) in policy.into_iter().zip(baseline.iter().cycle()) {
            pairs.push(Pair {
                prompt_id: prompt_id.clone(),
                response_index: row.response_index,
                text: row.text,
                baseline_text: other.text.clone(),
            });
        }
    }
    Ok(pairs)
}

/// The parts that are missing, or have an error.
fn open_parts(writer: &TableWriter) -> Result<Vec<usize>, OperatorError> {
    let mut open = Vec::new();
    for part in 0..writer.part_count() {
        let rows = writer.committed_part(part)?.map(|batch| judgments::rows(&batch)).transpose()?;
        if rows.is_none_or(|rows| rows.iter().any(|row| row.error.is_some())) {
            open.push(part);
        }
    }
    Ok(open)
}

/// One row to be made: a pair in one order.
struct Item<'p> {
    pair: &'p Pair,
    order: &'static str,
    policy_first: bool,
    question: Asking,
}

/// The question of an item.
enum Asking {
    /// None: both texts are equal.
    Equal,
    /// None: the template fails.
    Failed(String),
    /// This one.
    Question(Key, String),
}

/// The rows of a pair: both orders.
fn items<'p>(judging: &Judging, subjects: &Subjects, pair: &'p Pair) -> Result<Vec<Item<'p>>, OperatorError> {
    let subject = subjects.of(&pair.prompt_id)?;
    let item = |(order, policy_first): (&'static str, bool)| {
        let (first, second) = if policy_first { (&pair.text, &pair.baseline_text) } else { (&pair.baseline_text, &pair.text) };
        let question = if first == second {
            Asking::Equal
        } else {
            match judging.question(subject, &[first, second]) {
                Ok(question) => Asking::Question(judging.key(&question), question),
                Err(problem) => Asking::Failed(problem),
            }
        };
        Item { pair, order, policy_first, question }
    };
    Ok(ORDERS.into_iter().map(item).collect())
}

/// Asks all questions of these parts without a kept answer.
fn ask(context: &Context, judge: &Judge, judging: &mut Judging, parts: &[(usize, Vec<Item>)]) -> Result<Asked, OperatorError> {
    let mut questions = Vec::new();
    for item in parts.iter().flat_map(|(_, items)| items) {
        if let Asking::Question(key, question) = &item.question {
            questions.push((*key, question.clone()));
        }
    }
    let wanted: HashSet<Key> = questions.iter().map(|(key, _)| *key).collect();
    judging.recall(&wanted)?;
    let known = wanted.iter().filter(|key| judging.known(key).is_some()).count() as u64;
    let label = context.task.label();
    let mut done = known;
    context.progress.started(&label, "questions", done, wanted.len() as u64);
    let read = |answer: &crate::tables::judge_answers::Row, is_cut: bool| read_choice(judge, answer, is_cut).map(drop);
    judging.ask(&questions, &read, &mut |_, cost| {
        done += 1;
        context.progress.advanced(&label, done, u64::try_from(cost.completion_tokens).unwrap_or(0));
    })
}

impl Item<'_> {
    /// The row: a verdict, or the reason why there is none.
    fn row(&self, judge: &Judge, judging: &Judging, asked: &Asked) -> judgments::Row {
        let mut row = judgments::Row {
            prompt_id: self.pair.prompt_id.clone(),
            response_index: self.pair.response_index,
            order: self.order.to_string(),
            verdict: None,
            text: self.pair.text.clone(),
            baseline_text: self.pair.baseline_text.clone(),
            answer: None,
            prompt_tokens: None,
            completion_tokens: None,
            error: None,
        };
        let verdict = match &self.question {
            Asking::Equal => Ok(Choice::Tie),
            Asking::Failed(problem) => Err(problem.clone()),
            Asking::Question(key, _) => match judging.known(key) {
                Some(answer) => {
                    row.answer = Some(answer.text.clone());
                    row.prompt_tokens = Some(answer.prompt_tokens);
                    row.completion_tokens = Some(answer.completion_tokens);
                    read_choice(judge, answer, false)
                }
                None => Err(asked.failed.get(key).cloned().unwrap_or_else(|| "the question was not asked".to_string())),
            },
        };
        match verdict {
            Ok(Choice::Tie) => row.verdict = Some(Outcome::Tie),
            Ok(choice) => row.verdict = Some(if (choice == Choice::A) == self.policy_first { Outcome::Win } else { Outcome::Loss }),
            Err(problem) => row.error = Some(problem),
        }
        row
    }
}

/// Finishes the table, unless rows without a verdict stop it. Totals are over all rows, so an
/// interrupted node has the same ones.
fn finish(context: &Context, judge: &Judge, writer: TableWriter, asked: Cost) -> Result<Summary, OperatorError> {
    let mut rows = Vec::new();
    for batch in writer.committed()? {
        rows.extend(judgments::rows(&batch)?);
    }
    let failed = rows.iter().filter(|row| row.error.is_some()).count();
    let first = rows.iter().find_map(|row| row.error.as_ref().map(|error| format!("prompt {}: {error}", row.prompt_id)));
    if let Some(first) = first {
        let message = format!("{failed} of {} verdicts failed, the first: {first}", rows.len());
        if judge.failures == Failures::Stop {
            return Err(OperatorError::Failed(format!(
                "{message}; the same command asks only for these again (`failures: keep` in judge goes on without them)"
            )));
        }
        context.progress.warned(&context.task.label(), &message);
    }
    let pairs = judgments::judged(&rows);
    let preferences: Vec<f64> = pairs.iter().filter_map(Judged::preference).collect();
    let count = |preference: f64| preferences.iter().filter(|found| **found == preference).count() as i64;
    let total = |tokens: fn(&judgments::Row) -> Option<i64>| rows.iter().filter_map(tokens).sum::<i64>();
    let counts = [
        ("pairs", pairs.len() as i64),
        ("wins", count(1.0)),
        ("ties", count(0.5)),
        ("losses", count(0.0)),
        ("failed", failed as i64),
        ("judge_prompt_tokens", total(|row| row.prompt_tokens)),
        ("judge_completion_tokens", total(|row| row.completion_tokens)),
    ];
    writer.finish(counts.into_iter().map(|(name, count)| (name.to_string(), count)).collect())?;
    let text = match Figures::of(&pairs) {
        Some(figures) => format!("{}, {asked}", described(&figures)),
        None => "no prompt has a response of both models with verdicts".to_string(),
    };
    Ok(Summary::new(text))
}

/// The figures in a few words.
fn described(figures: &Figures) -> String {
    let percent =
        |estimate: Option<crate::win_rates::Estimate>| estimate.map_or("-".to_string(), |estimate| format!("{:.1}", estimate.value));
    format!(
        "win score {:.1}, win rate {:.1} %, length-controlled {} %, the orders disagree on {} % of {} pairs",
        figures.win_score.value,
        figures.win_rate.value,
        percent(figures.length_controlled),
        percent(figures.position_bias),
        figures.pairs
    )
}
