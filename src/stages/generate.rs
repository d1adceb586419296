//! generate: new responses of a policy, part by part.
//!
//! A part is a fixed slice of the prompts in the order of their ids; each response's randomness comes from (seed, iteration,
//! prompt_id, response_index). So a part is the same whenever and however often it is made.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;

use super::budget::{self, Budget};
use super::{Context, Prompt, StageError, Summary};
use super::{generate_remote, tensors};
use crate::generation::{FinishReason, Generated, Generator, Sampling};
use crate::model::{Checkpoint, ModelError, Tokenizer};
use crate::pipeline::spec::sampling::Generate;
use crate::store::TableWriter;
use crate::tables::{self, TableKind, responses, selection};
use crate::token_lists::TokenLists;

/// Prompts in one part, unless the node's resources say otherwise: seconds of work on a CPU for a small model.
const PROMPTS_PER_PART: usize = 64;

/// Sequences decoded together, unless the node's resources say otherwise.
const BATCH_SIZE: usize = 64;

/// How many times as many of both on a GPU, where a step takes hardly longer for it.
const ON_A_GPU: usize = 4;

/// Samples responses for the selected prompts, or for all where there is no selection.
pub(super) fn run(context: &Context, settings: &Generate) -> Result<Summary, StageError> {
    let prompts = selected(context)?;
    if let Some(engine) = &settings.engine {
        let (writer, tokens) = generate_remote::run(context, settings, engine, &prompts)?;
        return finish(context, writer, tokens);
    }
    let mut writer = context.writer(Some(TableKind::Responses), prompts.len(), PROMPTS_PER_PART * times(context)?)?;
    let label = context.task.label();
    let missing = writer.missing();
    let done_before = prompts.len() - missing.iter().map(|part| writer.rows_of(*part).len()).sum::<usize>();
    context.progress.started(&label, "prompts", done_before as u64, prompts.len() as u64);
    let mut tokens = 0;
    if !missing.is_empty() {
        // Ids and text, packed: some 4 bytes a token, if every response is as long as it may be.
        let responses = (prompts.len() - done_before) as u64 * u64::from(settings.responses_per_prompt);
        budget::room_for_table(context, responses.saturating_mul(4 * u64::from(settings.max_new_tokens)))?;
        let sampler = Sampler::open(context, settings)?;
        let mut done = done_before;
        for part in missing {
            context.check_stopped()?;
            let slice = &prompts[writer.rows_of(part)];
            let batch = sampler.responses(slice, &mut |new| context.progress.advanced(&label, done as u64, tokens + new as u64));
            let batch = batch.map_err(|error| error.of(&writer.name_of(part)))?;
            tokens += response_tokens(&batch)?;
            writer.commit(part, &batch)?;
            done += slice.len();
            context.progress.advanced(&label, done as u64, tokens);
        }
    }
    finish(context, writer, tokens)
}

/// Says that all responses are there; `tokens` is how many of their tokens this call generated.
fn finish(context: &Context, writer: TableWriter, tokens: u64) -> Result<Summary, StageError> {
    let counts = counts(&writer)?;
    if let Some((prompt_id, error)) = first_failure(&writer)? {
        let (responses, failed) = (counts[0].1, counts[3].1);
        context
            .progress
            .warned(&context.task.label(), &format!("{failed} of {responses} responses failed, the first: prompt {prompt_id}: {error}"));
    }
    let text =
        format!("{} responses, {} tokens, {} cut by the length limit, {} failed", counts[0].1, counts[1].1, counts[2].1, counts[3].1);
    writer.finish(counts.into_iter().map(|(name, count)| (name.to_string(), count)).collect())?;
    Ok(Summary { text, tokens })
}

/// The prompts to answer, in the order of their ids.
fn selected(context: &Context) -> Result<Vec<Prompt>, StageError> {
    let mut prompts = context.prompts("prompts")?.into_sorted();
    if context.has("selection") {
        let rows = context.rows("selection", selection::rows)?;
        let chosen: std::collections::HashSet<&str> = rows.iter().filter(|row| row.selected).map(|row| row.prompt_id.as_str()).collect();
        prompts.retain(|prompt| chosen.contains(prompt.id.as_str()));
    }
    Ok(prompts)
}

/// Totals over all committed parts, so that they do not depend on how often the node was interrupted.
fn counts(writer: &TableWriter) -> Result<[(&'static str, i64); 4], StageError> {
    let (mut responses, mut tokens, mut truncated, mut failed) = (0, 0, 0, 0);
    for batch in writer.committed()? {
        responses += batch.num_rows() as i64;
        tokens += response_tokens(&batch)? as i64;
        let reasons: &StringArray = tables::column(&batch, "finish_reason")?;
        truncated += reasons.iter().filter(|reason| *reason == Some("length")).count() as i64;
        failed += reasons.iter().filter(|reason| *reason == Some("error")).count() as i64;
    }
    Ok([("responses", responses), ("tokens", tokens), ("truncated", truncated), ("failed", failed)])
}

/// The first response that failed: its prompt, and why.
fn first_failure(writer: &TableWriter) -> Result<Option<(String, String)>, StageError> {
    for batch in writer.committed()? {
        let (ids, errors): (&StringArray, &StringArray) = (tables::column(&batch, "prompt_id")?, tables::column(&batch, "error")?);
        if let Some((id, Some(error))) = ids.iter().zip(errors).find(|(_, error)| error.is_some()) {
            return Ok(Some((id.unwrap_or_default().to_string(), error.to_string())));
        }
    }
    Ok(None)
}

/// How many times as much is done at once as on the processor.
fn times(context: &Context) -> Result<usize, StageError> {
    Ok(if context.on_processor()? { 1 } else { ON_A_GPU })
}

/// Response tokens in a batch of responses, without the prompts'.
fn response_tokens(batch: &RecordBatch) -> Result<u64, StageError> {
    let ids = responses::token_ids(batch)?;
    let prompt_counts: &Int32Array = tables::column(batch, "prompt_token_count")?;
    let all: i64 = (0..batch.num_rows()).map(|row| i64::from(ids.value_length(row) - prompt_counts.value(row))).sum();
    Ok(u64::try_from(all).unwrap_or(0))
}

/// The prompt's ids, or why it cannot be answered.
pub(super) fn prompt_ids(checkpoint: &Checkpoint, prompt: &Prompt, settings: &Generate) -> Result<Vec<i32>, String> {
    let ids = checkpoint.encode_prompt(&prompt.asked).map_err(|error| error.to_string())?;
    let limit = (settings.max_prompt_tokens as usize).min(checkpoint.config.max_position_embeddings.saturating_sub(1));
    if ids.len() > limit {
        return Err(format!("expected a prompt of at most {limit} tokens, found {}", ids.len()));
    }
    Ok(ids)
}

/// A policy on its device, and how to sample from it.
struct Sampler<'a> {
    context: &'a Context<'a>,
    settings: &'a Generate,
    checkpoint: Checkpoint,
    generator: Generator,
    sampling: Sampling,
    policy_fingerprint: String,
}

impl<'a> Sampler<'a> {
    fn open(context: &'a Context, settings: &'a Generate) -> Result<Self, StageError> {
        let checkpoint = context.checkpoint("policy")?;
        let new_tokens = settings.max_new_tokens as usize;
        let budget = Budget::of(&context.task.resources, context.on_processor()?);
        let cache_bytes = budget.map(|budget| budget::cache_bytes(budget, &checkpoint, new_tokens)).transpose()?;
        let generator = Generator::load(&checkpoint, &context.device()?)?;
        let generator = generator.within(cache_bytes.map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX)));
        let sampling = Sampling {
            temperature: settings.temperature,
            top_p: settings.top_p,
            top_k: settings.top_k.map_or(0, |k| k as usize),
            max_new_tokens: new_tokens,
            eos: checkpoint.generation.eos_token_ids.clone(),
            vocabulary_size: checkpoint.tokenizer.vocabulary_size(),
            max_total_tokens: checkpoint.config.max_position_embeddings,
        };
        let policy_fingerprint = context.fingerprint_of("policy")?.to_string();
        Ok(Self { context, settings, checkpoint, generator, sampling, policy_fingerprint })
    }

    /// All responses to `prompts`, ready to be committed. `observe` hears of tokens as they come.
    fn responses(&self, prompts: &[Prompt], observe: &mut (dyn FnMut(usize) + Send)) -> Result<RecordBatch, StageError> {
        let encoded: Vec<Result<Vec<i32>, String>> =
            prompts.iter().map(|prompt| prompt_ids(&self.checkpoint, prompt, self.settings)).collect();
        let per_prompt = self.settings.responses_per_prompt;
        let stream = self.context.seed();
        let (mut rows, mut seeds) = (Vec::new(), Vec::new());
        for (prompt, ids) in prompts.iter().zip(&encoded) {
            if let Ok(ids) = ids {
                rows.push(ids.as_slice());
                seeds.push((0..per_prompt).map(|index| stream.bytes("generate", &prompt.id, index)).collect::<Vec<_>>());
            }
        }
        let generated = if seeds.is_empty() {
            None
        } else {
            let sequences = TokenLists::from_rows(&rows).map_err(ModelError::from)?;
            let batch_size = self.context.task.resources.batch_size.map_or(BATCH_SIZE * times(self.context)?, |size| size as usize);
            let mut each = |tokens| {
                observe(tokens);
                ControlFlow::Continue(())
            };
            Some(self.generator.generate(&sequences, &seeds, &self.sampling, batch_size, &mut each)?)
        };
        self.table(prompts, &encoded, generated)
    }

    /// The responses table of these prompts: what was generated, and an error row for each response of a prompt that could not be asked.
    fn table(
        &self,
        prompts: &[Prompt],
        encoded: &[Result<Vec<i32>, String>],
        generated: Option<Generated>,
    ) -> Result<RecordBatch, StageError> {
        let per_prompt = self.settings.responses_per_prompt as usize;
        let rows = prompts.len() * per_prompt;
        let (token_ids, mut sampled) = match generated {
            Some(generated) => {
                let (ids, lengths) = generated.sequences.into_parts();
                let details = generated.prompt_token_counts.into_iter().zip(generated.finish_reasons).zip(generated.logprobs);
                (Some(ids), lengths.into_iter().zip(details).collect::<Vec<_>>().into_iter())
            }
            None => (None, Vec::new().into_iter()),
        };
        let (mut lengths, mut prompt_counts, mut logprobs) = (Vec::with_capacity(rows), Vec::with_capacity(rows), Vec::with_capacity(rows));
        let (mut reasons, mut errors) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        for encoded in encoded.iter().flat_map(|encoded| std::iter::repeat_n(encoded, per_prompt)) {
            // Generation answers every prompt that could be encoded, in order, so there is a next one exactly for those.
            let next = if encoded.is_ok() { sampled.next() } else { None };
            let (length, ((prompt_count, reason), logprob)) = next.unwrap_or((0, ((0, FinishReason::Length), 0.0)));
            lengths.push(length);
            prompt_counts.push(i32::try_from(prompt_count).unwrap_or(i32::MAX));
            logprobs.push(encoded.is_ok().then_some(logprob));
            reasons.push(match (encoded, reason) {
                (Err(_), _) => tables::FinishReason::Error.as_str(),
                (Ok(_), FinishReason::Stop) => tables::FinishReason::Stop.as_str(),
                (Ok(_), FinishReason::Length) => tables::FinishReason::Length.as_str(),
            });
            errors.push(encoded.as_ref().err().map(String::as_str));
        }
        let token_ids: ArrayRef = match token_ids {
            Some(ids) => tensors::list_array(ids, lengths.iter().copied())?,
            None => tensors::empty_lists(rows),
        };
        let lists = token_ids.as_list::<i32>().iter().flatten().zip(&prompt_counts);
        let texts = lists.map(|(ids, prompt_count)| {
            let ids = ids.as_primitive::<Int32Type>().values();
            let (prompt, response) = ids.split_at_checked(*prompt_count as usize).unwrap_or((ids, &[]));
            response_text(&self.checkpoint.tokenizer, prompt, response)
        });
        let texts = texts.collect::<Result<Vec<_>, _>>()?;
        let ids: Vec<&str> = prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt.id.as_str(), per_prompt)).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(ids)),
            Arc::new(Int32Array::from(vec![self.context.born(); rows])),
            Arc::new(Int32Array::from_iter_values((0..rows).map(|row| (row % per_prompt.max(1)) as i32))),
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
}

/// A response as text: what stands after the prompt when both are decoded together, special tokens left out.
pub(super) fn response_text(tokenizer: &Tokenizer, prompt: &[i32], response: &[i32]) -> Result<String, StageError> {
    // Decoders treat a text's first token differently (a leading space is dropped), so a response is not decoded alone.
    let (both, before) = (tokenizer.decode(&[prompt, response].concat())?, tokenizer.decode(prompt)?);
    match both.strip_prefix(&before) {
        Some(text) => Ok(text.to_string()),
        None => Ok(tokenizer.decode(response)?),
    }
}
