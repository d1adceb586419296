//! Doing what the plan says: outputs from the cache first, then every stage that is left, under the run's lock.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use indexmap::IndexMap;

use super::{Prepared, RunError, plan, runs};
use crate::compute::DeviceChoice;
use crate::dag::fingerprint::Recipe;
use crate::dag::schedule::{self, Outcome};
use crate::pipeline::graph::Input;
use crate::stages::{self, Context, Progress, StageError};
use crate::store::{Event, EventKind, Place, RunLock, State, StoreError};
use crate::tracking::{Ended, Tracker, TrackingError};

/// How an execution ended.
pub struct Report {
    /// How many tasks ran to their end, and how many were already there.
    pub ran: usize,
    /// Tasks whose output was already there.
    pub reused: usize,
    /// Whether it was stopped before its end.
    pub stopped: bool,
    /// The nodes that failed, in the graph's order.
    pub failures: Vec<Failure>,
    /// The nodes that did not run because of those.
    pub blocked: Vec<String>,
}

/// A node that failed.
pub struct Failure {
    /// The node, as `responses[2]`.
    pub node: String,
    /// Its line in the pipeline file.
    pub line: usize,
    /// What went wrong.
    pub error: String,
    /// Whether the user's input is to blame.
    pub input: bool,
}

/// Runs everything that is not there yet. The caller holds the run's lock.
///
/// # Errors
/// Only what concerns the run as a whole; a node's error is in the report, and other nodes go on.
pub fn execute(
    run: &RunLock,
    prepared: &Prepared,
    device: Option<DeviceChoice>,
    stopped: &(dyn Fn() -> bool + Sync),
    progress: &dyn Progress,
) -> Result<Report, RunError> {
    let graph = &prepared.graph;
    run.write_pipeline(&graph.to_yaml().map_err(|error| RunError::Pipeline(error.to_string()))?)?;
    if let Some(text) = &prepared.fetched {
        run.write_sources(text)?;
    }
    repair(run, prepared, progress)?;
    stages::input::bring_in(run, graph, &prepared.files)?;
    retire(run, prepared)?;
    // Runs beside this one go on publishing: what they finish between the two is there to be linked too.
    let states = loop {
        adopt(run, prepared, progress)?;
        let states = plan(run, prepared)?;
        if !states.contains(&State::Cached) {
            break states;
        }
    };

    let pending: Vec<usize> = (0..graph.tasks.len()).filter(|index| runs(&states[*index])).collect();
    let steps: Vec<schedule::Step> = pending
        .iter()
        .map(|index| {
            let task = &graph.tasks[*index];
            let needs = stages::adapters::needs(graph, task).filter_map(|input| match input {
                Input::Task(need) => pending.binary_search(&need).ok(),
                Input::Source(_) => None,
            });
            schedule::Step { needs: needs.collect(), slot: stages::slot(graph, task) }
        })
        .collect();
    let work = || {
        schedule::schedule(&steps, stopped, &|step| {
            let task = &graph.tasks[pending[step]];
            let context = Context {
                run,
                graph,
                task,
                recipe: &prepared.recipes[pending[step]],
                device: device.unwrap_or_else(|| stages::device_choice(task)),
                stopped,
                progress,
            };
            run_one(&context)
        })
    };
    let warn = |message: &str| progress.warned("tracking", message);
    let outcomes = tracker(run, prepared, &warn)?.beside(work, |outcomes| ended(outcomes));

    let mut report =
        Report { ran: 0, reused: graph.tasks.len() - pending.len(), stopped: false, failures: Vec::new(), blocked: Vec::new() };
    for (index, outcome) in pending.into_iter().zip(outcomes) {
        let task = &graph.tasks[index];
        let mut fail = |error: String, input| report.failures.push(Failure { node: task.label(), line: task.line, error, input });
        match outcome {
            Outcome::Done => report.ran += 1,
            Outcome::Failed(StageError::Stopped) | Outcome::Stopped => report.stopped = true,
            Outcome::Failed(error) => fail(error.to_string(), error.is_input()),
            Outcome::Panicked(message) => fail(format!("internal error: {message}"), false),
            Outcome::Blocked(_) => report.blocked.push(task.label()),
        }
    }
    Ok(report)
}

/// What shows the run, as the pipeline says.
fn tracker<'w>(run: &RunLock, prepared: &Prepared, warn: &'w (dyn Fn(&str) + Sync)) -> Result<Tracker<'w>, TrackingError> {
    let mut wanted = HashMap::new();
    for (task, recipe) in prepared.graph.tasks.iter().zip(&prepared.recipes) {
        wanted.insert(task.place(), recipe.fingerprint());
        wanted.extend(task.training_place().map(|place| (place, stages::training_recipe(recipe).fingerprint())));
    }
    // The seed, which runs are told apart by, once: it may be a param.
    let mut params = IndexMap::from([("seed".to_string(), prepared.graph.seed.to_string())]);
    params.extend(prepared.graph.params.iter().map(|(name, value)| (name.clone(), value.to_string())));
    Tracker::new(run, prepared.graph.tracking(), wanted, params.into_iter().collect(), warn)
}

/// How a run with these outcomes ended.
fn ended(outcomes: &[Outcome<StageError>]) -> Ended {
    let stopped = |outcome: &Outcome<StageError>| matches!(outcome, Outcome::Stopped | Outcome::Failed(StageError::Stopped));
    let failed = |outcome: &Outcome<StageError>| !matches!(outcome, Outcome::Done) && !stopped(outcome);
    match outcomes {
        _ if outcomes.iter().any(failed) => Ended::Failed,
        _ if outcomes.iter().any(stopped) => Ended::Interrupted,
        _ => Ended::Finished,
    }
}

/// Runs one stage, with its beginning and its end in the journal.
fn run_one(context: &Context) -> Result<(), StageError> {
    let (place, start) = (context.task.place(), Instant::now());
    let record = |kind: EventKind, seconds: Option<f64>, message: Option<String>| {
        let mut event = Event::new(kind, &place.name, place.iteration);
        (event.seconds, event.message) = (seconds, message);
        context.run.record(event)
    };
    record(EventKind::Started, None, None)?;
    let result = stages::run(context);
    let seconds = start.elapsed().as_secs_f64();
    match result {
        Ok(summary) => {
            record(EventKind::NodeDone, Some(seconds), None)?;
            context.progress.finished(&context.task.label(), &summary.text, seconds);
            Ok(())
        }
        Err(error) => {
            match error {
                StageError::Stopped => record(EventKind::Interrupted, Some(seconds), None),
                _ => record(EventKind::NodeFailed, Some(seconds), Some(error.to_string())),
            }?;
            Err(error)
        }
    }
}

/// Checks every output in the run folder against its checksums, those that the pipeline has no more too; what is damaged is moved aside, reported, and made again.
fn repair(run: &RunLock, prepared: &Prepared, progress: &dyn Progress) -> Result<(), RunError> {
    run.damaged_journal().iter().for_each(|bad| progress.warned("journal", &bad.to_string()));
    let labels: HashMap<Place, String> = places(prepared).map(|(label, place)| (place, label)).collect();
    for place in run.places()? {
        for bad in run.verify(&place)? {
            progress.warned(labels.get(&place).unwrap_or(&place.name), &bad.to_string());
        }
    }
    Ok(())
}

/// Where the outputs of all tasks lie, with the tasks' labels.
fn places(prepared: &Prepared) -> impl Iterator<Item = (String, Place)> {
    let of = |task: &crate::pipeline::graph::Task| {
        [Some(task.place()), task.training_place()].into_iter().flatten().map(|place| (task.label(), place)).collect::<Vec<_>>()
    };
    prepared.graph.tasks.iter().flat_map(of)
}

/// Takes out of the run folder what the pipeline has no more, such as iterations beyond the last, so that SQL does not see it. What is
/// finished stays in the cache.
fn retire(run: &RunLock, prepared: &Prepared) -> Result<(), RunError> {
    let sources = prepared.graph.sources.iter().map(|source| source.place());
    let wanted: HashSet<Place> = places(prepared).map(|(_, place)| place).chain(sources).collect();
    for (place, _) in run.manifests()? {
        if !wanted.contains(&place) {
            run.retire(&place)?;
        }
    }
    Ok(())
}

/// Links into the run folder what the cache has; a model's training table before the model, which is looked for first, because it is published last.
fn adopt(run: &RunLock, prepared: &Prepared, progress: &dyn Progress) -> Result<(), RunError> {
    for (task, recipe) in prepared.graph.tasks.iter().zip(&prepared.recipes) {
        let cached = |place: Place, recipe: &Recipe| {
            Ok::<_, StoreError>((run.state(&place, recipe)? == State::Cached).then(|| (place, recipe.fingerprint())))
        };
        let output = cached(task.place(), recipe)?;
        let training = task.training_place().map(|place| cached(place, &stages::training_recipe(recipe))).transpose()?.flatten();
        for (place, fingerprint) in training.into_iter().chain(output) {
            let (_, damaged) = run.adopt(&place, &fingerprint)?;
            damaged.iter().for_each(|bad| progress.warned(&task.label(), &bad.to_string()));
        }
    }
    Ok(())
}
