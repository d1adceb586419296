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
use crate::operators;
use crate::pipeline::Pipeline;
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
    /// A table of prompts that are not trained on; without one, policies are not evaluated.
    #[arg(long)]
    held_out: Option<String>,
    /// The reward: a file of SQL (written if there is none), a reward model's directory or hf://
    /// name, or the http(s):// address of a server.
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
        write(&self.file, &self.pipeline(model, data, reward))?;
        let file = self.file.display();
        self.check(runs).map_err(|error| CliError::Input(format!("{file}: written, but not right yet: {error}")))?;
        print(&format!("{file}: written; see what it will do: optune plan {file}, then: optune run {file}"))
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
        until_given(&mut self.reward, "reward (a .sql file, a reward model's directory, or a server's address): ")?;
        if self.held_out.is_none() {
            self.held_out = line("held-out prompts to evaluate on (empty for none): ")?;
        }
        Ok(())
    }

    /// The pipeline file's text.
    fn pipeline(&self, model: &str, data: &str, reward: &str) -> String {
        let reward = match reward {
            server if server.starts_with("http://") || server.starts_with("https://") => format!("http: {}", quoted(server)),
            query if query.ends_with(".sql") => format!("sql: {}", quoted(query)),
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
                "prompts" if words.contains("table:") => format!("  prompts: {{ table: {} }}", quoted(data)),
                "held_out" => match &self.held_out {
                    Some(held_out) => format!("  held_out: {{ table: {} }}", quoted(held_out)),
                    None => continue,
                },
                "base" => format!("  base: {{ model: {} }}", quoted(model)),
                "judge" => format!("  judge: {{ reward: {{ {reward} }} }}"),
                "learning_rate" if self.lora => {
                    "        lora: {}\n        learning_rate: 5.0e-6                    # ten times the paper's, as adapters need"
                        .to_string()
                }
                // The last node.
                "evaluation" if self.held_out.is_none() => break,
                _ => line.to_string(),
            });
        }
        lines.join("\n") + "\n"
    }

    /// The checks of `plan`.
    fn check(&self, runs: &Path) -> Result<(), CliError> {
        let graph = Pipeline::load(&self.file, &[])?.graph(Path::new(""))?;
        let run = Runs::open(runs)?.run(&graph.name)?;
        let fetched = fetch(graph, &run, &|| false, watcher(false).as_ref())?;
        Ok(operators::check(&fetched.graph, None).map(drop)?)
    }
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    std::fs::write(path, text).map_err(|error| CliError::Failed(format!("{}: cannot write: {error}", path.display())))
}

/// Any text, quoted for YAML.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
