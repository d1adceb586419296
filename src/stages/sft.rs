//! sft: a policy that imitates demonstrations, from a checkpoint or from random weights.

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::adapters::Trainee;
use super::training_loop::{Plan, rule, schedule, train};
use super::{Context, Prompt, StageError, Summary, budget};
use crate::model::{Checkpoint, ModelError};
use crate::pipeline::spec::non_finite::NonFinite;
use crate::pipeline::spec::training::{Initialize, Sft};
use crate::token_lists::TokenLists;
use crate::training::{Responses, Settings};

/// Demonstrations in one backward pass, unless the node's resources say otherwise.
const MICRO_BATCH_SIZE: usize = 16;

/// Trains on the next-token loss of the responses' tokens, an end-of-sequence token included.
pub(super) fn run(context: &Context, settings: &Sft) -> Result<Summary, StageError> {
    let checkpoint = match settings.initialize {
        Initialize::Checkpoint => context.checkpoint("from")?,
        Initialize::Random => Checkpoint::open_blank(&context.model("from")?)?.with_date(context.task.date()),
    };
    let demonstrations = Demonstrations::read(context, settings, &checkpoint)?;
    let device = context.device()?;
    let longest = demonstrations.token_ids.lengths().max().unwrap_or(0);
    let responses = Responses::new(demonstrations.token_ids, demonstrations.prompt_token_counts)?;
    let plan = Plan {
        examples: demonstrations.ids.iter().map(String::as_str).collect(),
        epochs: settings.epochs,
        batch_size: settings.batch_size as usize,
    };
    let training = Settings {
        rule: rule(&settings.optimizer),
        schedule: schedule(settings.learning_rate, settings.schedule, settings.warmup_ratio),
        gradient_limit: settings.max_gradient_norm,
        micro_batch: budget::micro_batch(context, &checkpoint, longest, MICRO_BATCH_SIZE)?,
        gradient_checkpointing: context.task.resources.gradient_checkpointing,
        skip_non_finite: settings.non_finite == NonFinite::Skip,
    };
    budget::room_for_training(context, &checkpoint, plan.checkpoints(context))?;
    let trainee = Trainee::new(context, &checkpoint);
    let seed = context.seed().number("initialize", "", 0);
    let initial = || match settings.initialize {
        Initialize::Checkpoint => trainee.load(&device),
        Initialize::Random => Ok(checkpoint.init(&device, seed)),
    };
    train(
        context,
        initial,
        training,
        &plan,
        |trainer, rows| trainer.supervised_step(&responses, rows),
        |folder, policy| trainee.save(folder, policy),
    )
}

/// Prompts with the responses to imitate, tokenized, in the order of their ids.
struct Demonstrations {
    ids: Vec<String>,
    token_ids: TokenLists,
    prompt_token_counts: Vec<usize>,
}

impl Demonstrations {
    fn read(context: &Context, settings: &Sft, checkpoint: &Checkpoint) -> Result<Self, StageError> {
        let prompts = context.prompts("demonstrations")?;
        let mut answers = Vec::with_capacity(prompts.len());
        for batch in &prompts.batches {
            let column = batch.column_by_name(&settings.response).ok_or_else(|| missing_response(settings, batch))?;
            let column = cast(column, &DataType::Utf8)?;
            answers.extend(column.as_string::<i32>().iter().map(|text| text.map(str::to_string)));
        }
        let mut rows = Vec::with_capacity(prompts.len());
        for (row, (Prompt { id, asked }, answer)) in prompts.iter().zip(answers).enumerate() {
            let at = |problem: String| StageError::Input(format!("demonstrations, row {row} ({id}): {problem}"));
            let answer = answer.ok_or_else(|| at(format!("expected a {}, found null", settings.response)))?;
            let encoded = checkpoint.encode_pair(asked, &answer).map_err(|error| at(error.to_string()))?;
            let (tokens, prompt_count) = (encoded.token_ids, encoded.prompt_token_count);
            let limits = [
                (prompt_count, settings.max_prompt_tokens, "prompt"),
                (tokens.len() - prompt_count, settings.max_response_tokens, "response"),
            ];
            if let Some((found, limit, what)) = limits.into_iter().find(|(found, limit, _)| *found > *limit as usize) {
                return Err(at(format!("expected a {what} of at most {limit} tokens, found {found}")));
            }
            if tokens.len() > checkpoint.config.max_position_embeddings {
                return Err(at(format!("expected at most {} tokens, found {}", checkpoint.config.max_position_embeddings, tokens.len())));
            }
            rows.push((id.clone(), tokens, prompt_count));
        }
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        let lists: Vec<&[i32]> = rows.iter().map(|(_, tokens, _)| tokens.as_slice()).collect();
        let token_ids = TokenLists::from_rows(&lists).map_err(ModelError::from)?;
        let (ids, prompt_token_counts) = rows.into_iter().map(|(id, _, count)| (id, count)).unzip();
        Ok(Self { ids, token_ids, prompt_token_counts })
    }
}

fn missing_response(settings: &Sft, batch: &arrow::array::RecordBatch) -> StageError {
    let found = batch.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(", ");
    StageError::Input(format!("demonstrations: expected a column {}, found {found}; name it with `response:`", settings.response))
}
