//! select, merge and pair of one iteration as `optune run` does them: verified inputs from the run folder, checked and durable outputs in it.
//!
//! Knows the three stages and their inputs, not how they work.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use optune::compute::DeviceChoice;
use optune::import;
use optune::operators::{self, Context, DeviceTime, Silent};
use optune::pipeline::{Graph, Pipeline, Task};
use optune::run::{FileHashes, Prepared, fetch, prepare};
use optune::sql::Session;
use optune::store::{OutputKey, RunLock, Runs};
use serde_json::{Value, json};

use crate::measurement::{cpu_seconds, peak_rss_bytes};

#[derive(clap::Args)]
pub struct Arguments {
    /// The folder that `benches/peers/make_inputs.py` filled.
    #[arg(long)]
    inputs: PathBuf,
    /// How many prompts the tables have.
    #[arg(long)]
    prompts: usize,
    /// Where the run is; what an earlier measurement left there is used again. A folder beside the tables when left out.
    #[arg(long)]
    write: Option<PathBuf>,
    /// The threads that work; as many as there are cores when left out.
    #[arg(long)]
    threads: Option<usize>,
}

/// The second iteration of a run whose responses and rewards are there.
const PIPELINE: &str = r#"optune: 1
name: relational
inputs:
  prompts: { table: PROMPTS }
  base:    { model: datasets/tasks/model }
  judge:   { reward: { sql: "SELECT prompt_id, response_index, 0.0 AS reward FROM responses" } }
iterate:
  t: 1..2
  start: { pool: none }
  nodes:
    selection: { select:   { prompts: prompts, pool: "pool[t-1]", strategy: lowest_reward, rank_by: mean, ratio: 0.5 } }
    responses: { generate: { policy: base, prompts: prompts, selection: selection, responses_per_prompt: 4 } }
    rewards:   { score:    { responses: responses, reward: judge } }
    pool:      { merge:    { fresh: rewards, carried: "pool[t-1]" } }
    pairs:     { pair:     { pool: pool, weight: { kind: sigmoid, gap_scale: 1.0 } } }
"#;

/// What is measured, in the order of the data's flow.
const STAGES: [&str; 3] = ["selection", "pool", "pairs"];

/// Runs the three stages and says how long they took and what they made.
pub fn measure(arguments: &Arguments) -> Result<Value, Box<dyn Error>> {
    let tables = std::path::absolute(&arguments.inputs)?.join("tables").join(arguments.prompts.to_string());
    let runs = Runs::open(arguments.write.clone().unwrap_or_else(|| tables.join("runs")))?;
    let text = PIPELINE.replace("PROMPTS", &serde_json::to_string(&tables.join("prompts.parquet"))?);
    let graph = Pipeline::read("relational.yaml", &text, &[])?.graph(Path::new(env!("CARGO_MANIFEST_DIR")))?;
    let run = runs.run(&graph.name)?;
    let prepared = prepare(fetch(graph, &run, &|| false, &Silent)?, &mut FileHashes::default())?;
    let lock = run.lock()?;
    bring_in(&lock, &prepared, &tables)?;
    forget(&lock, &prepared)?;

    if let Some(threads) = arguments.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    let mut measurement = json!({ "case": "relational", "side": "optune", "threads": rayon::current_num_threads() });
    let (start, start_cpu) = (Instant::now(), cpu_seconds());
    for name in STAGES {
        let (begun, begun_cpu) = (Instant::now(), cpu_seconds());
        run_stage(&lock, &prepared, name)?;
        measurement[format!("{name}_seconds")] = json!(begun.elapsed().as_secs_f64());
        measurement[format!("{name}_cpu_seconds")] = json!(cpu_seconds() - begun_cpu);
    }
    measurement["seconds"] = json!(start.elapsed().as_secs_f64());
    measurement["cpu_seconds"] = json!(cpu_seconds() - start_cpu);
    measurement["peak_rss_bytes"] = json!(peak_rss_bytes());

    let session = Session::new()?;
    for name in STAGES {
        session.register_outputs(name, &lock, &[OutputKey::table(name, Some(2))])?;
    }
    measurement["selected"] = json!(session.count("SELECT count(*) FROM selection WHERE selected")?);
    measurement["pool"] = json!(session.count("SELECT count(*) FROM pool")?);
    measurement["pairs"] = json!(session.count("SELECT count(*) FROM pairs")?);
    let sum = session.query("SELECT sum(weight) FROM pairs")?;
    let sum = sum.first().and_then(|batch| arrow::util::display::array_value_to_string(batch.column(0), 0).ok());
    measurement["weight_sum"] = json!(sum.and_then(|sum| sum.parse::<f64>().ok()));
    Ok(measurement)
}

fn task<'a>(graph: &'a Graph, place: &OutputKey) -> Result<(usize, &'a Task), String> {
    let found = graph.tasks.iter().enumerate().find(|(_, task)| task.output_key() == *place);
    found.ok_or_else(|| format!("the pipeline has no {place}"))
}

/// Puts the inputs where a run would have made them.
fn bring_in(lock: &RunLock, prepared: &Prepared, tables: &Path) -> Result<(), Box<dyn Error>> {
    import::import_tables(lock, &prepared.graph, &prepared.files)?;
    for (name, iteration) in [("pool", 1), ("responses", 2), ("rewards", 2)] {
        let place = OutputKey::table(name, Some(iteration));
        let (index, task) = task(&prepared.graph, &place)?;
        let session = Session::new()?;
        session.register_files("rows", &[(None, tables.join(format!("{name}.parquet")))])?;
        let kind = task.table_kind().ok_or("expected a table of a fixed schema")?;
        let columns = kind.schema().fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
        let mut writer = lock.write_table(&place, &prepared.recipes[index], Some(kind), 0, 1)?;
        if let Some(mut part) = writer.begin(0, &kind.schema())? {
            for rows in session.rows(&format!("SELECT {columns} FROM rows"))? {
                part.write(&kind.conform(&rows?)?)?;
            }
            part.commit()?;
        }
        writer.finish(Default::default())?;
    }
    Ok(())
}

/// Removes what an earlier measurement made.
fn forget(lock: &RunLock, prepared: &Prepared) -> Result<(), Box<dyn Error>> {
    for name in STAGES {
        let place = OutputKey::table(name, Some(2));
        let (index, _) = task(&prepared.graph, &place)?;
        let cached = lock.runs().root().join(".cache").join(prepared.recipes[index].fingerprint().as_str());
        for folder in [lock.path(&place), cached] {
            if folder.exists() {
                std::fs::remove_dir_all(folder)?;
            }
        }
    }
    Ok(())
}

fn run_stage(lock: &RunLock, prepared: &Prepared, name: &str) -> Result<(), Box<dyn Error>> {
    let (index, task) = task(&prepared.graph, &OutputKey::table(name, Some(2)))?;
    let (graph, recipe) = (&prepared.graph, &prepared.recipes[index]);
    let device_time = DeviceTime::default();
    let device = DeviceChoice::Cpu;
    let context = Context { run: lock, graph, task, recipe, device, stopped: &|| false, progress: &Silent, device_time, executors: None };
    operators::run(&context)?;
    Ok(())
}
