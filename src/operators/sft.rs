//! sft: a policy trained to imitate demonstrations, from a checkpoint or from random weights.
//!
//! The loop is in [`super::support::training_job`], the step in `training`.

use arrow::array::{Array, AsArray, RecordBatch};

use super::support::ignored;
use super::support::malformed_rows::MalformedRows;
use super::support::trainable_model::TrainableModel;
use super::support::training_job::{Examples, TrainingJob};
use super::support::turns::turns;
use super::{Context, OperatorError, Prompt, Summary};
use crate::import::conversations::answer_at;
use crate::import::dataset_format::IS_TEXT;
use crate::import::texts::text_column;
use crate::model::{Answer, Checkpoint, EncodedPair, Message, PromptContent};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::sft::{Initialize, Sft};
use crate::token_lists::TokenLists;
use crate::training::Responses;

/// Demonstrations in one backward pass, unless the node's resources set another number.
const MICRO_BATCH_SIZE: usize = 16;

/// Trains on the next-token loss of the responses' tokens, an end-of-sequence token included.
pub(super) fn run(context: &Context, settings: &Sft) -> Result<Summary, OperatorError> {
    let checkpoint = match settings.initialize {
        Initialize::Checkpoint => context.checkpoint(Slot::From)?,
        Initialize::Random => Checkpoint::open_blank(&context.model(Slot::From)?)?.with_template_settings(context.task.template_settings()),
    };
    let demonstrations = Demonstrations::read(context, settings, &checkpoint)?;
    let device = context.device()?;
    let longest = demonstrations.token_ids.lengths().max().unwrap_or(0);
    let responses = Responses::new(demonstrations.token_ids, demonstrations.prompt_token_counts)?;
    let examples = Examples {
        ids: demonstrations.ids.iter().map(String::as_str).collect(),
        longest,
        micro_batch: MICRO_BATCH_SIZE,
        left_out: demonstrations.left_out,
    };
    let job = TrainingJob::new(context, &checkpoint, examples, settings.hyperparameters())?;
    let model = TrainableModel::new(context, &checkpoint);
    let seed = context.seed().number("initialize", "", 0);
    job.run(
        || {
            let model = match settings.initialize {
                Initialize::Checkpoint => model.load(&device)?,
                Initialize::Random => checkpoint.init(&device, seed),
            };
            Ok(model.in_precision(context.precision()))
        },
        |trainer, rows| Ok(trainer.supervised_step(&responses, rows)?),
        |folder, policy| model.save(folder, policy),
    )
}

/// The speaker of a demonstration that is one text without a prompt.
const WHOLE_TEXT: &str = "text";

/// Prompts with the responses to imitate, tokenized, in the order of their ids.
struct Demonstrations {
    ids: Vec<String>,
    token_ids: TokenLists,
    prompt_token_counts: Vec<usize>,
    /// Demonstrations that the model cannot read.
    left_out: usize,
}

impl Demonstrations {
    fn read(context: &Context, settings: &Sft, checkpoint: &Checkpoint) -> Result<Self, OperatorError> {
        let prompts = context.prompts(Slot::Demonstrations)?;
        let mut answers = Vec::with_capacity(prompts.len());
        for batch in &prompts.batches {
            answers.extend(self::answers(settings, batch, answers.len())?);
        }
        let sides = prompts.iter().zip(&answers).map(|(prompt, answer)| (&prompt.content, answer.as_ref().map(Answer::Message)));
        ignored::warn(context, checkpoint, sides);
        let mut untrained = 0;
        let mut malformed = MalformedRows::new(settings.malformed);
        let mut rows = Vec::with_capacity(prompts.len());
        for (row, (Prompt { id, content }, answer)) in prompts.iter().zip(answers).enumerate() {
            match encode(settings, checkpoint, content, answer) {
                Ok(turns) => {
                    untrained += usize::from(turns.is_empty());
                    for (turn, encoded) in turns.into_iter().enumerate() {
                        let id = if turn == 0 { id.clone() } else { format!("{id}, turn {}", turn + 1) };
                        rows.push((id, encoded.token_ids, encoded.prompt_token_count));
                    }
                }
                Err(problem) => malformed.add(&problem, || format!("demonstrations, row {row} ({id})"))?,
            }
        }
        malformed.warn(context, prompts.len());
        if untrained > 0 {
            let message =
                format!("{untrained} of {} demonstrations are left out: weight or train of 0 leaves nothing to train on", prompts.len());
            context.progress.warned(&context.task.label(), &message);
        }
        if rows.is_empty() {
            let why = malformed.text(prompts.len()).unwrap_or_else(|| "weight or train of 0 in all".to_string());
            return Err(OperatorError::Input(format!("demonstrations: expected a message to train on, found {why}")));
        }
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        let lists: Vec<&[i32]> = rows.iter().map(|(_, tokens, _)| tokens.as_slice()).collect();
        let token_ids = TokenLists::from_rows(&lists)?;
        let (ids, prompt_token_counts) = rows.into_iter().map(|(id, _, count)| (id, count)).unzip();
        Ok(Self { ids, token_ids, prompt_token_counts, left_out: malformed.count() })
    }
}

/// The answers of a batch of demonstrations, `None` for null; its first row is row `before`.
///
/// # Errors
/// There is no column with answers, or an answer is no message.
pub(in crate::operators) fn answers(settings: &Sft, batch: &RecordBatch, before: usize) -> Result<Vec<Option<Message>>, OperatorError> {
    let column = text_column(batch, &settings.response)
        .map_err(|error| OperatorError::Input(format!("demonstrations, row {}: {}", before + error.row, error.problem)))?;
    let column = column.ok_or_else(|| missing_response(settings, batch))?;
    let is_text = batch.column_by_name(IS_TEXT).and_then(|marks| marks.as_boolean_opt());
    let answer = |(row, text): (usize, Option<&str>)| {
        let at = |problem: String| OperatorError::Input(format!("demonstrations, row {}: {problem}", before + row));
        let Some(text) = text else { return Ok(None) };
        if is_text.is_some_and(|marks| marks.is_valid(row) && marks.value(row)) {
            return Ok(Some(Message::new(WHOLE_TEXT, text)));
        }
        let whole = answer_at(&settings.response, text, batch, row).map_err(at)?;
        Ok(Some(whole.unwrap_or_else(|| Message::assistant(text))))
    };
    column.iter().enumerate().map(answer).collect()
}

/// The turns of a demonstration that are trained on, in the model's tokens, or the reason for it to
/// be unusable.
pub(in crate::operators) fn encode(
    settings: &Sft,
    checkpoint: &Checkpoint,
    content: &PromptContent,
    answer: Option<Message>,
) -> Result<Vec<EncodedPair>, String> {
    let answer = answer.ok_or_else(|| format!("expected a {}, found null", settings.response))?;
    let mut encoded = Vec::new();
    for (asked, answer) in turns(settings.train_on, content.clone(), answer)? {
        let turn = match &asked {
            PromptContent::Text(_) if answer.role == WHOLE_TEXT => checkpoint.encode_text(&answer.content),
            asked => checkpoint.encode_pair(asked, &answer),
        };
        let turn = turn.map_err(|error| error.to_string())?;
        let (all, prompt_count) = (turn.token_ids.len(), turn.prompt_token_count);
        let limits = [(prompt_count, settings.max_prompt_tokens, "prompt"), (all - prompt_count, settings.max_response_tokens, "response")];
        if let Some((found, limit, what)) = limits.into_iter().find(|(found, limit, _)| *found > *limit as usize) {
            return Err(format!("expected a {what} of at most {limit} tokens, found {found}"));
        }
        let (longest, reason) = checkpoint.config.longest_sequence();
        if all > longest {
            let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            return Err(format!("expected at most {longest} tokens{reason}, found {all}"));
        }
        encoded.push(turn);
    }
    Ok(encoded)
}

fn missing_response(settings: &Sft, batch: &RecordBatch) -> OperatorError {
    let found = batch.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(", ");
    OperatorError::Input(format!("demonstrations: expected a column {}, found {found}; name it with `response:`", settings.response))
}
