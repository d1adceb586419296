//! train: the next policy, by weighted preference optimization on the iteration's pairs, here or by
//! a program of the user's.
//!
//! The loop is in [`super::support::training_job`], the loss and the step in `training`.

mod elsewhere;

use super::support::pair_tokens::PairTokens;
use super::support::trainable_model::TrainableModel;
use super::support::training_job::{Examples, TrainingJob};
use super::{Context, OperatorError, Summary};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::loss as spec;
use crate::pipeline::spec::train::Train;
use crate::tables::pairs;
use crate::training::loss::{Loss, Optimism, Wpo};
use crate::training::{Objective, Pair};

/// Pairs in one backward pass, unless the node's resources set another number. Few: each core of
/// the CPU takes one pass.
const MICRO_BATCH_SIZE: usize = 8;

/// This module in internal errors.
const PLACE: &str = "operators::train";

/// Trains from the slot `from` on the slot `pairs`, with the reference logprobs of the pairs filled
/// in.
pub(super) fn run(context: &Context, settings: &Train) -> Result<Summary, OperatorError> {
    let pair_tokens = PairTokens::read(context, settings.malformed)?;
    if pair_tokens.pairs.is_empty() {
        let why = match pair_tokens.left_out_text() {
            None => {
                "no prompt's responses differ in reward; look at the rewards, sample more responses or raise the temperature".to_string()
            }
            Some(reasons) => format!("of the preferences are {reasons}"),
        };
        return Err(OperatorError::Input(format!("expected at least one pair to train on, found none: {why}")));
    }
    if let Some(engine) = &settings.engine {
        return elsewhere::run(context, engine, &pair_tokens);
    }
    let checkpoint = context.checkpoint(Slot::From)?;
    let model = TrainableModel::new(context, &checkpoint);
    let device = context.device()?;
    let examples = Examples {
        ids: pair_tokens.pairs.iter().map(|pair| pair.prompt_id.as_str()).collect(),
        longest: pair_tokens.longest(),
        micro_batch: MICRO_BATCH_SIZE,
        left_out: 0,
    };
    let job = TrainingJob::new(context, &checkpoint, examples, settings.hyperparameters())?;
    let count = pair_tokens.pairs.len();
    let responses = pair_tokens.responses(0..count)?;
    let pairs = pair_tokens.pairs.iter().enumerate().map(|(row, pair)| training_pair(row, count, pair));
    let pairs = pairs.collect::<Result<Vec<_>, OperatorError>>()?;
    let wpo = settings.wpo.map(|spec::Wpo { clip }| Wpo { clip });
    let optimism = settings.optimism.map(|alpha| Optimism { alpha, beta: settings.beta });
    let objective = Objective { loss: loss(settings), wpo, optimism };
    let mut batch = Vec::new();
    job.run(
        || Ok(model.load(&device)?.in_precision(context.precision())),
        |trainer, rows| {
            batch.clear();
            batch.extend(rows.iter().map(|row| pairs[*row]));
            Ok(trainer.preference_step(&responses, &batch, objective)?)
        },
        |folder, policy| model.save(folder, policy),
    )
}

/// Pair `row` of `count`: all chosen responses come first, then all rejected ones.
fn training_pair(row: usize, count: usize, pair: &pairs::Row) -> Result<Pair, OperatorError> {
    let missing = || OperatorError::internal(PLACE, format!("pair of prompt {}: no reference logprob", pair.prompt_id));
    Ok(Pair {
        chosen: row,
        rejected: count + row,
        weight: pair.weight,
        reward_gap: pair.reward_gap,
        reference_logprob_chosen: pair.reference_logprob_chosen.ok_or_else(missing)?,
        reference_logprob_rejected: pair.reference_logprob_rejected.ok_or_else(missing)?,
    })
}

/// The pipeline file's loss in the terms of `training`.
fn loss(settings: &Train) -> Loss {
    let beta = settings.beta;
    match settings.loss {
        spec::Loss::Dpo => Loss::Dpo { beta },
        spec::Loss::Ipo => Loss::Ipo { beta },
        spec::Loss::Hinge => Loss::Hinge { beta },
        spec::Loss::Robust(spec::Robust { label_smoothing }) => Loss::Robust { beta, label_smoothing },
        spec::Loss::Simpo(spec::Simpo { gamma }) => Loss::Simpo { beta, gamma },
        spec::Loss::Rebel => Loss::Rebel { beta },
        spec::Loss::Rpo(spec::Rpo { gap_scale }) => Loss::Rpo { beta, gap_scale },
    }
}
