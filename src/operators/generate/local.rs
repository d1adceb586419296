//! generate by the policy's own weights, on this machine's device or on a cluster, many responses
//! at a time.
//!
//! Knows the policy's weights; no server.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int32Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;

use super::super::support::ignored;
use super::super::support::memory_budget;
use super::super::support::model_work::{Found, Job, Samples, TaskModel, Work};
use super::super::support::parts::{self, Parts};
use super::super::support::rows::{rows_of, signed};
use super::super::support::tensors;
use super::super::{Context, OperatorError, Prompt};
use super::{prompt_ids, response_indices, response_text, response_tokens, without_cut};
use crate::compute::Precision;
use crate::generation::{FinishReason, Generated, Penalties, Sampling};
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
    let writer = context.writer(Some(TableKind::Responses), prompts.len(), PROMPTS_PER_PART * parts_factor(context)?)?;
    let missing = writer.missing();
    let done_before = prompts.len() - missing.iter().map(|part| writer.rows_of(*part).len()).sum::<usize>();
    context.progress.started(&context.task.label(), "prompts", done_before as u64, prompts.len() as u64);
    if missing.is_empty() {
        return Ok((writer, 0));
    }
    // Ids and text, packed: some 4 bytes a token, if every response has the greatest length.
    let responses = (prompts.len() - done_before) as u64 * u64::from(settings.responses_per_prompt.count());
    memory_budget::room_for_table(context, responses.saturating_mul(4 * u64::from(settings.max_new_tokens)))?;
    let mut model = TaskModel::of_slot(Slot::Policy);
    let checkpoint = model.checkpoint(context)?;
    ignored::warn(context, &checkpoint, prompts.iter().map(|prompt| (&prompt.content, None)));
    let policy_fingerprint = context.fingerprint_of(Slot::Policy)?.to_string();
    let sampling = sampling(settings, &checkpoint);
    let encoded = BTreeMap::new();
    let mut sampled = SampledParts {
        context,
        settings,
        prompts,
        checkpoint,
        sampling,
        policy_fingerprint,
        writer,
        encoded,
        done: done_before,
        tokens: 0,
    };
    parts::compute(context, &mut [model], missing, &mut sampled)?;
    Ok((sampled.writer, sampled.tokens))
}

/// The factor of the part size.
fn parts_factor(context: &Context) -> Result<usize, OperatorError> {
    Ok(if context.on_cpu()? && context.precision() == Precision::F32 { 1 } else { LARGER_PARTS })
}

fn sampling(settings: &Generate, checkpoint: &Checkpoint) -> Sampling {
    Sampling {
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
    }
}

/// The ids of a prompt, or the reason for no answer.
type Encoded = Result<Vec<i32>, String>;

/// The parts of the responses.
struct SampledParts<'a, 'w, 'c> {
    context: &'a Context<'c>,
    settings: &'a Generate,
    prompts: &'a [Prompt],
    checkpoint: Arc<Checkpoint>,
    sampling: Sampling,
    policy_fingerprint: String,
    writer: TableWriter<'w>,
    /// The prompts of the parts in work.
    encoded: BTreeMap<usize, Vec<Encoded>>,
    done: usize,
    tokens: u64,
}

impl Parts for SampledParts<'_, '_, '_> {
    fn name(&self, part: usize) -> String {
        self.writer.name_of(part)
    }

    fn work(&mut self, part: usize) -> Result<Vec<Work>, OperatorError> {
        let prompts = rows_of(self.prompts, self.writer.rows_of(part), PLACE)?;
        let encoded: Vec<Encoded> = prompts.iter().map(|prompt| prompt_ids(&self.checkpoint, prompt, self.settings)).collect();
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
        let samples = Samples {
            prompts: TokenLists::from_rows(&rows)?,
            seeds,
            sampling: self.sampling.clone(),
            stop: self.settings.stop.clone(),
            stop_after_tokens: self.settings.min_new_tokens as usize,
            batch_size: self.context.task.resources.batch_size.map(|size| size as usize),
        };
        self.encoded.insert(part, encoded);
        let is_empty = samples.seeds.is_empty();
        Ok(if is_empty { Vec::new() } else { vec![Work { model: 0, of: None, job: Job::Samples(samples) }] })
    }

    fn take(&mut self, part: usize, found: Vec<Found>) -> Result<(), OperatorError> {
        let prompts = rows_of(self.prompts, self.writer.rows_of(part), PLACE)?;
        let encoded = self.encoded.remove(&part).unwrap_or_default();
        let generated = found.into_iter().next().map(Found::samples).transpose()?;
        let batch = self.table(prompts, &encoded, generated).map_err(|error| error.of(&self.writer.name_of(part)))?;
        self.tokens += response_tokens(&batch)?;
        self.writer.commit(part, &batch)?;
        self.done += prompts.len();
        self.context.progress.advanced(&self.context.task.label(), self.done as u64, self.tokens);
        Ok(())
    }

    fn so_far(&self) -> (u64, u64) {
        (self.done as u64, self.tokens)
    }
}

impl SampledParts<'_, '_, '_> {
    /// The responses table of these prompts: the generated responses, and error rows for a prompt
    /// without ids.
    fn table(&self, prompts: &[Prompt], encoded: &[Encoded], generated: Option<Generated>) -> Result<RecordBatch, OperatorError> {
        let indices = response_indices(self.settings);
        let per_prompt = indices.len();
        let rows = prompts.len() * per_prompt;
        let (token_ids, mut sampled) = match generated {
            Some(generated) => {
                let (ids, lengths) = generated.sequences.into_parts();
                let details = generated.prompt_token_counts.into_iter().zip(generated.finish_reasons).zip(generated.logprobs);
                let details = details.zip(generated.cuts);
                (Some(ids), lengths.into_iter().zip(details).collect::<Vec<_>>().into_iter())
            }
            None => (None, Vec::new().into_iter()),
        };
        let mut lengths = Vec::with_capacity(rows);
        let mut prompt_counts = Vec::with_capacity(rows);
        let mut logprobs = Vec::with_capacity(rows);
        let mut reasons = Vec::with_capacity(rows);
        let mut errors = Vec::with_capacity(rows);
        let mut cuts = Vec::with_capacity(rows);
        for encoded in encoded.iter().flat_map(|encoded| std::iter::repeat_n(encoded, per_prompt)) {
            match encoded {
                // Generation answers every encoded prompt, in order.
                Ok(_) => {
                    let Some((length, (((prompt_count, reason), logprob), cut))) = sampled.next() else {
                        return Err(OperatorError::internal(PLACE, "fewer sampled responses than were asked for"));
                    };
                    cuts.push(cut);
                    lengths.push(length);
                    prompt_counts.push(prompt_count);
                    logprobs.push(Some(logprob));
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
