//! Sequence logprobs. Knows nothing of losses and optimizers.

use burn::module::Module;

use crate::compute::{CausalLm, Examples, backend_for};

use super::{Responses, TrainingError, check_micro_batch};

/// The logprob of each chosen row's response given its prompt: the sum over response tokens, nats,
/// at temperature 1, in the precision of the model.
///
/// At most `micro_batch` rows go through the model together. On the CPU, rows of one prompt share
/// its computation, and a row has the same bits whatever it is computed beside; elsewhere rows of
/// similar length are padded to the longest, and the same rows and the same `micro_batch` give the
/// same bits.
///
/// # Errors
/// When a row does not exist or `micro_batch` is 0.
pub fn response_logprobs(model: &CausalLm, responses: &Responses, rows: &[usize], micro_batch: usize) -> Result<Vec<f64>, TrainingError> {
    check_micro_batch(micro_batch)?;
    let model = model.valid();
    let examples = Examples::alone(responses.sequences(), rows, micro_batch);
    Ok(backend_for(&model.device()).logprobs(&model, examples, responses.prompt_token_counts())?)
}
