//! The CPU as a backend: sequences without padding, common prefixes computed once, gradients by
//! kernels of our own.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::decoder::CpuDecoder;
use super::kernels::{self, Memory};
use super::training::{CpuTraining, CpuWeights, PrefixGroup, Shards};
use crate::compute::Precision;
use crate::compute::backend::{Backend, Examples, LogprobLoss, SamplingModel, ScoreLoss};
use crate::compute::gradients::Gradients;
use crate::compute::reference::{CausalLm, RewardModel};
use crate::compute::threads::Threads;
use crate::model::ModelError;

/// The most tokens in a pass without gradients: more would not be faster.
const TOKENS: usize = 4096;

/// Kernels of the CPU. Results are the same bits in whatever pieces examples are computed.
#[derive(Debug, Default)]
pub struct CpuBackend {
    /// From one step to the next.
    memory: Memory,
    shards: Shards,
}

impl CpuBackend {
    /// A backend that computes gradients on several replicas, each with threads of its own. The
    /// bits are those of one.
    pub fn on_replicas(threads: Vec<Threads>) -> Self {
        Self { memory: Memory::default(), shards: Shards::on_replicas(threads) }
    }
}

impl Backend for CpuBackend {
    fn logprobs(&self, model: &CausalLm, examples: Examples<'_>, prompt_token_counts: &[usize]) -> Result<Vec<f64>, ModelError> {
        let model = CpuTraining::from_causal_lm(model, &CpuWeights::from_model(model)?, false, &self.memory)?;
        let mut logprobs = vec![0.0; examples.rows.len()];
        for batch in batches(examples, prompt_token_counts)? {
            let mut groups = Vec::with_capacity(batch.len());
            let mut prompts = Vec::with_capacity(batch.len());
            for positions in &batch {
                let rows: Vec<usize> = positions.iter().map(|&at| examples.rows[at]).collect();
                groups.push(prefix_group(examples, &rows)?);
                prompts.push(prompt_lengths(examples, prompt_token_counts, &rows));
            }
            let found = model.logprobs(&groups, &prompts)?;
            batch.iter().flatten().zip(found.into_iter().flatten()).for_each(|(&at, logprob)| logprobs[at] = logprob);
        }
        Ok(logprobs)
    }

    fn scores(&self, model: &RewardModel, examples: Examples<'_>) -> Result<Vec<f64>, ModelError> {
        let model = CpuTraining::from_reward_model(model, &CpuWeights::from_model(model)?, false, &self.memory)?;
        let mut scores = Vec::with_capacity(examples.count());
        for (_, groups) in micro_batches(examples)? {
            scores.extend(model.scores(&groups)?.into_iter().map(f64::from));
        }
        Ok(scores)
    }

    fn logprob_gradients(
        &self,
        model: &mut CausalLm,
        examples: Examples<'_>,
        prompt_token_counts: &[usize],
        step: u64,
        collisions: bool,
        loss: &mut LogprobLoss<'_>,
    ) -> Result<Gradients, ModelError> {
        let batches = micro_batches(self.sharded(examples))?;
        let weights = CpuWeights::lend(model)?;
        let policy = CpuTraining::from_causal_lm(model, &weights, examples.gradient_checkpointing, &self.memory);
        let loss = Mutex::new(loss);
        let outcome = policy.and_then(|policy| {
            self.shards.gradients(
                &self.memory,
                &batches,
                |(_, groups)| groups.len(),
                |(first, groups), gradients| {
                    let of_group = |at: usize| prompt_lengths(examples, prompt_token_counts, examples.rows_of(first + at));
                    let prompts: Vec<Vec<usize>> = (0..groups.len()).map(of_group).collect();
                    policy.logprobs_and_back(groups, &prompts, Some(step), collisions, gradients, |at, logprobs, collisions| {
                        locked(&loss)(&[first + at], logprobs, collisions)
                    })
                },
            )
        });
        weights.give_back(model);
        Ok(Gradients::Buffers(outcome?.into_parameters()))
    }

    fn score_gradients(&self, model: &mut RewardModel, examples: Examples<'_>, loss: &mut ScoreLoss<'_>) -> Result<Gradients, ModelError> {
        let batches = micro_batches(self.sharded(examples))?;
        let weights = CpuWeights::lend(model)?;
        let of_rewards = CpuTraining::from_reward_model(model, &weights, examples.gradient_checkpointing, &self.memory);
        let loss = Mutex::new(loss);
        let outcome = of_rewards.and_then(|model| {
            self.shards.gradients(
                &self.memory,
                &batches,
                |(_, groups)| groups.len(),
                |(first, groups), gradients| {
                    model.scores_and_back(groups, gradients, |scores| {
                        let scores: Vec<f64> = scores.iter().map(|score| f64::from(*score)).collect();
                        let of_examples = scores.chunks(examples.rows_per_example.max(1)).enumerate();
                        let mut loss = locked(&loss);
                        of_examples.flat_map(|(at, scores)| loss(&[first + at], scores)).collect()
                    })
                },
            )
        });
        weights.give_back(model);
        Ok(Gradients::Buffers(outcome?.into_parameters()))
    }

    fn examples_of_replicas(&self) -> Vec<u64> {
        self.shards.taken()
    }

    fn has_gradient_checkpointing(&self) -> bool {
        true
    }

    fn sequences_at_once(&self, precision: Precision) -> usize {
        // Vectors are at their limit with some dozens of rows, a matrix unit is not.
        if precision == Precision::Bf16 && kernels::has_matrix_unit() { 256 } else { 64 }
    }

    fn sampling_model(&self, model: CausalLm) -> Result<SamplingModel, ModelError> {
        Ok(SamplingModel::Cpu(Box::new(CpuDecoder::from_causal_lm(model)?)))
    }
}

impl CpuBackend {
    /// The same examples in micro-batches that keep every replica at work.
    fn sharded<'a>(&self, examples: Examples<'a>) -> Examples<'a> {
        Examples { micro_batch: self.shards.size(examples.micro_batch, examples.count()), ..examples }
    }
}

/// The loss, for one shard at a time.
fn locked<'l, 'm, L: ?Sized>(loss: &'l Mutex<&'m mut L>) -> MutexGuard<'l, &'m mut L> {
    // A loss that panics ends the step.
    loss.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rows with a common prefix. Their dropout is drawn from the number of the first row.
fn prefix_group<'a>(examples: Examples<'a>, rows: &[usize]) -> Result<PrefixGroup<'a>, ModelError> {
    let ids = rows.iter().map(|&row| examples.tokens.row(row)).collect::<Result<Vec<&[i32]>, _>>()?;
    Ok(PrefixGroup::new(rows.first().map_or(0, |&row| row as u64), &ids))
}

fn prompt_lengths(examples: Examples<'_>, prompt_token_counts: &[usize], rows: &[usize]) -> Vec<usize> {
    rows.iter().map(|&row| prompt_token_counts.get(row).copied().unwrap_or_else(|| examples.tokens.length(row))).collect()
}

/// The number of a micro-batch's first example, and a prefix group an example.
type MicroBatch<'a> = (usize, Vec<PrefixGroup<'a>>);

/// The examples in micro-batches.
fn micro_batches(examples: Examples<'_>) -> Result<Vec<MicroBatch<'_>>, ModelError> {
    let groups = (0..examples.count()).map(|example| prefix_group(examples, examples.rows_of(example)));
    let mut groups = groups.collect::<Result<Vec<_>, _>>()?.into_iter();
    let firsts = (0..examples.count()).step_by(examples.micro_batch.max(1));
    Ok(firsts.map(|first| (first, groups.by_ref().take(examples.micro_batch.max(1)).collect())).collect())
}

/// All rows, as positions in `examples.rows`, in groups of one prompt, and these in batches: of at
/// most `micro_batch` rows and, unless one row has more, [`TOKENS`] tokens.
fn batches(examples: Examples<'_>, prompt_token_counts: &[usize]) -> Result<Vec<Vec<Vec<usize>>>, ModelError> {
    let size = examples.micro_batch.max(1);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut numbers: HashMap<&[i32], usize> = HashMap::new();
    for (at, &row) in examples.rows.iter().enumerate() {
        let ids = examples.tokens.row(row)?;
        let prompt = prompt_token_counts.get(row).copied().unwrap_or(0).min(ids.len());
        let number = *numbers.entry(&ids[..prompt]).or_insert(groups.len());
        if number == groups.len() {
            groups.push(Vec::new());
        }
        groups[number].push(at);
    }
    let mut batches: Vec<Vec<Vec<usize>>> = Vec::new();
    let mut count = size;
    let mut tokens = 0;
    for piece in groups.iter().flat_map(|group| group.chunks(size)) {
        let more = piece.iter().map(|&at| examples.tokens.length(examples.rows[at])).sum::<usize>();
        if count + piece.len() > size || tokens + more > TOKENS {
            batches.push(Vec::new());
            count = 0;
            tokens = 0;
        }
        count += piece.len();
        tokens += more;
        batches.last_mut().into_iter().for_each(|batch| batch.push(piece.to_vec()));
    }
    Ok(batches)
}
