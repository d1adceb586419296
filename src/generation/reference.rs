//! The reference as an engine: decoding in batches of rows of one length, on any device. Knows
//! nothing of text.
//!
//! Each prompt is computed once, its responses grow together, finished ones leave the batch. Rows
//! of a batch are left-padded: every step adds one column. Batches are a function of the prompts'
//! lengths alone.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::engine::{Engine, Limits};
use super::response::ActiveResponse;
use super::{GenerationError, Observe, Sampling};
use crate::compute::{CausalLm, KvCache, Padding, Placement};
use crate::token_lists::TokenLists;

/// Finished rows leave the batch when they are this share of it: leaving costs a copy of the cache.
const FINISHED_SHARE: usize = 8;

/// A model in burn's operations.
#[derive(Debug)]
pub(super) struct ReferenceEngine(CausalLm);

impl ReferenceEngine {
    pub(super) fn new(model: CausalLm) -> Self {
        Self(model)
    }
}

impl Engine for ReferenceEngine {
    /// A batch takes as much memory as it needs.
    fn cache_bytes(&self, _: Option<usize>) -> usize {
        usize::MAX
    }

    fn sample(
        &self,
        prompts: &TokenLists,
        responses: &mut [ActiveResponse],
        sampling: &Sampling,
        limits: Limits,
        observe: Observe<'_>,
    ) -> Result<(), GenerationError> {
        run(&self.0, prompts, responses, sampling, limits.batch_size, observe)
    }
}

/// Samples all `responses`, `batch_size` at a time, those to prompts of similar length together.
fn run(
    model: &CausalLm,
    prompts: &TokenLists,
    responses: &mut [ActiveResponse],
    sampling: &Sampling,
    batch_size: usize,
    observe: Observe<'_>,
) -> Result<(), GenerationError> {
    let mut waiting: Vec<&mut ActiveResponse> = responses.iter_mut().collect();
    waiting.sort_by_key(|response| prompts.length(response.prompt));
    let mut waiting = waiting.into_iter();
    let mut token_count = 0;
    loop {
        let rows: Vec<&mut ActiveResponse> = waiting.by_ref().take(batch_size.max(1)).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::prefill(model, prompts, rows)?;
        loop {
            token_count += batch.sample(sampling)?;
            if observe(token_count).is_break() {
                return Err(GenerationError::Interrupted);
            }
            batch.drop_finished();
            if batch.rows.is_empty() {
                break;
            }
            batch.step()?;
        }
    }
}

/// Active responses, one a row of the cache.
struct Batch<'a> {
    model: &'a CausalLm,
    device: Device,
    rows: Vec<&'a mut ActiveResponse>,
    /// How many columns of the cache stand before each row's first token.
    padding: Vec<usize>,
    cache: KvCache,
    /// `[rows, vocabulary]`: the logits of the next tokens; of no meaning once these are sampled.
    logits: Vec<f32>,
}

impl<'a> Batch<'a> {
    /// Computes each prompt once. `rows` are ordered by prompt.
    fn prefill(model: &'a CausalLm, prompts: &TokenLists, rows: Vec<&'a mut ActiveResponse>) -> Result<Self, GenerationError> {
        let device = model.device();
        let mut distinct: Vec<usize> = rows.iter().map(|row| row.prompt).collect();
        distinct.dedup();
        let tokens = prompts.to_padded(&distinct, Padding::Left, &device)?;
        let lengths: Vec<usize> = distinct.iter().map(|&prompt| prompts.length(prompt)).collect();
        let mut cache = model.new_cache();
        let columns = tokens.dims()[1];
        let hidden = model.hidden(tokens, &Placement::left_padded(&lengths, &device), Some(&mut cache)).narrow(1, columns - 1, 1);

        // From one row a prompt to one row a response.
        let mut sources = Vec::with_capacity(rows.len());
        let mut source = 0;
        for row in &rows {
            source += usize::from(distinct.get(source) != Some(&row.prompt));
            sources.push(source);
        }
        cache.select_rows(&sources, &device);
        let sources = integers(sources.into_iter().map(|source| source as i32).collect(), &device);
        let logits = host_values(model.logits(hidden.select(0, sources)))?;
        let padding = rows.iter().map(|row| columns - prompts.length(row.prompt)).collect();
        Ok(Self { model, device, rows, padding, cache, logits })
    }

    /// Samples the next token of every unfinished row and returns how many there were.
    fn sample(&mut self, sampling: &Sampling) -> Result<usize, GenerationError> {
        let vocabulary = self.logits.len() / self.rows.len().max(1);
        let mut sampled = 0;
        for (row, logits) in self.rows.iter_mut().zip(self.logits.chunks_exact_mut(vocabulary.max(1))) {
            if row.finished.is_none() {
                row.sample(logits, sampling)?;
                sampled += 1;
            }
        }
        Ok(sampled)
    }

    /// Takes finished rows out, if there are enough of them to be worth a copy of the cache.
    fn drop_finished(&mut self) {
        let unfinished: Vec<usize> = self.rows.iter().enumerate().filter(|(_, row)| row.finished.is_none()).map(|(row, _)| row).collect();
        let finished = self.rows.len() - unfinished.len();
        if finished == 0 || finished * FINISHED_SHARE < self.rows.len() {
            return;
        }
        if !unfinished.is_empty() {
            self.cache.select_rows(&unfinished, &self.device);
        }
        let mut kept = self.rows.iter().map(|row| row.finished.is_none());
        self.padding.retain(|_| kept.next() == Some(true));
        self.rows.retain(|row| row.finished.is_none());
    }

    /// Feeds the sampled tokens back. A finished row in the batch feeds its last token again, to no
    /// effect.
    fn step(&mut self) -> Result<(), GenerationError> {
        let tokens = self.rows.iter().map(|row| row.tokens.last().copied().unwrap_or_default()).collect();
        let tokens = integers(tokens, &self.device).reshape([self.rows.len(), 1]);
        let placement = Placement::next(&self.padding, self.cache.length(), &self.device);
        self.logits = host_values(self.model.logits(self.model.hidden(tokens, &placement, Some(&mut self.cache))))?;
        Ok(())
    }
}

fn integers(values: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), (device, DType::I32))
}

fn host_values(tensor: Tensor<3>) -> Result<Vec<f32>, GenerationError> {
    tensor.try_into_vec_as::<f32>().map_err(|error| GenerationError::Device(error.to_string()))
}
