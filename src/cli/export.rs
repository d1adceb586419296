//! `optune export`: a policy as a Hugging Face directory, pairs in the form that TRL reads.

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use clap::{Args, Subcommand};

use super::format::{self, Format};
use super::{CliError, sql};
use crate::model::{Checkpoint, Dtype};
use crate::store::{Place, PlaceKind, Runs};

#[derive(Args)]
pub(super) struct Export {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A model of a run, a policy or with `--node` a reward model, as a Hugging Face directory.
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
        /// The number format of the weights: f32, bf16 or f16.
        #[arg(long, default_value = "f32")]
        dtype: Dtype,
        /// The largest size of a weights file; larger models go into several.
        #[arg(long, default_value = "5GB", value_name = "SIZE", value_parser = bytes)]
        max_shard_size: u64,
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
            What::Policy { run, output, node, iteration, dtype, max_shard_size } => {
                let (model, name) = model(runs, &run, &node, iteration)?;
                export(&model, &output, dtype, max_shard_size)?;
                format::print(&format!("{name} in {}", output.display()))
            }
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

/// The folder of a finished model, and what to call it.
fn model(runs: &Path, run: &Path, node: &str, iteration: Option<u32>) -> Result<(PathBuf, String), CliError> {
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
    let name = manifest.iteration.map_or(node.to_string(), |t| format!("{node} of iteration {t}"));
    Ok((run.model_dir(&place)?, name))
}

/// Writes the model into a directory that does not exist yet; where that fails, none is left.
fn export(model: &Path, output: &Path, dtype: Dtype, max_shard_bytes: u64) -> Result<(), CliError> {
    if output.exists() {
        return Err(CliError::Input(format!("{}: exists already; name a directory that does not", output.display())));
    }
    let written = Checkpoint::open(model).and_then(|checkpoint| checkpoint.export(output, dtype, max_shard_bytes));
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
