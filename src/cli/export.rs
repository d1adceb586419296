//! `optune export`: a policy as a Hugging Face directory, pairs in the form that TRL reads.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::pairs::{self, Wanted};
use super::{CliError, format};
use crate::store::{Place, PlaceKind, Runs};

#[derive(Args)]
pub(super) struct Export {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A model of a run as a Hugging Face directory.
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
    },
    /// Pairs with the columns prompt, chosen, rejected, weight and margin, as TRL reads them: texts, or lists of messages where the prompts
    /// are messages. The format is that of the file's extension.
    Pairs {
        /// The run: its name, or its folder.
        run: PathBuf,
        /// The file to write: `.jsonl` or `.parquet`.
        output: PathBuf,
        /// The node that made the pairs: `pairs`, or the only one, when left out. Those that a `train` node reads are `<train>_pairs`.
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
    },
}

impl Export {
    pub(super) fn execute(self, runs: &Path) -> Result<(), CliError> {
        match self.what {
            What::Policy { run, output, node, iteration } => policy(runs, &run, &output, &node, iteration),
            What::Pairs { run, output, node, responses, prompts, iteration } => {
                pairs::export(runs, &run, &output, &Wanted { node, responses, prompts, iteration })
            }
        }
    }
}

fn policy(runs: &Path, run: &Path, output: &Path, node: &str, iteration: Option<u32>) -> Result<(), CliError> {
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
    if output.exists() {
        return Err(CliError::Input(format!("{}: exists already; name a directory that does not", output.display())));
    }
    std::fs::create_dir_all(output)?;
    for file in &manifest.files {
        std::fs::copy(source.join(&file.file), output.join(&file.file))
            .map_err(|error| CliError::Failed(format!("{}: cannot copy {}: {error}", output.display(), file.file)))?;
    }
    format::print(&format!(
        "{} in {}",
        manifest.iteration.map_or(node.to_string(), |t| format!("{node} of iteration {t}")),
        output.display()
    ))
}
