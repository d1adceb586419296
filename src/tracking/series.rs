//! The numbers of a run by name and step, read from its committed tables, its checkpoints and its
//! journal.
//!
//! Names are those of TRL's trainers and of Hugging Face's, so that curves lie over each other:
//! `train/…` of DPOTrainer and OnlineDPOTrainer a step, `reward` and `completions/…` of GRPOTrainer
//! an iteration, `eval/…` an evaluation. TRL's `rewards/chosen` and `rewards/rejected` are not
//! here: the training table has their difference only.
//!
//! | table | tags |
//! |---|---|
//! | training | `train/loss`, `train/rewards/margins`, `train/rewards/accuracies`, `train/logps/chosen`, `train/logps/rejected`, `train/objective/kl`, `train/grad_norm`, `train/learning_rate`, `train/epoch`, `train/num_tokens` |
//! | rewards | `reward`, `reward_std` |
//! | responses | `completions/mean_length`, `completions/max_length`, `completions/clipped_ratio` |
//! | evaluation | `eval/reward`, `eval/baseline_reward`, `eval/win_score`, `eval/completions/mean_length`, `eval/completions/clipped_ratio`, `eval/nll_initial` |
//! | ranking | `eval/rewards/accuracies` |
//! | benchmark | `benchmark/<task>/<metric>`, and `benchmark/<task>/<metric>/change` against the baseline |
//! | journal | `tokens_per_second` of what was generated, `train/tokens_per_second` |

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};

use super::error::TrackingError;
use crate::dag::fingerprint::Fingerprint;
use crate::sql::Session;
use crate::store::{Event, EventKind, OutputKey, Run, read_parquet};
use crate::tables::{TableKind, training};

/// One number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The optimizer's update counted over all iterations, from 1; or the iteration, 0 for a node
    /// that runs once.
    pub step: i64,
    /// Its time, as exactly as the journal has it: Unix time in milliseconds.
    pub at: i64,
    /// The number.
    pub value: f64,
}

/// The key of a series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeriesName {
    /// The node.
    pub node: String,
    /// The quantity.
    pub tag: String,
}

/// Points by name, in the order of their steps. Of one run and one reader, later ones begin with
/// all of earlier ones.
pub type Series = BTreeMap<SeriesName, Vec<Point>>;

/// Reads series repeatedly; finished outputs are read once.
pub struct Reader {
    run: Run,
    /// The wanted outputs with their recipes: others lie there until they are replaced.
    wanted: HashMap<OutputKey, Fingerprint>,
    finished: HashMap<OutputKey, Numbers>,
    /// The last result, and the length of the journal at its time.
    series: Series,
    journal: Option<u64>,
}

/// The numbers of one output: for each row a step and numbers by tag. Rows of tables without steps
/// have step 0.
#[derive(Clone, Debug, Default)]
struct Numbers {
    rows: Vec<(i64, Vec<(String, f64)>)>,
    /// Tokens generated or trained on.
    tokens: f64,
}

/// The numbers of a table of this kind, as a query over it; `tokens` is for the rate.
fn query(kind: TableKind) -> Option<&'static str> {
    match kind {
        TableKind::Training => Some(
            r#"SELECT step, loss AS "train/loss", reward_margin AS "train/rewards/margins", accuracy AS "train/rewards/accuracies",
                 logprob_chosen AS "train/logps/chosen", logprob_rejected AS "train/logps/rejected", kl AS "train/objective/kl",
                 gradient_norm AS "train/grad_norm", learning_rate AS "train/learning_rate", epoch AS "train/epoch", tokens,
                 sum(tokens) OVER (ORDER BY step) AS "train/num_tokens"
               FROM rows ORDER BY step"#,
        ),
        TableKind::Rewards => Some(r#"SELECT avg(reward) AS "reward", stddev(reward) AS "reward_std" FROM rows"#),
        TableKind::Responses => Some(
            r#"SELECT avg(length) AS "completions/mean_length", max(length) AS "completions/max_length", avg(clipped) AS "completions/clipped_ratio",
                 sum(length) AS tokens
               FROM (SELECT CAST(array_length(token_ids) AS BIGINT) - prompt_token_count AS length,
                       CASE finish_reason WHEN 'length' THEN 1.0 ELSE 0.0 END AS clipped
                     FROM rows WHERE finish_reason <> 'error')"#,
        ),
        TableKind::Evaluation => Some(
            r#"SELECT avg(reward) AS "eval/reward", avg(baseline_reward) AS "eval/baseline_reward",
                 50.0 + 50.0 * avg(CASE outcome WHEN 'win' THEN 1.0 WHEN 'loss' THEN -1.0 ELSE 0.0 END) AS "eval/win_score",
                 avg(token_count) AS "eval/completions/mean_length", avg(truncated) AS "eval/completions/clipped_ratio",
                 avg(nll_initial) AS "eval/nll_initial"
               FROM rows"#,
        ),
        TableKind::Judgments => Some(
            r#"SELECT 100.0 * avg(CASE WHEN least = most THEN least ELSE 0.5 END) AS "eval/judge_win_score",
                 100.0 * avg(CASE WHEN least = most THEN 0.0 ELSE 1.0 END) AS "eval/judge_position_bias"
               FROM (SELECT min(verdict) AS least, max(verdict) AS most
                     FROM (SELECT prompt_id, response_index, CASE verdict WHEN 'win' THEN 1.0 WHEN 'tie' THEN 0.5 ELSE 0.0 END AS verdict
                           FROM rows WHERE verdict IS NOT NULL)
                     GROUP BY prompt_id, response_index HAVING count(*) = 2)"#,
        ),
        TableKind::Ranking => Some(r#"SELECT avg(CASE WHEN correct THEN 1.0 ELSE 0.0 END) AS "eval/rewards/accuracies" FROM rows"#),
        TableKind::Benchmark => Some(
            r#"SELECT concat('benchmark/', task, '/', metric) AS tag, value FROM rows
               UNION ALL
               SELECT concat('benchmark/', task, '/', metric, '/change'), change FROM rows WHERE change IS NOT NULL
               ORDER BY tag"#,
        ),
        _ => None,
    }
}

impl Reader {
    /// A reader of the outputs in `wanted`.
    pub fn new(run: Run, wanted: HashMap<OutputKey, Fingerprint>) -> Self {
        Self { run, wanted, finished: HashMap::new(), series: Series::new(), journal: None }
    }

    /// All committed numbers. An iteration of a node is not shown before all earlier ones of it
    /// are.
    ///
    /// # Errors
    /// A table, a checkpoint or the journal cannot be read, for example at the moment of its
    /// replacement.
    pub fn read(&mut self) -> Result<&Series, TrackingError> {
        // Every commit makes the journal longer.
        let journal = self.run.journal().path().metadata().map_or(0, |metadata| metadata.len());
        if self.journal == Some(journal) {
            return Ok(&self.series);
        }
        let times = Times::new(&self.run.journal().read()?);
        let mut series = Series::new();
        let mut nodes: Vec<&OutputKey> = self.wanted.keys().collect();
        nodes.sort();
        let nodes: Vec<OutputKey> = nodes.into_iter().cloned().collect();
        for iterations in nodes.chunk_by(|one, other| (one.kind, &one.name) == (other.kind, &other.name)) {
            self.node(iterations, &times, &mut series)?;
        }
        (self.series, self.journal) = (series, Some(journal));
        Ok(&self.series)
    }

    /// Adds a node's iterations, as far as they are there without a gap.
    fn node(&mut self, iterations: &[OutputKey], times: &Times, series: &mut Series) -> Result<(), TrackingError> {
        let mut before = 0;
        for place in iterations {
            let Some(manifest) = self.manifest(place)? else { return self.in_the_making(place, before, times, series) };
            let Some(kind) = manifest else { return Ok(()) };
            let Some(query) = query(kind) else { return Ok(()) };
            let numbers = match self.finished.get(place) {
                Some(numbers) => numbers.clone(),
                None => {
                    let session = Session::bounded()?;
                    session.register_outputs("rows", &self.run, std::slice::from_ref(place))?;
                    numbers(&session.query(query)?)?
                }
            };
            self.finished.insert(place.clone(), numbers.clone());
            before = add(place, kind, before, &numbers, times, true, series);
        }
        Ok(())
    }

    /// The kind of a finished and wanted table. The outer `None`: it is not finished. The inner
    /// `None`: its kind is not shown.
    fn manifest(&self, place: &OutputKey) -> Result<Option<Option<TableKind>>, TrackingError> {
        let manifest =
            self.run.manifest(place)?.filter(|manifest| manifest.complete && self.wanted.get(place) == Some(&manifest.fingerprint));
        Ok(manifest.map(|manifest| manifest.table))
    }

    /// Adds the rows in the last checkpoint of a training table before the table is written.
    fn in_the_making(&self, place: &OutputKey, before: i64, times: &Times, series: &mut Series) -> Result<(), TrackingError> {
        if !place.name.ends_with(training::SUFFIX) {
            return Ok(());
        }
        let model = OutputKey::model(model_of(&place.name), place.iteration);
        let Some(fingerprint) = self.wanted.get(&model) else { return Ok(()) };
        let Some(checkpoint) = self.run.newest_checkpoint(fingerprint)? else { return Ok(()) };
        let session = Session::bounded()?;
        session.register_batches("rows", vec![read_parquet(&checkpoint.dir.join(training::CHECKPOINT_FILE))?])?;
        if let Some(query) = query(TableKind::Training) {
            let numbers = numbers(&session.query(query)?)?;
            add(place, TableKind::Training, before, &numbers, times, false, series);
        }
        Ok(())
    }
}

/// The rows of a query by [`query`].
fn numbers(batches: &[RecordBatch]) -> Result<Numbers, TrackingError> {
    let mut found = Numbers::default();
    for batch in batches {
        let schema = batch.schema();
        if let Some(tags) = batch.column_by_name("tag") {
            named_numbers(tags, batch, &mut found)?;
            continue;
        }
        let column =
            |index: usize| cast(batch.column(index), &DataType::Float64).map_err(|error| TrackingError::Internal(error.to_string()));
        let columns = (0..batch.num_columns()).map(column).collect::<Result<Vec<_>, _>>()?;
        let steps = batch.column_by_name("step").map(|steps| steps.as_primitive::<Int64Type>());
        for row in 0..batch.num_rows() {
            let mut numbers = Vec::new();
            for (field, column) in schema.fields().iter().zip(&columns).filter(|(_, column)| column.is_valid(row)) {
                let value = column.as_primitive::<Float64Type>().value(row);
                match field.name().as_str() {
                    "step" => {}
                    "tokens" => found.tokens += value,
                    tag => numbers.push((tag.to_string(), value)),
                }
            }
            found.rows.push((steps.map_or(0, |steps| steps.value(row)), numbers));
        }
    }
    Ok(found)
}

/// The numbers of a query with one row a tag.
fn named_numbers(tags: &ArrayRef, batch: &RecordBatch, found: &mut Numbers) -> Result<(), TrackingError> {
    let internal = |error: String| TrackingError::Internal(error);
    let tags = cast(tags, &DataType::Utf8).map_err(|error| internal(error.to_string()))?;
    let values = batch.column_by_name("value").ok_or_else(|| internal("a query with tags has no values".to_string()))?;
    let values = cast(values, &DataType::Float64).map_err(|error| internal(error.to_string()))?;
    let both = tags.as_string::<i32>().iter().zip(values.as_primitive::<Float64Type>());
    let numbers = both.filter_map(|(tag, value)| Some((tag?.to_string(), value?)));
    match found.rows.first_mut() {
        Some((_, row)) => row.extend(numbers),
        None => found.rows.push((0, numbers.collect())),
    }
    Ok(())
}

/// Adds an output's numbers; gives the last step.
fn add(place: &OutputKey, kind: TableKind, before: i64, numbers: &Numbers, times: &Times, whole: bool, series: &mut Series) -> i64 {
    let by_step = kind == TableKind::Training;
    let node = if by_step { model_of(&place.name) } else { place.name.clone() };
    let spent = times.of(&node, place.iteration);
    let iteration = place.iteration.map_or(0, i64::from);
    let mut point =
        |tag: &str, point: Point| series.entry(SeriesName { node: node.clone(), tag: tag.to_string() }).or_default().push(point);
    let mut last = before;
    let count = numbers.rows.len();
    for (index, (step, values)) in numbers.rows.iter().enumerate() {
        let step = if by_step { before + step } else { iteration };
        last = step;
        values.iter().for_each(|(tag, value)| point(tag, Point { step, at: spent.at(index + 1, count), value: *value }));
    }
    if let Some(seconds) = spent.seconds.filter(|seconds| whole && *seconds > 0.0 && numbers.tokens > 0.0) {
        let tag = if by_step { "train/tokens_per_second" } else { "tokens_per_second" };
        let step = if by_step { last } else { iteration };
        point(tag, Point { step, at: spent.at(1, 1), value: numbers.tokens / seconds });
    }
    last
}

/// The model made together with a training table.
fn model_of(table: &str) -> String {
    table.strip_suffix(training::SUFFIX).unwrap_or(table).to_string()
}

/// The times of work on each node.
struct Times {
    /// The start of the run: the time of outputs made elsewhere.
    begun: i64,
    nodes: HashMap<(String, Option<u32>), Spent>,
}

#[derive(Clone, Copy, Debug)]
struct Spent {
    from: i64,
    to: i64,
    /// The duration; none if there were several attempts, because their work cannot be told apart.
    seconds: Option<f64>,
    attempts: u32,
}

impl Times {
    fn new(events: &[Event]) -> Self {
        let begun = events.first().map_or(0, |event| event.at);
        let mut nodes: HashMap<(String, Option<u32>), Spent> = HashMap::new();
        for event in events {
            let key = (event.node.clone(), event.iteration);
            let spent = nodes.entry(key).or_insert(Spent { from: event.at, to: event.at, seconds: None, attempts: 0 });
            match event.event {
                EventKind::Started => {
                    *spent = Spent { from: event.at, to: event.at, seconds: None, attempts: spent.attempts + 1 };
                }
                EventKind::NodeDone => {
                    spent.to = event.at;
                    spent.seconds = if spent.attempts == 1 { event.seconds } else { None };
                }
                EventKind::PartCommitted => spent.to = event.at,
                _ => {}
            }
        }
        Self { begun, nodes }
    }

    fn of(&self, node: &str, iteration: Option<u32>) -> Spent {
        let none = Spent { from: self.begun, to: self.begun, seconds: None, attempts: 0 };
        self.nodes.get(&(node.to_string(), iteration)).copied().unwrap_or(none)
    }
}

impl Spent {
    /// The time of one of `count` rows, as if all had taken as long.
    fn at(&self, index: usize, count: usize) -> i64 {
        let share = index as f64 / count.max(1) as f64;
        self.from + ((self.to - self.from) as f64 * share) as i64
    }
}
