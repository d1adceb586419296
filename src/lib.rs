//! optune: efficient online preference tuning of language models, as a dataflow over Arrow tables.
//!
//! ```text
//!            ┌──────────────────────── iteration t = 1..T ─────────────────────────┐
//! prompts ─▶ selection ─▶ responses ─▶ rewards ─▶ pool ─▶ pairs ─▶ policy[t] ─▶ evaluation
//!            (lowest ρ)   (policy[t-1]) (reward)   ▲      (gap →   (weighted DPO)
//!               ▲                                  │       weight)
//!               └─────────── pool[t-1] ────────────┘  old responses of unselected prompts
//! ```
//!
//! From the command to the bytes:
//!
//! ```text
//! pipeline.yaml ─▶ pipeline (checked graph) ─▶ run (plan, execute) ─▶ operators ─▶ store (parts)
//!                                                                        │
//!                                import, sql, generation, training, remote
//! ```
//!
//! # Modules
//!
//! Every module has a floor. It imports from lower floors only; a test checks this.
//!
//! | floor | module | content | does not know |
//! |---|---|---|---|
//! | 8 | [`cli`] | commands, progress, printing | tensors |
//! | 7 | [`view`] | a local web page over runs, live | burn, the execution of runs, the terminal |
//! | 6 | [`run`] | the plan of a pipeline and its execution in a run folder | the terminal |
//! | 6 | [`report`] | HTML about runs, from their tables | burn, the execution of runs |
//! | 5 | [`operators`] | one file or folder an operator; both Arrow and burn | each other |
//! | 4 | [`import`] | external tables: file formats, dataset formats, limits | burn, operators |
//! | 4 | [`tracking`] | curves of a run for TensorBoard and MLflow | burn, operators |
//! | 4 | [`alarm`] | signs of over-optimization in the tables of a run | burn, operators |
//! | 3 | [`sql`] | sessions over the tables of a run, views, PostgreSQL's protocol | burn, the pipeline |
//! | 3 | [`generation`] | sampling in continuous batches | Arrow, devices, training |
//! | 3 | [`training`] | losses, logprobs, optimizers, the training step | Arrow, devices, generation |
//! | 2 | [`pipeline`] | YAML to a checked graph | Arrow, burn |
//! | 2 | [`store`] | parts, manifests, cache, journal, lock | burn, the pipeline |
//! | 2 | [`compute`] | models on the CPU and on GPUs, and the reference | Arrow, losses, sampling rules |
//! | 2 | [`cluster`] | bytes to executors of a cluster and back, by Ballista | tables, operators, the pipeline |
//! | 2 | [`remote`] | all HTTP: reward servers, generation servers, the hub | Arrow, burn, the pipeline |
//! | 1 | [`tables`] | one file a table: schema, key, row checks | files |
//! | 1 | [`dag`] | fingerprints and the scheduler, over abstract nodes | Arrow, burn, files |
//! | 1 | [`model`] | configuration, families, tokenizer, chat template, checkpoint | Arrow, forward passes |
//! | 0 | [`token_lists`] | token ids of many rows in one shared buffer | tables, tensors |
//! | 0 | [`disk`] | every change of a run on the disk, and every file opened again | the meaning of files |
//! | 0 | [`process`] | child processes of the user's, none of them left behind | their words |
//! | 0 | `memory` | the memory available to this process | its uses |
//! | 0 | `did_you_mean` | the nearest known word | the origin of the words |
//! | 0 | [`statistics`] | means with bootstrap intervals, quantiles | the meaning of the numbers |
//! | 0 | [`win_rates`] | win rates from a judge's verdicts, with intervals | tables, judges |
//! | 0 | [`catch_panic`] | panics of libraries, turned into errors | the libraries' work |
//!
//! # Invariants
//!
//! - Same fingerprint, same bytes. Randomness depends on (seed, iteration, prompt_id,
//!   response_index), never on the order of calls. On the CPU no result depends on batches, threads
//!   or vector widths. On a GPU no response depends on the others if the model's sizes are
//!   multiples of 16. Work in burn is always done in the same batches. Queries run in one
//!   partition.
//! - A memoized reference logprob equals the computed one to the last bit (on the CPU). It depends
//!   on the weights and the token ids, never on its batch.
//! - Committed outputs are never computed again and never half-written. Parts are renamed to their
//!   final names before a manifest lists them.
//! - Response token ids are stored and never tokenized again. Masks come from lengths, never from
//!   token ids.
//! - External files are validated from their headers before memory is allocated for them. No file
//!   makes the library panic.
//! - The library never prints; [`cli`] does.

// In the order of the data flow, from the command down. The groups are the floors.

pub mod cli;

pub mod view;

pub mod report;
pub mod run;

pub mod operators;

pub mod alarm;
pub mod import;
pub mod tracking;

pub mod generation;
pub mod sql;
pub mod training;

pub mod cluster;
pub mod compute;
pub mod pipeline;
pub mod remote;
pub mod store;

pub mod dag;
pub mod model;
pub mod tables;

pub mod catch_panic;
mod did_you_mean;
pub mod disk;
mod memory;
pub mod process;
pub mod statistics;
pub mod token_lists;
pub mod win_rates;
