//! `optune export`: a policy as a Hugging Face directory, pairs in TRL's form, both to the hub.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::error::CliError;
use super::format;
use super::pairs::{self, Flagged, Wanted};
use super::push::{Kind, Made, Push};
use crate::model::{Checkpoint, Dtype, ModelError};
use crate::operators::support::lora;
use crate::pipeline::{Input, Pipeline};
use crate::report;
use crate::store::{OutputKey, OutputKind, Run, Runs};

/// This file marks a model as an adapter.
const ADAPTER: &str = "adapter_config.json";
/// The file of pairs in a dataset of the hub.
const PAIRS: &str = "data/train-00000-of-00001.parquet";

#[derive(Args)]
pub(super) struct Export {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A model of a run, a policy or with `--node` a reward model, as a Hugging Face directory; an
    /// adapter is merged into its base.
    Policy {
        /// The run: its name, or its folder.
        run: PathBuf,
        /// The directory to make; it must not exist. With `--push` it may be left out.
        #[arg(required_unless_present = "push")]
        output: Option<PathBuf>,
        /// The node that made the model.
        #[arg(long, default_value = "policy")]
        node: String,
        /// The iteration; the last one when left out.
        #[arg(long)]
        iteration: Option<u32>,
        /// The number format of the weights: f32, bf16 or f16.
        #[arg(long, default_value = "f32")]
        dtype: Dtype,
        /// The largest size of a weights file; larger models go into several.
        #[arg(long, default_value = "5GB", value_name = "SIZE", value_parser = bytes)]
        max_shard_size: u64,
        /// Write the LoRA adapter alone, in PEFT's format. It names the place of its base.
        #[arg(long, conflicts_with_all = ["dtype", "max_shard_size"])]
        adapter: bool,
        #[command(flatten)]
        push: Push,
    },
    /// Pairs with the columns prompt, chosen, rejected, weight and margin, as TRL reads them:
    /// texts, or lists of messages where the prompts are messages. Messages have all their fields,
    /// and the columns tools and chat_template_kwargs stand beside them where a prompt has them.
    /// The file's extension selects the format.
    Pairs {
        /// The run: its name, or its folder.
        run: PathBuf,
        /// The file to write: `.jsonl` or `.parquet`. With `--push` it may be left out.
        #[arg(required_unless_present = "push")]
        output: Option<PathBuf>,
        /// The node that made the pairs: `pairs`, or the only one, when left out. The pairs read by
        /// a `train` node are `<train>_pairs`.
        #[arg(long)]
        node: Option<String>,
        /// The node that sampled the responses.
        #[arg(long, default_value = "responses")]
        responses: String,
        /// The table of prompts.
        #[arg(long, default_value = "prompts")]
        prompts: String,
        /// The iteration; the last one when left out.
        #[arg(long)]
        iteration: Option<u32>,
        /// Write only the pairs with a flag of `optune view` on the prompt or on one of the
        /// responses, or only those without one.
        #[arg(long, value_enum)]
        flagged: Option<Flagged>,
        #[command(flatten)]
        push: Push,
    },
}

impl Export {
    pub(super) fn execute(self, runs: &Path) -> Result<(), CliError> {
        match self.what {
            What::Policy { run, output, node, iteration, dtype, max_shard_size, adapter, push } => {
                let target = push.target(Kind::Model)?;
                let found = model(runs, &run, &node, iteration)?;
                let name = found.name.clone();
                let write = |folder: &Path| match (adapter, &found.base) {
                    (true, Some(base)) => Ok(export(folder, |folder| found.checkpoint.copy_adapter(folder, &base.display().to_string()))?),
                    (true, None) => {
                        Err(CliError::Input(format!("expected a model trained with `lora`, but {name} was not; leave out --adapter")))
                    }
                    (false, _) => export(folder, |folder| found.checkpoint.export(folder, dtype, max_shard_size)),
                };
                let made = Made::at(output, runs, "model")?;
                write(made.path())?;
                if let Some(target) = target {
                    let card = report::model_card(&found.run, &found.place, target.repo())?;
                    target.push(made.path(), &card, &format!("{name} of the run {}, by optune", found.run.name()))?;
                }
                made.is_kept().map_or(Ok(()), |path| format::print(&format!("{name} in {}", path.display())))
            }
            What::Pairs { run, output, node, responses, prompts, iteration, flagged, push } => {
                let wanted = Wanted { node, responses, prompts, iteration, flagged };
                let Some(target) = push.target(Kind::Dataset)? else {
                    let output = output.unwrap_or_default();
                    let written = pairs::export(runs, &run, &output, &wanted)?;
                    return format::print(&format!("{} pairs in {}", written.rows, output.display()));
                };
                let made = Made::at(None, runs, "dataset")?;
                let file = made.path().join(PAIRS);
                let folder = file.parent().unwrap_or(made.path());
                std::fs::create_dir_all(folder)?;
                let written = pairs::export(runs, &run, &file, &wanted)?;
                if let Some(output) = &output {
                    pairs::export(runs, &run, output, &wanted)?;
                    format::print(&format!("{} pairs in {}", written.rows, output.display()))?;
                }
                let card = report::dataset_card(&written.run, &written.place, target.repo(), PAIRS, written.rows)?;
                target.push(made.path(), &card, &format!("{} of the run {}, by optune", written.place, written.run.name()))
            }
        }
    }
}

/// A finished model of a run.
struct Found {
    run: Run,
    place: OutputKey,
    checkpoint: Checkpoint,
    /// The folder of its base, if it is an adapter.
    base: Option<PathBuf>,
    /// Its name in messages.
    name: String,
}

/// Finds a finished model.
fn model(runs: &Path, run: &Path, node: &str, iteration: Option<u32>) -> Result<Found, CliError> {
    let run = Runs::open(runs)?.find(run)?;
    let manifests = run.manifests()?;
    let made =
        manifests.iter().filter(|(place, manifest)| place.kind == OutputKind::Model && manifest.complete).map(|(_, manifest)| manifest);
    let found = made
        .clone()
        .filter(|manifest| manifest.node == node && (iteration.is_none() || manifest.iteration == iteration))
        .max_by_key(|manifest| manifest.iteration);
    let Some(manifest) = found else {
        let there: Vec<String> = made.map(|m| m.iteration.map_or(m.node.clone(), |t| format!("{} of iteration {t}", m.node))).collect();
        return Err(CliError::Input(format!("expected a finished model {node}, found: {}", there.join(", "))));
    };
    let place = OutputKey { kind: OutputKind::Model, name: manifest.node.clone(), iteration: manifest.iteration };
    let name = manifest.iteration.map_or(node.to_string(), |t| format!("{node} of iteration {t}"));
    if !manifest.files.iter().any(|file| file.file == ADAPTER) {
        let checkpoint = Checkpoint::open(&run.model_dir(&place)?)?;
        return Ok(Found { run, place, checkpoint, base: None, name });
    }
    // The run's own pipeline file leads to the base.
    let graph = Pipeline::load(&run.pipeline_file()?, &[])?.graph(run.folder())?;
    let made = graph.tasks.iter().position(|task| task.output_key() == place).map(Input::Task);
    let made = made.ok_or_else(|| CliError::Input(format!("{}: its pipeline.yaml has no {place}", run.folder().display())))?;
    let (checkpoint, base) = (lora::open(&run, &graph, made)?, lora::base_folder(&run, &graph, made)?);
    Ok(Found { run, place, checkpoint, base, name })
}

/// Writes a model into a new directory; after a failure no directory is left.
fn export(output: &Path, write: impl FnOnce(&Path) -> Result<(), ModelError>) -> Result<(), CliError> {
    if output.exists() {
        return Err(CliError::Input(format!("{}: exists already; name a directory that does not", output.display())));
    }
    let written = write(output);
    if written.is_err() && output.exists() {
        std::fs::remove_dir_all(output)?;
    }
    Ok(written?)
}

/// A number of bytes as `500MB`, `5GB` or `4GiB`.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "b" | "" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(format!("expected a number of B, kB, MB, GB, KiB, MiB or GiB, found {unit:?}")),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| format!("expected a size such as 500MB or 5GB, found {text:?}"))
}
