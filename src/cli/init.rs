//! `optune init`: a commented pipeline file for the user's own model, data and reward.
//!
//! The text is that of `pipelines/optune.yaml`, with the user's inputs in the place of its own.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::error::CliError;
use super::format::print;
use super::progress::watcher;
use super::terminal::word;
use crate::import::import;
use crate::operators::{self, OperatorError};
use crate::pipeline::{Pipeline, folder_of, seen_from};
use crate::run::fetch;
use crate::store::Runs;

/// The pipeline with the paper's settings.
const TEMPLATE: &str = include_str!("../../pipelines/optune.yaml");

/// A reward to begin with: 1 for the reference answer, 0 for anything else.
const REWARD: &str = "-- The reward of each response; other numbers beside it are kept as its components.
SELECT responses.prompt_id, responses.response_index, responses.sampled_iteration,
       CAST(trim(responses.text) = prompts.reference_answer AS DOUBLE) AS reward,
       character_length(responses.text) AS length
FROM responses JOIN prompts ON responses.prompt_id = prompts.prompt_id
";

#[derive(Args)]
pub(super) struct Init {
    /// The pipeline file to write.
    #[arg(default_value = "pipeline.yaml")]
    file: PathBuf,
    /// The policy to tune: a Hugging Face directory, or hf://org/name@revision.
    #[arg(long)]
    model: Option<String>,
    /// The table of prompts: Parquet, JSON lines, JSON, CSV or Arrow.
    #[arg(long)]
    data: Option<String>,
    /// A table of prompts that are not trained on. Without one, a share of the prompts is set apart
    /// for evaluation.
    #[arg(long)]
    held_out: Option<String>,
    /// The reward: a file of SQL (written if there is none), a reward model's directory or hf://
    /// name, the http(s):// address of a server, or a Python function as FILE.py:FUNCTION.
    #[arg(long)]
    reward: Option<String>,
    /// The run's name.
    #[arg(long, default_value = "optune")]
    name: String,
    /// Train a low-rank adapter instead of the weights.
    #[arg(long)]
    lora: bool,
}

impl Init {
    pub(super) fn execute(mut self, runs: &Path) -> Result<(), CliError> {
        if self.file.exists() {
            return Err(CliError::Input(format!("{}: exists already; name a file that does not", self.file.display())));
        }
        self.ask()?;
        let (model, data, reward) = match (&self.model, &self.data, &self.reward) {
            (Some(model), Some(data), Some(reward)) => (model, data, reward),
            _ => return Err(CliError::Input("expected --model, --data and --reward, or a terminal to ask on".to_string())),
        };
        if reward.ends_with(".sql") && !Path::new(reward).exists() {
            write(Path::new(reward), REWARD)?;
            print(&format!("{reward}: written, with 1 for the reference answer and 0 for anything else"))?;
        }
        let file = self.file.display();
        // Something may be wrong with the inputs; then the file has the paper's settings.
        let prompts = |fit: &Fit| self.prompts(&self.pipeline(model, data, reward, fit), runs);
        let mut fit = Fit::default();
        if let Ok(all) = prompts(&fit) {
            let apart = Fit::set_apart(all);
            fit = match prompts(&apart) {
                Ok(training) if self.held_out.is_none() => apart.of_training(training),
                _ => fit.of_training(all),
            };
        }
        write(&self.file, &self.pipeline(model, data, reward, &fit))?;
        self.check(runs).map_err(|error| CliError::Input(format!("{file}: written, but not right yet: {error}")))?;
        fit.describe().map_or(Ok(()), |text| print(&format!("{file}: {text}")))?;
        let word = word(&file);
        print(&format!("{file}: written; see what it will do: optune plan {word}, then: optune run {word}"))
    }

    /// Asks for the missing values, if a person is there to answer.
    fn ask(&mut self) -> Result<(), CliError> {
        let missing = [&self.model, &self.data, &self.reward].iter().any(|given| given.is_none());
        if !missing || !std::io::stdin().is_terminal() {
            return Ok(());
        }
        let mut editor = DefaultEditor::new().map_err(|error| CliError::Failed(format!("no terminal: {error}")))?;
        let mut line = |question: &str| match editor.readline(question) {
            Ok(line) => Ok(Some(line.trim().to_string()).filter(|line| !line.is_empty())),
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => Err(CliError::Interrupted("nothing was written".to_string())),
            Err(error) => Err(CliError::Failed(error.to_string())),
        };
        let mut until_given = |given: &mut Option<String>, question: &str| -> Result<(), CliError> {
            while given.is_none() {
                *given = line(question)?;
            }
            Ok(())
        };
        until_given(&mut self.model, "model to tune (a directory, or hf://org/name): ")?;
        until_given(&mut self.data, "prompts (a Parquet, JSON lines, CSV or Arrow file): ")?;
        until_given(&mut self.reward, "reward (a .sql file, a reward model's directory, a server's address, or rewards.py:FUNCTION): ")?;
        if self.held_out.is_none() {
            self.held_out = line("held-out prompts to evaluate on (empty for none): ")?;
        }
        Ok(())
    }

    /// The pipeline file's text.
    fn pipeline(&self, model: &str, data: &str, reward: &str, fit: &Fit) -> String {
        let (model, data) = (&self.as_in_file(model), &self.as_in_file(data));
        let reward = match self.as_in_file(reward).as_str() {
            server if server.starts_with("http://") || server.starts_with("https://") => format!("http: {}", quoted(server)),
            query if query.ends_with(".sql") => format!("sql: {}", quoted(query)),
            function if function.contains(".py:") => format!("python: {}", quoted(function)),
            model => format!("model: {}", quoted(model)),
        };
        let mut lines = vec![
            "# OPTune (arXiv 2406.07657): online DPO that regenerates only the half of the prompts whose responses were rewarded least,"
                .to_string(),
            "# and weights each pair by its reward gap. Values without a remark are the paper's; (?) marks what it leaves open."
                .to_string(),
        ];
        for line in TEMPLATE.lines().skip_while(|line| line.starts_with('#')) {
            let words = line.trim_start();
            lines.push(match words.split_once(':').map_or(words, |(key, _)| key) {
                "name" => format!("name: {}", quoted(&self.name)),
                // Paths start from the folder of the file.
                "folder" => continue,
                "prompts" if words.contains("table:") => format!("  prompts: {{ table: {}{} }}", quoted(data), fit.split("training")),
                "held_out" => match &self.held_out {
                    Some(held_out) => format!("  held_out: {{ table: {} }}", quoted(&self.as_in_file(held_out))),
                    None if fit.held_out.is_some() => format!("  held_out: {{ table: {}{} }}", quoted(data), fit.split("held_out")),
                    None => continue,
                },
                "batch_size" if fit.batch_size != PAPERS_BATCH_SIZE => {
                    format!(
                        "        batch_size: {:<30}# fitted to {} prompts; the paper's is {PAPERS_BATCH_SIZE}",
                        fit.batch_size, fit.training
                    )
                }
                "warmup_ratio" if !fit.warms_up => {
                    "        warmup_ratio: 0                           # too few steps for the paper's 0.1: it begins at 0".to_string()
                }
                "base" => format!("  base: {{ model: {} }}", quoted(model)),
                "judge" => format!("  judge: {{ reward: {{ {reward} }} }}"),
                "learning_rate" if self.lora => {
                    "        lora: {}\n        learning_rate: 5.0e-6                    # ten times the paper's, as adapters need"
                        .to_string()
                }
                // The last node.
                "evaluation" if self.held_out.is_none() && fit.held_out.is_none() => break,
                _ => line.to_string(),
            });
        }
        lines.join("\n") + "\n"
    }

    /// A path from the working directory as one from the folder of the file.
    fn as_in_file(&self, path: &str) -> String {
        let is_address = path.contains("://") || Path::new(path).is_absolute();
        let folder = folder_of(&self.file);
        if is_address || folder.as_os_str().is_empty() {
            return path.to_string();
        }
        match std::env::current_dir().and_then(|here| seen_from(&here, folder)) {
            Ok(here) if here == Path::new(".") => path.to_string(),
            Ok(here) => here.join(path).to_string_lossy().into_owned(),
            // The check of the file says that the path is not there.
            Err(_) => path.to_string(),
        }
    }

    /// The number of prompts in the table of prompts of a pipeline with this text.
    fn prompts(&self, text: &str, runs: &Path) -> Result<usize, CliError> {
        let graph = Pipeline::read(&self.file.to_string_lossy(), text, &[])?.graph(folder_of(&self.file))?;
        let run = Runs::open(runs)?.run(&graph.name)?;
        let fetched = fetch(graph, &run, &|| false, watcher(false).as_ref())?;
        let table = fetched.graph.sources.iter().position(|source| source.name == "prompts");
        let missing = || CliError::Failed("internal error: the pipeline has no input prompts".to_string());
        let imported = import(&fetched.graph, table.ok_or_else(missing)?).map_err(OperatorError::from)?;
        Ok(imported.rows())
    }

    /// The checks of `plan`.
    fn check(&self, runs: &Path) -> Result<(), CliError> {
        let graph = Pipeline::load(&self.file, &[])?.graph(folder_of(&self.file))?;
        let run = Runs::open(runs)?.run(&graph.name)?;
        let fetched = fetch(graph, &run, &|| false, watcher(false).as_ref())?;
        Ok(operators::check(&fetched.graph, None).map(drop)?)
    }
}

/// The batch size of the paper.
const PAPERS_BATCH_SIZE: usize = 128;

/// Steps that a batch size must leave in an iteration, so that a tenth of them is a warm-up.
const FEWEST_STEPS: usize = 10;

/// The share of the prompts set apart for evaluation.
const HELD_OUT: f64 = 0.1;

/// The most prompts set apart: more cost time and tell little.
const MOST_HELD_OUT: usize = 500;

/// The settings that depend on the number of prompts.
struct Fit {
    /// Prompts to train on.
    training: usize,
    /// The share of the prompts set apart for evaluation.
    held_out: Option<f64>,
    batch_size: usize,
    warms_up: bool,
}

impl Default for Fit {
    /// The paper's, without prompts set apart.
    fn default() -> Self {
        Self { training: 0, held_out: None, batch_size: PAPERS_BATCH_SIZE, warms_up: true }
    }
}

impl Fit {
    /// With a share of so many prompts set apart.
    fn set_apart(prompts: usize) -> Self {
        let share = HELD_OUT.min((1e4 * MOST_HELD_OUT as f64 / prompts.max(1) as f64).ceil() / 1e4);
        Self { held_out: Some(share), ..Self::default() }
    }

    /// For so many prompts to train on.
    fn of_training(self, training: usize) -> Self {
        let most = (training / FEWEST_STEPS).clamp(1, PAPERS_BATCH_SIZE);
        // The largest power of 2 up to `most`.
        let batch_size = 1 << most.ilog2();
        Self { training, batch_size, warms_up: training.div_ceil(batch_size) >= FEWEST_STEPS, ..self }
    }

    /// The key `split` of an input.
    fn split(&self, take: &str) -> String {
        self.held_out.map_or(String::new(), |share| format!(", split: {{ held_out: {share}, take: {take} }}"))
    }

    /// What differs from the paper, if anything does.
    fn describe(&self) -> Option<String> {
        let held_out = self.held_out.map(|share| format!("a share of {share} of the prompts is set apart for evaluation"));
        let batch = (self.batch_size != PAPERS_BATCH_SIZE)
            .then(|| format!("batch_size is {} for {} prompts, the paper's is {PAPERS_BATCH_SIZE}", self.batch_size, self.training));
        let texts: Vec<String> = [held_out, batch].into_iter().flatten().collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    std::fs::write(path, text).map_err(|error| CliError::Failed(format!("{}: cannot write: {error}", path.display())))
}

/// Any text, quoted for YAML.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
