//! Executes the plan under the run's lock: outputs from the cache first, then every remaining task.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use indexmap::IndexMap;

use super::{Prepared, RunError, executors, must_run, plan};
use crate::alarm;
use crate::compute::DeviceChoice;
use crate::dag::fingerprint::Recipe;
use crate::dag::schedule::{self, Outcome};
use crate::import;
use crate::operators::{self, Context, DeviceTime, OperatorError, Progress};
use crate::pipeline::graph::{Graph, Input, Task};
use crate::pipeline::spec::operator::Operator;
use crate::sql::Session;
use crate::store::{Event, EventKind, OutputKey, RunLock, State, StoreError};
use crate::tracking::{Ended, Tracker, TrackingError};

/// The result of an execution.
pub struct Report {
    /// The number of finished tasks.
    pub ran: usize,
    /// The number of tasks with an existing output.
    pub reused: usize,
    /// Whether the user stopped it before the end.
    pub stopped: bool,
    /// The failed nodes, in the graph's order.
    pub failures: Vec<Failure>,
    /// The nodes blocked by these failures.
    pub blocked: Vec<String>,
}

/// A failed node.
pub struct Failure {
    /// The node, as `responses[2]`.
    pub node: String,
    /// Its line in the pipeline file.
    pub line: usize,
    /// The error.
    pub error: String,
    /// Whether the user's input is the cause.
    pub input: bool,
}

/// Makes every missing output. The caller holds the run's lock.
///
/// # Errors
/// Only errors of the run as a whole. A node's error is in the report, and the other nodes
/// continue.
pub fn execute(
    run: &RunLock,
    prepared: &Prepared,
    device: Option<&DeviceChoice>,
    stopped: &(dyn Fn() -> bool + Sync),
    progress: &dyn Progress,
) -> Result<Report, RunError> {
    let graph = &prepared.graph;
    run.write_pipeline(&graph.to_yaml(run.folder()).map_err(RunError::Pipeline)?)?;
    if let Some(text) = &prepared.fetched {
        run.write_sources(text)?;
    }
    repair(run, prepared, progress)?;
    import::import_tables(run, graph, &prepared.files).map_err(OperatorError::from)?;
    retire(run, prepared)?;
    // Other runs publish outputs at the same time. An output published between the two calls is
    // linked in the next round.
    let states = loop {
        adopt(run, prepared, progress)?;
        let states = plan(run, prepared)?;
        if !states.contains(&State::Cached) {
            break states;
        }
    };

    let pending: Vec<usize> = (0..graph.tasks.len()).filter(|index| must_run(&states[*index])).collect();
    let steps = steps(graph, &pending);
    let executors = executors::connect(graph)?;
    let work = || {
        schedule::schedule(&steps, stopped, &|step| {
            let task = &graph.tasks[pending[step]];
            let context = Context {
                run,
                graph,
                task,
                recipe: &prepared.recipes[pending[step]],
                device: device.cloned().unwrap_or_else(|| operators::device_choice(task)),
                stopped,
                progress,
                device_time: DeviceTime::default(),
                executors: executors.as_deref().filter(|_| operators::staying(graph, task).is_none()),
            };
            run_task(&context)
        })
    };
    let warn = |message: &str| progress.warned("tracking", message);
    let outcomes = tracker(run, prepared, &warn)?.beside(work, |outcomes| ended(outcomes));
    run.remove_temporaries()?;
    Ok(report(graph, &pending, outcomes))
}

/// The pending tasks for the scheduler; needs are indices into `pending`. Finished tasks are no
/// needs.
fn steps(graph: &Graph, pending: &[usize]) -> Vec<schedule::Step> {
    let step = |index: &usize| {
        let task = &graph.tasks[*index];
        let needs = operators::support::lora::needs(graph, task).filter_map(|input| match input {
            Input::Task(need) => pending.binary_search(&need).ok(),
            Input::Source(_) => None,
        });
        let guards = task.after.iter().filter_map(|guard| pending.binary_search(guard).ok());
        schedule::Step { needs: needs.chain(guards).collect(), lane: operators::lane(graph, task) }
    };
    pending.iter().map(step).collect()
}

/// The report on the outcomes of the pending tasks.
fn report(graph: &Graph, pending: &[usize], outcomes: Vec<Outcome<OperatorError>>) -> Report {
    let reused = graph.tasks.len() - pending.len();
    let mut report = Report { ran: 0, reused, stopped: false, failures: Vec::new(), blocked: Vec::new() };
    for (index, outcome) in pending.iter().zip(outcomes) {
        let task = &graph.tasks[*index];
        let mut fail = |error: String, input| report.failures.push(Failure { node: task.label(), line: task.line, error, input });
        match outcome {
            Outcome::Done => report.ran += 1,
            Outcome::Failed(OperatorError::Stopped) | Outcome::Stopped => report.stopped = true,
            Outcome::Failed(error) => fail(error.to_string(), error.is_input()),
            Outcome::Panicked(message) => fail(format!("internal error: {message}"), false),
            Outcome::Blocked(_) => report.blocked.push(task.label()),
        }
    }
    report
}

/// The tracker of the run, as configured in the pipeline.
fn tracker<'w>(run: &RunLock, prepared: &Prepared, warn: &'w (dyn Fn(&str) + Sync)) -> Result<Tracker<'w>, TrackingError> {
    let mut wanted = HashMap::new();
    for (task, recipe) in prepared.graph.tasks.iter().zip(&prepared.recipes) {
        wanted.insert(task.output_key(), recipe.fingerprint());
        wanted.extend(task.training_key().map(|key| (key, operators::training_recipe(recipe).fingerprint())));
    }
    // The seed distinguishes runs. It may also be a param; the map has it once.
    let mut params = IndexMap::from([("seed".to_string(), prepared.graph.seed.to_string())]);
    params.extend(prepared.graph.params.iter().map(|(name, value)| (name.clone(), value.to_string())));
    Tracker::new(run, prepared.graph.tracking(), wanted, params.into_iter().collect(), warn)
}

/// The end of a run with these outcomes.
fn ended(outcomes: &[Outcome<OperatorError>]) -> Ended {
    let stopped = |outcome: &Outcome<OperatorError>| matches!(outcome, Outcome::Stopped | Outcome::Failed(OperatorError::Stopped));
    let failed = |outcome: &Outcome<OperatorError>| !matches!(outcome, Outcome::Done) && !stopped(outcome);
    match outcomes {
        _ if outcomes.iter().any(failed) => Ended::Failed,
        _ if outcomes.iter().any(stopped) => Ended::Interrupted,
        _ => Ended::Finished,
    }
}

/// Runs one task, and records its start and end in the journal.
fn run_task(context: &Context) -> Result<(), OperatorError> {
    let key = context.task.output_key();
    let start = Instant::now();
    let record = |kind: EventKind, seconds: Option<f64>, message: Option<String>| {
        let mut event = Event::new(kind, &key.name, key.iteration);
        event.seconds = seconds;
        event.device_seconds = context.device_time.seconds();
        event.message = message;
        context.run.record(event)
    };
    record(EventKind::Started, None, None)?;
    let result = operators::run(context);
    let seconds = start.elapsed().as_secs_f64();
    match result {
        Ok(summary) => {
            record(EventKind::NodeDone, Some(seconds), None)?;
            context.progress.finished(&context.task.label(), &summary.text, seconds);
            tell_alarms(context);
            Ok(())
        }
        Err(error) => {
            match error {
                OperatorError::Stopped => record(EventKind::Interrupted, Some(seconds), None),
                _ => record(EventKind::NodeFailed, Some(seconds), Some(error.to_string())),
            }?;
            Err(error)
        }
    }
}

/// Tells the signs of over-optimization that an evaluation, or a benchmark after it, has just
/// shown. A run never fails by them.
fn tell_alarms(context: &Context) {
    let is_benchmark = matches!(context.task.operator, Operator::Benchmark(_));
    let mut evaluations: Vec<&str> = Vec::new();
    if is_benchmark {
        let same = context.graph.tasks.iter().filter(|task| task.iteration == context.task.iteration);
        evaluations.extend(same.filter(|task| matches!(task.operator, Operator::Evaluate(_))).map(|task| task.name.as_str()));
    } else if matches!(context.task.operator, Operator::Evaluate(_)) {
        evaluations.push(&context.task.name);
    }
    if evaluations.is_empty() {
        return;
    }
    let label = context.task.label();
    let iteration = i64::from(context.task.iteration.unwrap_or(0));
    let tell = |session: &Session, evaluation: &str| {
        let alarms = alarm::of_node(session, context.graph, evaluation)?;
        let new = |alarm: &&alarm::Alarm| alarm.iteration == iteration && (!is_benchmark || alarm.sign == alarm::Sign::Benchmark);
        alarms.iter().filter(new).for_each(|alarm| context.progress.warned(&label, &format!("alarm: {}", alarm.line())));
        Ok::<(), StoreError>(())
    };
    let told = Session::over_run(context.run).and_then(|session| evaluations.iter().try_for_each(|evaluation| tell(&session, evaluation)));
    if let Err(error) = told {
        context.progress.warned(&label, &format!("signs of over-optimization are not looked for: {error}"));
    }
}

/// Verifies every output in the run folder, including those of removed nodes. Damaged files are
/// moved aside and reported; the run makes them again.
fn repair(run: &RunLock, prepared: &Prepared, progress: &dyn Progress) -> Result<(), RunError> {
    run.damaged_journal().iter().for_each(|bad| progress.warned("journal", &bad.to_string()));
    let labels: HashMap<OutputKey, String> = output_keys(prepared).map(|(label, key)| (key, label)).collect();
    for key in run.output_keys()? {
        for bad in run.quarantine().verify(&key)? {
            progress.warned(labels.get(&key).unwrap_or(&key.name), &bad.to_string());
        }
    }
    Ok(())
}

/// The outputs of all tasks, with the tasks' labels.
fn output_keys(prepared: &Prepared) -> impl Iterator<Item = (String, OutputKey)> {
    let keys = |task: &Task| {
        [Some(task.output_key()), task.training_key()].into_iter().flatten().map(|key| (task.label(), key)).collect::<Vec<_>>()
    };
    prepared.graph.tasks.iter().flat_map(keys)
}

/// Removes obsolete outputs from the run folder, for example of iterations beyond the last, so SQL
/// does not see them. Finished outputs stay in the cache.
fn retire(run: &RunLock, prepared: &Prepared) -> Result<(), RunError> {
    let sources = prepared.graph.sources.iter().map(|source| source.output_key());
    let wanted: HashSet<OutputKey> = output_keys(prepared).map(|(_, key)| key).chain(sources).collect();
    for (key, _) in run.manifests()? {
        if !wanted.contains(&key) {
            run.cache().retire(&key)?;
        }
    }
    Ok(())
}

/// Links cached outputs into the run folder. It looks for a model before its training table,
/// because the model is published last, and links the training table first.
fn adopt(run: &RunLock, prepared: &Prepared, progress: &dyn Progress) -> Result<(), RunError> {
    for (task, recipe) in prepared.graph.tasks.iter().zip(&prepared.recipes) {
        let cached = |key: OutputKey, recipe: &Recipe| {
            Ok::<_, StoreError>((run.state(&key, recipe)? == State::Cached).then(|| (key, recipe.fingerprint())))
        };
        let output = cached(task.output_key(), recipe)?;
        let training = task.training_key().map(|key| cached(key, &operators::training_recipe(recipe))).transpose()?.flatten();
        for (key, fingerprint) in training.into_iter().chain(output) {
            let (_, damaged) = run.cache().adopt(&key, &fingerprint)?;
            damaged.iter().for_each(|bad| progress.warned(&task.label(), &bad.to_string()));
        }
    }
    Ok(())
}
