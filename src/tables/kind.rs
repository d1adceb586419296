//! The tables with a fixed schema, by name.
//!
//! Knows names only. `definitions.rs` has the schema and the rules of each table.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The key of the table's name in a schema's metadata.
pub const TABLE_KEY: &str = "table";
/// The key of the schema's version in a schema's metadata.
pub const SCHEMA_VERSION_KEY: &str = "schema_version";

/// One of the tables with a fixed schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableKind {
    /// The prompts: [`super::prompts`].
    Prompts,
    /// The prompts to sample new responses for: [`super::selection`].
    Selection,
    /// Responses sampled from a policy: [`super::responses`].
    Responses,
    /// The rewards of responses: [`super::rewards`].
    Rewards,
    /// The newest responses of every prompt, with their rewards: [`super::pool`].
    Pool,
    /// Chosen and rejected responses: [`super::pairs`].
    Pairs,
    /// The optimizer's updates: [`super::training`].
    Training,
    /// The policy against the baseline on held-out prompts: [`super::evaluation`].
    Evaluation,
    /// A reward model on held-out preferences: [`super::ranking`].
    Ranking,
    /// A model's answers to a benchmark: [`super::answers`].
    Answers,
    /// The graded answers: [`super::items`].
    Items,
    /// What tuning kept: [`super::benchmark`].
    Benchmark,
    /// A judge's verdicts on pairs of responses: [`super::judgments`].
    Judgments,
    /// Memoized logprobs of responses: [`super::logprobs`].
    Logprobs,
    /// Memoized answers of judges: [`super::judge_answers`].
    JudgeAnswers,
    /// Flags and notes of a person: [`super::annotations`].
    Annotations,
}

impl TableKind {
    /// Every kind, in data-flow order.
    pub const ALL: [TableKind; 16] = [
        TableKind::Prompts,
        TableKind::Selection,
        TableKind::Responses,
        TableKind::Rewards,
        TableKind::Pool,
        TableKind::Pairs,
        TableKind::Training,
        TableKind::Evaluation,
        TableKind::Ranking,
        TableKind::Answers,
        TableKind::Items,
        TableKind::Benchmark,
        TableKind::Judgments,
        TableKind::Logprobs,
        TableKind::JudgeAnswers,
        TableKind::Annotations,
    ];

    /// The name in schemas, manifests and error messages.
    pub fn name(self) -> &'static str {
        match self {
            TableKind::Prompts => "prompts",
            TableKind::Selection => "selection",
            TableKind::Responses => "responses",
            TableKind::Rewards => "rewards",
            TableKind::Pool => "pool",
            TableKind::Pairs => "pairs",
            TableKind::Training => "training",
            TableKind::Evaluation => "evaluation",
            TableKind::Ranking => "ranking",
            TableKind::Answers => "answers",
            TableKind::Items => "items",
            TableKind::Benchmark => "benchmark",
            TableKind::Judgments => "judgments",
            TableKind::Logprobs => "logprobs",
            TableKind::JudgeAnswers => "judge_answers",
            TableKind::Annotations => "annotations",
        }
    }
}

impl fmt::Display for TableKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
