//! Scores from a judge: each response is a question, and its answer the reward.
//!
//! Questions with a kept answer are not asked. Knows the prompts and their columns, not how a sum
//! of rewards is computed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use super::score_error::ScoreError;
use super::{ResponseToScore, Score, Scores};
use crate::operators::support::judging::{Cost, Judging, Key, Subjects, read_score};
use crate::operators::{Context, OperatorError};
use crate::pipeline::spec::engine::Failures;
use crate::pipeline::spec::judge::{Judge, Question};
use crate::tables::responses;

/// The name of this scorer in errors.
const SCORER: &str = "judge";

/// A judge with the prompts.
pub(super) struct JudgeScorer<'a> {
    judge: &'a Judge,
    subjects: Subjects,
    state: Mutex<State<'a>>,
}

struct State<'a> {
    judging: Judging<'a>,
    /// Tokens of this call.
    cost: Cost,
    /// The questions that failed in this call. They are not asked again before the next one.
    failed: HashMap<Key, String>,
}

impl<'a> JudgeScorer<'a> {
    /// Opens the judge, and reads the kept answers about these responses.
    pub(super) fn open(context: &'a Context, judge: &'a Judge, all: &[responses::Row]) -> Result<Self, OperatorError> {
        let mut judging = Judging::open(context, judge, Question::Score)?;
        let subjects = Subjects::read(context, judging.template(), Question::Score)?;
        let mut wanted = HashSet::new();
        for row in all.iter().filter(|row| row.error.is_none()) {
            wanted.extend(judging.question(subjects.of(&row.prompt_id)?, &[&row.text]).ok().map(|question| judging.key(&question)));
        }
        judging.recall(&wanted)?;
        Ok(Self { judge, subjects, state: Mutex::new(State { judging, cost: Cost::default(), failed: HashMap::new() }) })
    }

    /// Records what the judge's servers did.
    pub(super) fn record(&self) -> Result<(), OperatorError> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).judging.record()
    }

    /// Whether responses without an answer fail the node at its end.
    pub(super) fn stops(&self) -> bool {
        self.judge.failures == Failures::Stop
    }

    /// One score for each response, or the reason why there is none.
    pub(super) fn score(&self, responses: &[ResponseToScore]) -> Result<Scores, OperatorError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { judging, cost, failed } = &mut *state;
        let mut questions: Vec<Result<(Key, String), String>> = Vec::with_capacity(responses.len());
        for response in responses {
            let question = judging.question(self.subjects.of(&response.row.prompt_id)?, &[&response.row.text]);
            questions.push(question.map(|question| (judging.key(&question), question)));
        }
        let open = questions.iter().flatten().filter(|(key, _)| !failed.contains_key(key));
        let open: Vec<(Key, String)> = open.cloned().collect();
        let asked = judging.ask(&open, &|answer, is_cut| read_score(self.judge, answer, is_cut).map(drop), &mut |_, _| {})?;
        *cost = cost.and(asked.cost);
        failed.extend(asked.failed);
        let score = |question: Result<(Key, String), String>| {
            let key = question.map_err(ScoreError::Other)?.0;
            match judging.known(&key) {
                Some(answer) => Score::plain(SCORER, read_score(self.judge, answer, false).map_err(ScoreError::Other)?),
                None => {
                    let problem = failed.get(&key).map_or("the question was not asked", String::as_str);
                    Err(ScoreError::Other(format!("{SCORER}: {problem}")))
                }
            }
        };
        Ok(questions.into_iter().map(score).collect())
    }

    /// The tokens of the answers about these responses, asked now or before. They do not depend on
    /// interruptions.
    pub(super) fn count(&self, all: &[responses::Row], counts: &mut BTreeMap<String, i64>) -> Result<(), OperatorError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cost = Cost::default();
        for row in all.iter().filter(|row| row.error.is_none()) {
            let question = state.judging.question(self.subjects.of(&row.prompt_id)?, &[&row.text]);
            let answer = question.ok().and_then(|question| state.judging.known(&state.judging.key(&question)));
            answer.into_iter().for_each(|answer| cost.add(answer.prompt_tokens, answer.completion_tokens));
        }
        *counts.entry("judge_prompt_tokens".to_string()).or_default() += cost.prompt_tokens;
        *counts.entry("judge_completion_tokens".to_string()).or_default() += cost.completion_tokens;
        Ok(())
    }

    /// The questions and tokens of this call.
    pub(super) fn cost(&self) -> Cost {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).cost
    }
}
