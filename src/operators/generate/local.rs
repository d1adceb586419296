//! generate by the policy's own weights, on this machine's device or on a cluster, many responses
//! at a time.
//!
//! Knows the policy's weights; no server.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int32Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;

use super::super::support::advance::Advance;
use super::super::support::ignored;
use super::super::support::memory_budget;
use super::super::support::model_work::{Found, Job, Samples, Work};
use super::super::support::parted_task::PartedTask;
use super::super::support::parts;
use super::super::support::replicas::{self, Part};
use super::super::support::rows::{rows_of, signed};
use super::super::support::task_model::TaskModel;
use super::super::support::tensors;
use super::super::{Context, OperatorError, Prompt};
use super::{prompt_ids, response_indices, response_text, response_tokens, without_cut};
use crate::compute::Precision;
use crate::generation::{FinishReason, Penalties, Sampling};
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
        let model = TaskModel::from_slot(Slot::Policy);
        let checkpoint = model.checkpoint(context)?;
        ignored::warn(context, &checkpoint, prompts.iter().map(|prompt| (&prompt.content, None)));
        let sampler = PolicySampler::new(context, settings, &checkpoint)?;
        let prepare = |part: &Part| sampler.work(rows_of(prompts, part.rows.clone(), PLACE)?);
        let take = |part: &Part, encoded: Vec<Encoded>, found: Vec<Found>| {
            let prompts = rows_of(prompts, part.rows.clone(), PLACE)?;
            let batch = sampler.table(prompts, &encoded, found).map_err(|error| error.of(&part.name))?;
            writer.commit(part.number, &batch)?;
            response_tokens(&batch)
        };
        let task = PartedTask { context, models: &[model], advance: &advance };
        parts::each_part(task, missing, replicas::all, prepare, take)?;
    }
    Ok((writer, advance.tokens()))
}

/// The factor of the part size.
fn parts_factor(context: &Context) -> Result<usize, OperatorError> {
    Ok(if context.on_cpu()? && context.precision() == Precision::F32 { 1 } else { LARGER_PARTS })
}

/// The ids of a prompt, or the reason for no answer.
type Encoded = Result<Vec<i32>, String>;

/// A policy with its sampling settings: from prompts to the work of its model, and from the results
/// to a table.
struct PolicySampler<'a> {
    context: &'a Context<'a>,
    settings: &'a Generate,
    checkpoint: &'a Checkpoint,
    sampling: Sampling,
    policy_fingerprint: String,
}

impl<'a> PolicySampler<'a> {
    fn new(context: &'a Context, settings: &'a Generate, checkpoint: &'a Checkpoint) -> Result<Self, OperatorError> {
        let sampling = Sampling {
            temperature: settings.temperature,
            top_p: settings.top_p,
            top_k: settings.top_k.map_or(0, |k| k as usize),
            min_p: settings.min_p,
            penalties: Penalties { repetition: settings.repetition_penalty, presence: settings.presence_penalty },
            min_new_tokens: settings.min_new_tokens as usize,
            max_new_tokens: settings.max_new_tokens as usize,
            eos: checkpoint.generation.eos_token_ids.clone(),
            vocabulary_size: checkpoint.tokenizer.vocabulary_size(),
            max_total_tokens: checkpoint.config.longest_sequence().0,
        };
        let policy_fingerprint = context.fingerprint_of(Slot::Policy)?.to_string();
        Ok(Self { context, settings, checkpoint, sampling, policy_fingerprint })
    }

    /// The work of the model for these prompts, and their ids.
    fn work(&self, prompts: &[Prompt]) -> Result<(Vec<Work>, Vec<Encoded>), OperatorError> {
        let encoded: Vec<Encoded> = prompts.iter().map(|prompt| prompt_ids(self.checkpoint, prompt, self.settings)).collect();
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
        if seeds.is_empty() {
            return Ok((Vec::new(), encoded));
        }
        let samples = Samples {
            prompts: TokenLists::from_rows(&rows)?,
            seeds,
            sampling: self.sampling.clone(),
            stop: self.settings.stop.clone(),
            stop_after_tokens: self.settings.min_new_tokens as usize,
            batch_size: self.context.task.resources.batch_size.map(|size| size as usize),
        };
        Ok((vec![Work { model: 0, of: None, job: Job::Samples(samples) }], encoded))
    }

    /// The responses table of these prompts: the sampled responses, and error rows for a prompt
    /// without ids.
    fn table(&self, prompts: &[Prompt], encoded: &[Encoded], found: Vec<Found>) -> Result<RecordBatch, OperatorError> {
        let generated = found.into_iter().next().map(Found::samples).transpose()?;
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
