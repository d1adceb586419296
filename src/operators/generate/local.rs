//! generate here: the policy is sampled on this machine's device, many responses at a time.
//!
//! Knows the policy's weights; no server.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int32Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;
use burn::tensor::Device;

use super::super::support::advance::Advance;
use super::super::support::ignored;
use super::super::support::memory_budget::{self, Budget};
use super::super::support::replicas::{self, Part, Replica};
use super::super::support::rows::{rows_of, signed};
use super::super::support::tensors;
use super::super::{Context, OperatorError, Prompt};
use super::{prompt_ids, response_indices, response_text, response_tokens, without_cut};
use crate::compute::{Precision, backend_for};
use crate::generation::{FinishReason, Generated, Generator, Penalties, Sampling, StopStrings};
use crate::model::Checkpoint;
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::generate::Generate;
use crate::store::TableWriter;
use crate::tables::{self, TableKind, responses};
use crate::token_lists::TokenLists;

/// Prompts in one part, unless the node's resources set another number: seconds of work on a CPU
/// for a small model.
const PROMPTS_PER_PART: usize = 64;

/// The factor of this number where larger batches hardly slow a step: on a GPU, and in bf16. The
/// CPU's units are not asked: all of them make the same parts.
const LARGER_PARTS: usize = 4;

/// This module in internal errors.
const PLACE: &str = "operators::generate::local";

/// Samples the missing responses to `prompts`. Returns the writer with all parts committed, and the
/// number of new tokens.
pub(super) fn run<'a>(context: &'a Context<'_>, settings: &Generate, prompts: &[Prompt]) -> Result<(TableWriter<'a>, u64), OperatorError> {
    let mut writer = context.writer(Some(TableKind::Responses), prompts.len(), PROMPTS_PER_PART * parts_factor(context)?)?;
    let missing = replicas::missing(&writer);
    let done_before = prompts.len() - missing.iter().map(|part| part.rows.len()).sum::<usize>();
    let advance = Advance::start(context, "prompts", done_before, prompts.len());
    if !missing.is_empty() {
        // Ids and text, packed: some 4 bytes a token, if every response has the greatest length.
        let responses = (prompts.len() - done_before) as u64 * u64::from(settings.responses_per_prompt.count());
        memory_budget::room_for_table(context, responses.saturating_mul(4 * u64::from(settings.max_new_tokens)))?;
        let checkpoint = context.checkpoint(Slot::Policy)?;
        ignored::warn(context, &checkpoint, prompts.iter().map(|prompt| (&prompt.content, None)));
        let replicas = replicas::all(context)?;
        let cache_bytes = cache_bytes(context, settings, &checkpoint, replicas.len())?;
        let load = |replica: &Replica| PolicySampler::load(context, settings, &checkpoint, &replica.device, cache_bytes);
        let compute = |sampler: &mut PolicySampler, part: &Part| {
            let prompts = rows_of(prompts, part.rows.clone(), PLACE)?;
            let mut observed = 0;
            let batch = sampler.responses(prompts, &mut |new| observed = advance.observe(observed, new));
            Ok((batch.map_err(|error| error.of(&part.name))?, observed))
        };
        replicas::each_part(context, &replicas, missing, load, compute, |part, (batch, observed)| {
            writer.commit(part.number, &batch)?;
            advance.finish(part.rows.len(), response_tokens(&batch)?, observed);
            Ok(())
        })?;
    }
    Ok((writer, advance.tokens()))
}

/// Bytes for keys and values on each of so many replicas; none without a limit of ours.
fn cache_bytes(context: &Context, settings: &Generate, checkpoint: &Checkpoint, replicas: usize) -> Result<Option<u64>, OperatorError> {
    let budget = Budget::new(&context.task.resources, context.on_cpu()?);
    let new_tokens = settings.max_new_tokens as usize;
    budget.map(|budget| memory_budget::cache_bytes(budget.among(replicas), checkpoint, new_tokens)).transpose()
}

/// The factor of the part size.
fn parts_factor(context: &Context) -> Result<usize, OperatorError> {
    Ok(if context.on_cpu()? && context.precision() == Precision::F32 { 1 } else { LARGER_PARTS })
}

/// A policy on its device, and its sampling settings.
struct PolicySampler<'a> {
    context: &'a Context<'a>,
    settings: &'a Generate,
    checkpoint: &'a Checkpoint,
    device: Device,
    generator: Generator,
    sampling: Sampling,
    policy_fingerprint: String,
}

impl<'a> PolicySampler<'a> {
    fn load(
        context: &'a Context,
        settings: &'a Generate,
        checkpoint: &'a Checkpoint,
        device: &Device,
        cache_bytes: Option<u64>,
    ) -> Result<Self, OperatorError> {
        let new_tokens = settings.max_new_tokens as usize;
        let generator = Generator::load(checkpoint, device, context.precision())?;
        let stop = StopStrings::new(&checkpoint.tokenizer, &settings.stop, settings.min_new_tokens as usize);
        let mut generator = generator.stopping_at(stop);
        if let Some(bytes) = cache_bytes {
            // Above the largest address there is no limit of ours.
            generator = generator.within(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        let sampling = Sampling {
            temperature: settings.temperature,
            top_p: settings.top_p,
            top_k: settings.top_k.map_or(0, |k| k as usize),
            min_p: settings.min_p,
            penalties: Penalties { repetition: settings.repetition_penalty, presence: settings.presence_penalty },
            min_new_tokens: settings.min_new_tokens as usize,
            max_new_tokens: new_tokens,
            eos: checkpoint.generation.eos_token_ids.clone(),
            vocabulary_size: checkpoint.tokenizer.vocabulary_size(),
            max_total_tokens: checkpoint.config.longest_sequence().0,
        };
        let policy_fingerprint = context.fingerprint_of(Slot::Policy)?.to_string();
        Ok(Self { context, settings, checkpoint, device: device.clone(), generator, sampling, policy_fingerprint })
    }

    /// All responses to `prompts`, ready to be committed. `observe` gets the number of tokens so
    /// far, again and again.
    fn responses(&self, prompts: &[Prompt], observe: &mut (dyn FnMut(usize) + Send)) -> Result<RecordBatch, OperatorError> {
        let encoded: Vec<Result<Vec<i32>, String>> =
            prompts.iter().map(|prompt| prompt_ids(self.checkpoint, prompt, self.settings)).collect();
        let indices = response_indices(self.settings);
        let stream = self.context.seed();
        let mut rows = Vec::new();
        let mut seeds = Vec::new();
        for (prompt, ids) in prompts.iter().zip(&encoded) {
            if let Ok(ids) = ids {
                rows.push(ids.as_slice());
                seeds.push(indices.clone().map(|index| stream.bytes("generate", &prompt.id, index)).collect::<Vec<_>>());
            }
        }
        let generated = if seeds.is_empty() {
            None
        } else {
            let sequences = TokenLists::from_rows(&rows)?;
            let batch_size = match self.context.task.resources.batch_size {
                Some(size) => size as usize,
                None => backend_for(&self.device).sequences_at_once(self.context.precision()),
            };
            let mut each = |tokens| {
                observe(tokens);
                ControlFlow::Continue(())
            };
            let work = || self.generator.generate(&sequences, &seeds, &self.sampling, batch_size, &mut each);
            Some(self.context.on_device(work)?)
        };
        self.table(prompts, &encoded, generated)
    }

    /// The responses table of these prompts: the generated responses, and error rows for a prompt
    /// without ids.
    fn table(
        &self,
        prompts: &[Prompt],
        encoded: &[Result<Vec<i32>, String>],
        generated: Option<Generated>,
    ) -> Result<RecordBatch, OperatorError> {
        let indices = response_indices(self.settings);
        let per_prompt = indices.len();
        let rows = prompts.len() * per_prompt;
        let (token_ids, mut sampled) = match generated {
            Some(generated) => {
                let (ids, lengths) = generated.sequences.into_parts();
                let details = generated.prompt_token_counts.into_iter().zip(generated.finish_reasons).zip(generated.logprobs);
                let details = details.zip(generated.token_logprobs).zip(generated.cuts);
                (Some(ids), lengths.into_iter().zip(details).collect::<Vec<_>>().into_iter())
            }
            None => (None, Vec::new().into_iter()),
        };
        let mut lengths = Vec::with_capacity(rows);
        let mut prompt_counts = Vec::with_capacity(rows);
        let mut logprobs = Vec::with_capacity(rows);
        let mut token_logprobs: Vec<Option<Vec<f32>>> = Vec::with_capacity(rows);
        let mut reasons = Vec::with_capacity(rows);
        let mut errors = Vec::with_capacity(rows);
        let mut cuts = Vec::with_capacity(rows);
        for encoded in encoded.iter().flat_map(|encoded| std::iter::repeat_n(encoded, per_prompt)) {
            match encoded {
                // Generation answers every encoded prompt, in order.
                Ok(_) => {
                    let Some((length, ((((prompt_count, reason), logprob), of_tokens), cut))) = sampled.next() else {
                        return Err(OperatorError::internal(PLACE, "fewer sampled responses than were asked for"));
                    };
                    cuts.push(cut);
                    lengths.push(length);
                    prompt_counts.push(prompt_count);
                    logprobs.push(Some(logprob));
                    token_logprobs.push(Some(of_tokens));
                    reasons.push(match reason {
                        FinishReason::Stop => tables::FinishReason::Stop.as_str(),
                        FinishReason::Length => tables::FinishReason::Length.as_str(),
                    });
                    errors.push(None);
                }
                Err(error) => {
                    cuts.push(String::new());
                    lengths.push(0);
                    prompt_counts.push(0);
                    logprobs.push(None);
                    token_logprobs.push(None);
                    reasons.push(tables::FinishReason::Error.as_str());
                    errors.push(Some(error.as_str()));
                }
            }
        }
        if sampled.next().is_some() {
            return Err(OperatorError::internal(PLACE, "more sampled responses than were asked for"));
        }
        let token_ids: ArrayRef = match token_ids {
            Some(ids) => tensors::list_array(ids, lengths.iter().copied())?,
            None => tensors::empty_lists(rows),
        };
        let texts = self.texts(token_ids.as_list(), &prompt_counts, &cuts)?;
        let ids: Vec<&str> = prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt.id.as_str(), per_prompt)).collect();
        let prompt_counts = prompt_counts.into_iter().map(|count| signed(count, PLACE)).collect::<Result<Vec<_>, OperatorError>>()?;
        let response_index = prompts.iter().flat_map(|_| indices.clone().map(|index| signed(index as usize, PLACE)));
        let response_index = response_index.collect::<Result<Vec<_>, OperatorError>>()?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(ids)),
            Arc::new(Int32Array::from(vec![self.context.sampled_iteration()?; rows])),
            Arc::new(Int32Array::from(response_index)),
            token_ids,
            Arc::new(Int32Array::from(prompt_counts)),
            Arc::new(StringArray::from(texts)),
            Arc::new(StringArray::from(reasons)),
            Arc::new(Float64Array::from(logprobs)),
            responses::token_logprobs(&token_logprobs),
            Arc::new(StringArray::from(vec![self.policy_fingerprint.as_str(); rows])),
            Arc::new(StringArray::from(errors)),
        ];
        Ok(RecordBatch::try_new(responses::schema(), columns)?)
    }

    /// The text of each response without its cut; a row of `token_ids` has the prompt's ids before
    /// the response's.
    fn texts(&self, token_ids: &ListArray, prompt_counts: &[usize], cuts: &[String]) -> Result<Vec<String>, OperatorError> {
        let mut texts = Vec::with_capacity(prompt_counts.len());
        for (row, (prompt_count, cut)) in prompt_counts.iter().zip(cuts).enumerate() {
            let ids = token_ids.value(row);
            let ids = ids.as_primitive::<Int32Type>().values();
            let Some((prompt, response)) = ids.split_at_checked(*prompt_count) else {
                let problem = format!("a sequence of {} tokens with a prompt of {prompt_count}", ids.len());
                return Err(OperatorError::internal(PLACE, problem));
            };
            texts.push(without_cut(response_text(&self.checkpoint.tokenizer, prompt, response)?, cut)?);
        }
        Ok(texts)
    }
}
