//! Benchmark: what tuning kept, one row a metric.

use super::check::{at_least, finite, finite_or_null, not_empty};

table! {
    Benchmark, version 1, key [task, metric];
    /// One metric of one task, of the policy and of the baseline on the same items.
    pub struct Row {
        /// The task.
        pub task: String,
        /// The metric: `acc`, `acc_norm`, `acc_bytes`, `mc2`, or a name of the task's `metrics`.
        pub metric: String,
        /// Whether it is the metric of the summary and of `guard`.
        pub primary: bool,
        /// The number of items with a score.
        pub items: i64,
        /// The number of items without a score, such as those with a failed reward.
        pub failed: i64,
        /// The policy's mean score.
        pub value: f64,
        /// The baseline's mean score. Null without a baseline.
        pub baseline: Option<f64>,
        /// The mean over items of policy minus baseline. Only items with a score of both count.
        pub change: Option<f64>,
        /// The lower end of the change's 95 % interval: a bootstrap over items, policy and baseline
        /// paired.
        pub change_low: Option<f64>,
        /// The upper end.
        pub change_high: Option<f64>,
    }
}

impl View<'_> {
    /// Finite numbers; a change with its interval.
    fn check(&self) -> Result<(), String> {
        not_empty("task", self.task)?;
        not_empty("metric", self.metric)?;
        at_least("items", 1, self.items)?;
        at_least("failed", 0, self.failed)?;
        finite("value", self.value)?;
        finite_or_null("baseline", self.baseline)?;
        let change = [("change", self.change), ("change_low", self.change_low), ("change_high", self.change_high)];
        if change.iter().any(|(_, number)| number.is_some() != self.change.is_some()) {
            return Err("expected change, change_low and change_high together, found some without the others".to_string());
        }
        change.into_iter().try_for_each(|(name, number)| finite_or_null(name, number))
    }
}
