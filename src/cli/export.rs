//! `optune export`: a policy as a Hugging Face directory, pairs in the form that TRL reads.

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use clap::{Args, Subcommand};

use super::format::{self, Format};
use super::{CliError, sql};
use crate::pipeline::{Input, Pipeline};
use crate::stages::{StageError, adapters};
use crate::store::{Place, PlaceKind, Run, Runs};

#[derive(Args)]
pub(super) struct Export {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A model of a run as a Hugging Face directory; one that was trained with `lora` has its adapter merged in.
    Policy {
        /// The run: its name, or its folder.
        run: PathBuf,
        /// The directory to make; it must not exist.
        output: PathBuf,
        /// The node that made the model.
        #[arg(long, default_value = "policy")]
        node: String,
        /// The iteration; the last one when left out.
        #[arg(long)]
        iteration: Option<u32>,
        /// Write the adapter alone, in PEFT's format, with the place of its base in it.
        #[arg(long)]
        adapter: bool,
    },
    /// Pairs with the columns prompt, chosen, rejected, weight and margin; the format is that of the file's extension.
    Pairs {
        /// The run: its name, or its folder.
        run: PathBuf,
        /// The file to write: `.jsonl` or `.parquet`.
        output: PathBuf,
        /// The node that made the pairs.
        #[arg(long, default_value = "pairs")]
        node: String,
        /// The node that sampled the responses.
        #[arg(long, default_value = "responses")]
        responses: String,
        /// The table of prompts.
        #[arg(long, default_value = "prompts")]
        prompts: String,
        /// The iteration; the last one when left out.
        #[arg(long)]
        iteration: Option<u32>,
    },
}

impl Export {
    pub(super) fn execute(self, runs: &Path) -> Result<(), CliError> {
        match self.what {
            What::Policy { run, output, node, iteration, adapter } => policy(runs, &run, &output, &node, iteration, adapter),
            What::Pairs { run, output, node, responses, prompts, iteration } => {
                let format = match output.extension().and_then(|extension| extension.to_str()) {
                    Some("jsonl" | "json") => Format::Json,
                    Some("parquet") => Format::Parquet,
                    _ => return Err(CliError::Input(format!("{}: expected a file that ends in .jsonl or .parquet", output.display()))),
                };
                let rows = pairs(runs, &run, [&node, &responses, &prompts], iteration)?;
                format::write(&rows, format, Some(&output))?;
                let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
                format::print(&format!("{count} pairs in {}", output.display()))
            }
        }
    }
}

fn policy(runs: &Path, run: &Path, output: &Path, node: &str, iteration: Option<u32>, adapter: bool) -> Result<(), CliError> {
    let run = Runs::open(runs)?.find(run)?;
    let manifests = run.manifests()?;
    let made =
        manifests.iter().filter(|(place, manifest)| place.kind == PlaceKind::Model && manifest.complete).map(|(_, manifest)| manifest);
    let found = made
        .clone()
        .filter(|manifest| manifest.node == node && (iteration.is_none() || manifest.iteration == iteration))
        .max_by_key(|manifest| manifest.iteration);
    let Some(manifest) = found else {
        let there: Vec<String> = made.map(|m| m.iteration.map_or(m.node.clone(), |t| format!("{} of iteration {t}", m.node))).collect();
        return Err(CliError::Input(format!("expected a finished model {node}, found: {}", there.join(", "))));
    };
    let place = Place { kind: PlaceKind::Model, name: manifest.node.clone(), iteration: manifest.iteration };
    let source = run.model_dir(&place)?;
    let is_adapter = manifest.files.iter().any(|file| file.file == "adapter_config.json");
    if adapter && !is_adapter {
        return Err(CliError::Input(format!("expected a model that was trained with `lora`, but {node} was not; leave out --adapter")));
    }
    if output.exists() {
        return Err(CliError::Input(format!("{}: exists already; name a directory that does not", output.display())));
    }
    if is_adapter {
        adapted(&run, &place, output, adapter)?;
    } else {
        std::fs::create_dir_all(output)?;
        for file in &manifest.files {
            std::fs::copy(source.join(&file.file), output.join(&file.file))
                .map_err(|error| CliError::Failed(format!("{}: cannot copy {}: {error}", output.display(), file.file)))?;
        }
    }
    format::print(&format!(
        "{} in {}",
        manifest.iteration.map_or(node.to_string(), |t| format!("{node} of iteration {t}")),
        output.display()
    ))
}

/// Writes a model that is an adapter: alone, or merged into its base, which the run's pipeline file leads to.
fn adapted(run: &Run, place: &Place, output: &Path, alone: bool) -> Result<(), CliError> {
    let graph = Pipeline::load(&run.folder().join("pipeline.yaml"), &[])?.graph(Path::new(""))?;
    let made = graph.tasks.iter().position(|task| task.place() == *place).map(Input::Task);
    let made = made.ok_or_else(|| CliError::Input(format!("{}: its pipeline.yaml has no {place}", run.folder().display())))?;
    let checkpoint = adapters::open(run, &graph, made)?;
    let written = match adapters::base_folder(run, &graph, made)? {
        Some(base) if alone => checkpoint.copy_adapter(output, &base.display().to_string()),
        _ => checkpoint.save_merged(output),
    };
    Ok(written.map_err(StageError::from)?)
}

/// The pairs with their texts. A conversation's messages go out as they came in; the responses are text.
fn pairs(runs: &Path, run: &Path, [node, responses, prompts]: [&str; 3], iteration: Option<u32>) -> Result<Vec<RecordBatch>, CliError> {
    let session = sql::open(runs, run)?;
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let columns = session.schema_of(&format!("SELECT * FROM {}", quote(prompts)))?;
    let prompt = if columns.field_with_name("prompt").is_ok() { "prompt" } else { "messages" };
    let wanted = match iteration {
        Some(iteration) => iteration.to_string(),
        None => format!("(SELECT max(iteration) FROM {})", quote(node)),
    };
    Ok(session.query(&format!(
        "SELECT asked.{prompt} AS prompt, chosen.text AS chosen, rejected.text AS rejected, pairs.weight, pairs.reward_gap AS margin
FROM {node} AS pairs
JOIN {prompts} AS asked ON asked.prompt_id = pairs.prompt_id
JOIN {responses} AS chosen ON chosen.prompt_id = pairs.prompt_id AND chosen.born = pairs.chosen_born AND chosen.response_index = pairs.chosen_index
JOIN {responses} AS rejected ON rejected.prompt_id = pairs.prompt_id AND rejected.born = pairs.rejected_born AND rejected.response_index = pairs.rejected_index
WHERE pairs.iteration = {wanted}
ORDER BY pairs.prompt_id",
        node = quote(node),
        prompts = quote(prompts),
        responses = quote(responses),
    ))?)
}
