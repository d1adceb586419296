//! The store: durable outputs of runs on disk.
//!
//! It holds Parquet parts, models, manifests, checkpoints, the journal and the cache of finished
//! outputs.
//!
//! ```text
//! runs/<name>/lock                              held by the one process that writes the run
//! runs/<name>/journal.jsonl                     events with their times; informative only
//! runs/<name>/sources.json                      hub commits at the start of the run
//! runs/<name>/pipeline.yaml                     the resolved pipeline
//! runs/<name>/tables/<node>[/iteration=N]/      part-00000.parquet, … and nothing else
//! runs/<name>/manifests/<node>[/iteration=N].json   the manifests of the tables
//! runs/<name>/models/<node>[/iteration=N]/      a Hugging Face directory and manifest.json
//! runs/<name>/.partial/                         temporary files, unfinished models, checkpoints,
//!                                               the work of commands
//! runs/<name>/logs/                             the output of commands
//! runs/<name>/annotations.parquet               flags and notes of a person; outside fingerprints
//! runs/<name>/quarantine/                       files with a wrong checksum
//! runs/.cache/<fingerprint>/                    finished outputs, hard links, shared by all runs
//! runs/.cache/<fingerprint>.partial/            parts of an unfinished table with an older recipe
//! runs/.cache/logprobs/<fingerprint>/           memoized log-probabilities, parts named by hash
//! runs/.cache/judge_answers/<fingerprint>/      memoized answers of judges, in the same way
//! ```
//!
//! These invariants hold at every moment. A kill between any two steps loses at most the current
//! part.
//! - A file is written under a temporary name, fsynced and hashed. Then it is renamed. Then its
//!   manifest lists it.
//! - **The manifest decides.** A part outside the manifest does not exist. A part with a wrong hash
//!   is never read.
//! - A finished output enters the cache before its manifest says `complete`, and before another
//!   output replaces it.
//! - **Files without a manifest carry their own checksum**: manifests, `checkpoint.json`,
//!   `sources.json`, `pipeline.yaml` and each line of the journal.
//! - **A manifest moves with its folder.** That of a table is beside its folder, and in it while
//!   the folder moves: to the cache and back, and to its place. One rename takes it in or out.
//! - A finished file is never written again, so hard links to it are safe.
//! - A writer needs a [`RunLock`], except for annotations. A reader needs only a [`Run`].
//!
//! One fingerprint names one output. A node with a model and a table has two recipes.
//!
//! # Where a method lives
//!
//! | call | file | purpose |
//! |---|---|---|
//! | `run.state(…)` | `state.rs` | how complete an output is |
//! | `run.read_table(…)`, `run.model_dir(…)` | `read.rs` | verified reading |
//! | `run.journal()` | `journal.rs` | events |
//! | `run.annotations()` | `annotations.rs` | flags and notes of a person |
//! | `run.verify_all()` | `verify.rs` | check a whole run, change nothing |
//! | `run.lock()` | `recovery.rs` | take the lock, clean up after a kill |
//! | `lock.record(…)` | `lock.rs` | append to the journal |
//! | `lock.write_pipeline(…)`, `lock.write_sources(…)` | `lock.rs` | write single files |
//! | `lock.write_table(…)` | `table_writer.rs` | write a table part by part |
//! | `lock.write_model(…)` | `model_writer.rs` | write a model directory |
//! | `lock.cache().adopt(…)`, `.retire(…)` | `cache.rs` | share finished outputs |
//! | `lock.checkpoints().latest(…)`, `.commit(…)` | `checkpoint.rs` | checkpoints of training |
//! | `lock.memo().read(…)`, `.add(…)` | `memo.rs` | memoized rows |
//! | `lock.work(…)`, `lock.log(…)` | `work.rs` | folders and logs of programs |
//! | `lock.quarantine().verify(…)` | `quarantine.rs` | move damaged files aside |
//! | `runs.garbage()`, `runs.remove(…)` | `clean.rs` | delete unused files |
//!
//! Knows nothing of tensors, of the pipeline file, or of what any operator does.

mod annotations;
mod cache;
mod checkpoint;
mod checksum;
mod clean;
mod damage;
mod error;
mod files;
mod inspect;
pub(crate) mod journal;
mod lock;
mod manifest;
mod memo;
mod model_files;
mod model_writer;
mod name;
mod output_key;
pub(crate) mod parquet;
mod quarantine;
mod read;
mod recovery;
mod run;
mod state;
mod table_writer;
mod verify;
mod work;

pub use annotations::Annotations;
pub use cache::Cache;
pub use checkpoint::{Checkpoint, Checkpoints};
pub use clean::Garbage;
pub use damage::Quarantined;
pub use error::StoreError;
pub use journal::{Event, EventKind, Journal};
pub use lock::RunLock;
pub use manifest::{Manifest, Part};
pub use memo::Memo;
pub use model_files::{ModelFile, fingerprint_of, fingerprint_of_files, hash_files};
pub use model_writer::ModelWriter;
pub use output_key::{OutputKey, OutputKind};
pub use parquet::{read_parquet, write_parquet};
pub use quarantine::Quarantine;
pub use run::{Run, Runs};
pub use state::State;
pub use table_writer::{PartWriter, TableWriter};
pub use verify::Verified;
