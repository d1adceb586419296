//! optune: efficient online preference tuning of language models, as a dataflow over Arrow tables.
//!
//! ```text
//!             ┌──────────────────────────── iteration t = 1..T ───────────────────────────────┐
//!  prompts ─▶ selection ─▶ responses ─▶ rewards ─▶ pool ─▶ pairs ─▶ policy[t] ─▶ evaluation
//!             (lowest ρ)   (policy[t-1]) (reward)   ▲       (gap →    (weighted DPO)
//!                ▲                                  │        weight)
//!                └────────── pool[t-1] ─────────────┘
//! ```
//!
//! # The house
//!
//! Modules stand on floors and import downwards only (a test checks it).
//!
//! | floor | module | what it is | must not know |
//! |---|---|---|---|
//! | 6 | [`cli`] | commands, progress, printing | tensors |
//! | 5 | [`run`] | a pipeline's plan and its execution in a run folder | the terminal |
//! | 5 | [`report`] | HTML about runs, from their tables | burn, how runs are executed, the terminal |
//! | 4 | [`stages`] | one file an operator; the only place with both Arrow and burn | each other |
//! | 3 | [`generation`], [`training`] | batched sampling; losses, logprobs, optimizer | Arrow, devices, each other |
//! | 3 | [`tracking`] | curves of a run for TensorBoard and MLflow, from its tables | burn, stages |
//! | 3 | [`serve`] | a run's tables over PostgreSQL's protocol | burn, the pipeline |
//! | 2 | [`compute`] | how a model is computed: the reference, the CPU, GPUs, behind one trait | Arrow, losses, sampling rules |
//! | 2 | [`pipeline`] | YAML to a checked graph | Arrow, burn |
//! | 2 | [`store`] | parts, manifests, cache, journal, lock, SQL over a run | burn, the pipeline |
//! | 2 | [`remote`] | servers that score and generate, models from the hub: all that goes over HTTP | Arrow, burn, the pipeline |
//! | 1 | [`tables`] | one file a table: schema, key, row checks | files |
//! | 1 | [`dag`] | fingerprints and the scheduler over abstract nodes | Arrow, burn, files |
//! | 1 | [`model`] | what a model is: configuration, checkpoint, tokenizer, chat template | Arrow, the graph, forward passes |
//! | 0 | `memory` | how much this process may take | who needs it |
//! | 0 | `nearest` | the word that was meant | where words come from |
//! | 0 | [`disk`] | every change that a run makes on the disk, and what it opens again | what files mean |
//! | 0 | [`contained`] | libraries that panic, made to return errors | what they do |
//! | 0 | [`token_lists`] | token ids of many rows in one shared buffer | tables, tensors |
//!
//! # Invariants
//!
//! - Same fingerprint, same bytes: randomness comes from (seed, iteration, prompt_id, response_index), never from the order of calls; on the CPU
//!   nothing depends on batches, threads or vector widths, on a GPU no response depends on others if the model's sizes are multiples of 16, and what burn
//!   computes is always made in the same batches; queries run in one partition.
//! - A reference's logprob that is looked up is the one that would be computed, to the last bit (on the CPU): it depends on
//!   the weights and the token ids, never on its batch.
//! - What is committed is never computed again and never half-written: parts are renamed into place before a manifest names them.
//! - Response token ids are stored and never tokenized again; masks come from lengths, never from token ids.
//! - What comes from outside is refused by what it says, before memory is taken for it: no file makes the library panic.
//! - The library never prints; [`cli`] does.

pub mod catch_panic;
pub mod cli;
pub mod compute;
pub mod dag;
mod did_you_mean;
pub mod disk;
pub mod generation;
pub mod import;
mod memory;
pub mod model;
pub mod operators;
pub mod pipeline;
pub mod remote;
pub mod report;
pub mod run;
pub mod sql;
pub mod store;
pub mod tables;
pub mod token_lists;
pub mod tracking;
pub mod training;
