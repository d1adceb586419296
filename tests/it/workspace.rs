//! A small pipeline in a folder of its own, and the `optune` program run in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use optune::operators::Silent;
use optune::pipeline::Pipeline;
use optune::run::{self, RunError};
use optune::store::Runs;

/// A temporary folder with prompts, a reward, a model's shape and a pipeline of two iterations that runs in about a second.
pub struct Workspace {
    folder: tempfile::TempDir,
}

/// The pipeline file of a [`Workspace`].
pub const PIPELINE: &str = r#"optune: 1
name: small
seed: 5
params: { ratio: 0.5, iterations: 2, learning_rate: 1.0e-3 }
inputs:
  prompts:  { table: prompts.jsonl }
  held_out: { table: held_out.jsonl }
  shape:    { model: shape }
  judge:    { reward: { sql: reward.sql } }
nodes:
  base: { sft: { from: shape, initialize: random, demonstrations: prompts, response: reference_answer, epochs: 3, batch_size: 8, learning_rate: 3.0e-3, optimizer: adamw }, resources: { checkpoint_every: 2 } }
iterate:
  t: 1..${iterations}
  start: { policy: base, pool: none }
  nodes:
    selection:  { select: { prompts: prompts, pool: "pool[t-1]", ratio: "${ratio}" } }
    responses:  { generate: { policy: "policy[t-1]", prompts: prompts, selection: selection, responses_per_prompt: 3, max_new_tokens: 8 }, resources: { rows_per_part: 4 } }
    rewards:    { score: { responses: responses, reward: judge } }
    pool:       { merge: { fresh: rewards, carried: "pool[t-1]" } }
    pairs:      { pair: { pool: pool, weight: { kind: linear, normalize: mean } } }
    policy:     { train: { from: "policy[t-1]", reference: base, pairs: pairs, learning_rate: "${learning_rate}", optimizer: adamw, batch_size: 4, epochs: 2 }, resources: { checkpoint_every: 2 } }
    evaluation: { evaluate: { policy: policy, baseline: base, prompts: held_out, reward: judge, max_new_tokens: 8 } }
"#;

/// A reward between 0 and 1: the share of the response that stands in the reference answer, less for one that did not stop.
pub const REWARD: &str = "SELECT responses.prompt_id, responses.response_index, responses.sampled_iteration,
       (1.0 - levenshtein(responses.text, prompts.reference_answer) / 10.0)
         * CASE responses.finish_reason WHEN 'stop' THEN 1.0 ELSE 0.5 END AS reward,
       CAST(responses.text = prompts.reference_answer AS DOUBLE) AS exact
FROM responses JOIN prompts ON responses.prompt_id = prompts.prompt_id";

impl Workspace {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rows = |first: usize, last: usize| {
            let row = |i: usize| {
                let word: String = (0..3).map(|k| char::from(b'a' + ((i * 7 + k * 3) % 8) as u8)).collect();
                format!(
                    "{{\"prompt_id\": \"p-{i:03}\", \"prompt\": \"upper {word}=\", \"reference_answer\": \"{}\", \"group\": \"upper\"}}\n",
                    word.to_uppercase()
                )
            };
            (first..last).map(row).collect::<String>()
        };
        let shape = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/tasks/model");
        let workspace = Self { folder };
        workspace.write("prompts.jsonl", &rows(0, 20));
        workspace.write("held_out.jsonl", &rows(20, 28));
        workspace.write("reward.sql", REWARD);
        workspace.write("pipeline.yaml", PIPELINE);
        copy_folder(&shape, &workspace.path("shape"));
        workspace
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Replaces text in a file, which must hold it.
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{name} does not hold {from}");
        self.write(name, &text.replace(from, to));
    }

    /// The program with these arguments, to be run in the folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_optune"));
        command.current_dir(self.folder.path()).args(arguments);
        command
    }

    pub fn optune(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the program, which must succeed; its standard output.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.optune(arguments);
        assert!(output.status.success(), "{arguments:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the program, which must end with `code`; its standard error.
    pub fn fail(&self, arguments: &[&str], code: i32) -> String {
        let output = self.optune(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        error
    }

    /// Runs the pipeline in this process, into the folder `runs`; what went wrong, if anything did.
    pub fn run_here(&self, runs: &Path) -> Result<(), String> {
        let graph = Pipeline::load(&self.path("pipeline.yaml"), &[]).unwrap().graph(self.folder.path()).unwrap();
        let said = |error: RunError| error.to_string();
        let run = Runs::open(runs).and_then(|runs| runs.run(&graph.name)).map_err(|error| said(error.into()))?;
        let fetched = run::fetch(graph, &run, &|| false, &Silent).map_err(said)?;
        let prepared = run::prepare(fetched, &mut run::FileHashes::default()).map_err(said)?;
        let lock = crate::store::locked(&run).map_err(|error| said(error.into()))?;
        let report = run::execute(&lock, &prepared, None, &|| false, &Silent).map_err(said)?;
        let failures: Vec<String> = report.failures.iter().map(|failure| format!("{}: {}", failure.node, failure.error)).collect();
        if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
    }

    /// The first column of a query's single row, or the whole CSV without its header.
    pub fn query(&self, run: &str, sql: &str) -> String {
        let csv = self.succeed(&["sql", run, sql, "--format", "csv"]);
        csv.split_once('\n').map(|(_, rows)| rows.trim_end().to_string()).unwrap_or_default()
    }

    /// The hash of every file of a run that is part of its result: tables, models and their manifests.
    pub fn result(&self, run: &str) -> BTreeMap<String, String> {
        result(&self.path("runs").join(run))
    }

    /// The journal's events of one kind: node, iteration and part.
    pub fn journal(&self, run: &str, event: &str) -> Vec<(String, i64, i64)> {
        let text = std::fs::read_to_string(self.path("runs").join(run).join("journal.jsonl")).unwrap();
        let events = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let number = |event: &serde_json::Value, key: &str| event[key].as_i64().unwrap_or(-1);
        events
            .filter(|found| found["event"] == event)
            .map(|found| (found["node"].as_str().unwrap_or_default().to_string(), number(&found, "iteration"), number(&found, "part")))
            .collect()
    }
}

/// The hash of every file of the run in `root` that is part of its result.
pub fn result(root: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for part in ["tables", "models"] {
        hash_files(root, &root.join(part), &mut files);
    }
    files.insert("pipeline.yaml".to_string(), hash(&root.join("pipeline.yaml")));
    files
}

/// Copies the files of a folder, not its folders, over what is there.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn hash(path: &Path) -> String {
    blake3::hash(&std::fs::read(path).unwrap()).to_hex().to_string()
}

fn hash_files(root: &Path, folder: &Path, files: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            hash_files(root, &path, files);
        } else {
            files.insert(path.strip_prefix(root).unwrap().to_string_lossy().into_owned(), hash(&path));
        }
    }
}
