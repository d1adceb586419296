//! `answer`: a model's answers to the items of a benchmark. Never written by a user: every
//! `benchmark` adds one for the policy and one for the baseline.
//!
//! Has only the settings with an effect on the answers, so that another metric asks nothing again.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Benchmark;
use super::task::{BenchmarkTask, Choices, GenerateAnswer, Target};

/// The questions of all tasks, by the tasks' names.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// The tasks. The inputs `items` are in the order of their names; so are the inputs `examples`,
    /// of the tasks that have some.
    pub questions: BTreeMap<String, Question>,
}

/// How the items of one task are asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Question {
    /// The column of the ids.
    pub id: Option<String>,
    /// A column or a template.
    pub question: String,
    /// The choices; none where the answer is generated.
    pub choices: Option<Choices>,
    /// The right answer, read here for examples only.
    pub target: RightAnswer,
    /// The text between a question and its answer.
    pub delimiter: String,
    /// The text in front of everything.
    pub description: Option<String>,
    /// The examples.
    pub few_shot: Option<Examples>,
    /// Whether it goes through the chat template.
    pub chat: bool,
    /// How an answer is generated; none for multiple choice.
    pub generate: Option<GenerateAnswer>,
}

/// Where the right answer of an item is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RightAnswer {
    /// One answer, or several texts.
    One(Target),
    /// A label for each choice.
    Labels(String),
    /// The item has none: a reward or a query knows.
    None,
}

/// Answered examples in front of a question.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Examples {
    /// How many.
    pub count: u32,
    /// Whether they have a table of their own.
    pub has_table: bool,
    /// The column that examples share with the item.
    pub group: Option<String>,
    /// The text behind each.
    pub separator: String,
    /// Whether each is two turns of a chat.
    pub as_turns: bool,
}

impl Answer {
    /// The questions of a benchmark.
    pub fn new(benchmark: &Benchmark) -> Self {
        Self { questions: benchmark.tasks.iter().map(|(name, task)| (name.value.clone(), Question::new(task))).collect() }
    }
}

impl Question {
    /// The questions of a task.
    pub fn new(task: &BenchmarkTask) -> Self {
        let few_shot = task.few_shot.as_ref().map(|examples| Examples {
            count: examples.count,
            has_table: examples.from.is_some(),
            group: examples.group.clone(),
            separator: examples.separator.clone(),
            as_turns: examples.as_turns,
        });
        Self {
            id: task.id.clone(),
            question: task.question.value.clone(),
            choices: task.choices.as_ref().map(|choices| choices.value.clone()),
            target: RightAnswer::new(task),
            delimiter: task.delimiter.clone(),
            description: task.description.as_ref().map(|description| description.value.clone()),
            few_shot,
            chat: task.chat,
            generate: if task.is_choice() { None } else { Some(task.generate.clone().unwrap_or_default()) },
        }
    }
}

impl RightAnswer {
    /// Where a task has it.
    pub fn new(task: &BenchmarkTask) -> Self {
        match (&task.answer, &task.labels) {
            (Some(answer), _) => Self::One(answer.value.clone()),
            (None, Some(labels)) => Self::Labels(labels.value.clone()),
            (None, None) => Self::None,
        }
    }
}

/// The generated answers of one task as responses, with the items' prompts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AnswerResponses {
    /// The task's name.
    pub task: String,
}
