//! The store: Parquet parts, models, manifests, the cache of finished outputs, the journal, and SQL over all of it.
//!
//! ```text
//! runs/<name>/lock                                   held by the one process that writes the run
//! runs/<name>/journal.jsonl                          what happened when; informs, decides nothing
//! runs/<name>/sources.json                           which commits of the hub the run began with
//! runs/<name>/tables/<node>[/iteration=N]/           part-00000.parquet, … and manifest.json
//! runs/<name>/models/<node>[/iteration=N]/           a Hugging Face directory and manifest.json
//! runs/<name>/.partial/                              files in flight, models in the making, checkpoints
//! runs/<name>/quarantine/                            files that were not what their manifest says
//! runs/.cache/<fingerprint>/                         finished outputs, hard links, shared by all runs
//! runs/.cache/<fingerprint>.partial/                 parts of a table whose recipe changed before it was finished
//! runs/.cache/logprobs/<fingerprint>/                what a model makes of token ids, in parts named for their hash
//! ```
//!
//! What holds at every moment, so that a kill between any two steps loses at most the part in hand:
//! - a file is written elsewhere, fsynced and hashed before it is renamed into place, and in place before its manifest lists it;
//! - **the manifest decides**: a part that it does not list does not exist, and one whose bytes differ from it is never read;
//! - a finished output is in the cache before its manifest says that it is complete, and before anything replaces it;
//! - **what no manifest lists is sealed**: manifests, `checkpoint.json`, `sources.json`, `pipeline.yaml` and the journal's lines end with their hash;
//! - files in place are never written to again, so sharing them by hard links is safe;
//! - writing needs a [`RunLock`]; reading needs only a [`Run`].
//!
//! One fingerprint is one output: a node that makes a model and a table has a recipe for each.
//!
//! Knows nothing of tensors, of the pipeline file, or of what any operator does.

mod cache;
mod checkpoint;
mod checksum;
pub mod clean;
mod error;
mod files;
pub(crate) mod journal;
mod lock;
mod manifest;
mod memo;
mod model_writer;
mod output_key;
pub(crate) mod parquet;
mod quarantine;
mod read;
mod run;
mod table_writer;
mod verify;

pub use checkpoint::Checkpoint;
pub use clean::Garbage;
pub use error::StoreError;
pub use files::{fingerprint_of, fingerprint_of_files, hash_files};
pub use journal::{Event, EventKind, Journal};
pub use lock::RunLock;
pub use manifest::{Manifest, ModelFile, Part};
pub use model_writer::ModelWriter;
pub use output_key::{OutputKey, OutputKind};
pub use parquet::{read_parquet, write_parquet};
pub use quarantine::Quarantined;
pub use run::{Run, Runs, State};
pub use table_writer::{PartWriter, TableWriter};
pub use verify::Verified;
