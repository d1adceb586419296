//! Checks of `train`: what its loss needs, and what a trainer outside of this program has not.

use crate::pipeline::error::Diagnostic;
use crate::pipeline::position::Span;
use crate::pipeline::spec::loss::Loss;
use crate::pipeline::spec::non_finite::NonFinite;
use crate::pipeline::spec::resources::Resources;
use crate::pipeline::spec::train::Train;

/// Checks the settings of a training.
pub(super) fn check_train(train: &Train, resources: &Resources, span: Span) -> Result<(), Diagnostic> {
    check_optimism(train, span)?;
    check_engine(train, resources, span)
}

/// Checks that the loss of a training has a reference where optimism needs one.
fn check_optimism(train: &Train, span: Span) -> Result<(), Diagnostic> {
    if train.optimism.is_some() && matches!(train.loss, Loss::Simpo(_)) {
        let problem =
            "`optimism` compares the policy with its reference, and the loss simpo has none; leave it out, or choose another loss";
        return Err(Diagnostic::at(span, problem));
    }
    Ok(())
}

/// Checks that no setting of this program's own trainer stands beside another trainer.
fn check_engine(train: &Train, resources: &Resources, span: Span) -> Result<(), Diagnostic> {
    if train.engine.is_none() {
        return Ok(());
    }
    let own = [
        (train.lora.is_some(), "lora"),
        (train.non_finite == NonFinite::Skip, "non_finite: skip"),
        (resources.micro_batch_size.is_some(), "resources: micro_batch_size"),
        (resources.gradient_checkpointing, "resources: gradient_checkpointing"),
        (resources.checkpoint_every.is_some(), "resources: checkpoint_every"),
    ];
    match own.iter().find(|(is_set, _)| *is_set) {
        None => Ok(()),
        Some((_, setting)) => Err(Diagnostic::at(
            span,
            format!(
                "`{setting}` is for this program's own trainer, and the command of `engine` trains here; leave it out, \
                 or give it to the command as an argument"
            ),
        )),
    }
}
