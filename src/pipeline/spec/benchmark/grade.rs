//! `grade`: the scores of a model's answers to the items of a benchmark. Never written by a user:
//! every `benchmark` adds one for the policy and one for the baseline.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Benchmark;
use super::answer::Question;
use super::metric::{ExactMatch, Extract, Metric};

/// The metrics of all tasks, by the tasks' names.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Grade {
    /// The tasks. The inputs `items` are in the order of their names.
    pub tasks: BTreeMap<String, GradedTask>,
}

/// How the answers of one task are graded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GradedTask {
    /// Choices and right answers of the items.
    pub question: Question,
    /// The metrics of a generated answer, by name; empty for multiple choice.
    pub metrics: BTreeMap<String, GradedMetric>,
}

/// A metric without the name of its reward.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GradedMetric {
    /// The part of the answer that counts.
    pub extract: Option<Extract>,
    /// The kind.
    pub kind: MetricKind,
}

/// The kinds of metrics.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// Equal texts.
    ExactMatch(ExactMatch),
    /// An SQL expression.
    Sql(String),
    /// A reward: the next of the inputs `rewards`, in the order of tasks and metrics.
    Reward,
}

impl Grade {
    /// The metrics of a benchmark.
    pub fn new(benchmark: &Benchmark) -> Self {
        let graded = |task: &super::task::BenchmarkTask| {
            let question = Question::new(task);
            let mut metrics: BTreeMap<String, GradedMetric> =
                task.metrics.iter().map(|(name, metric)| (name.value.clone(), GradedMetric::new(metric))).collect();
            if metrics.is_empty() && !task.is_choice() {
                metrics.insert("exact_match".to_string(), GradedMetric::new(&Metric::exact()));
            }
            GradedTask { question, metrics }
        };
        Self { tasks: benchmark.tasks.iter().map(|(name, task)| (name.value.clone(), graded(task))).collect() }
    }
}

impl GradedMetric {
    fn new(metric: &Metric) -> Self {
        let kind = match (&metric.sql, &metric.reward, &metric.exact_match) {
            (Some(sql), _, _) => MetricKind::Sql(sql.clone()),
            (None, Some(_), _) => MetricKind::Reward,
            (None, None, exact_match) => MetricKind::ExactMatch(exact_match.clone().unwrap_or_default()),
        };
        Self { extract: metric.extract.clone(), kind }
    }
}
