//! The tensor backend: models in padded batches, gradients by autodiff. With
//! [`ReferenceOperations`](super::ReferenceOperations) it is the reference.
//!
//! Knows no device; a device's own operations come in as [`TensorOperations`].

use std::cmp::Reverse;

use burn::tensor::{DType, Int, Tensor, TensorData};

use super::named_tensors::{self, NamedTensors};
use super::operations::TensorOperations;
use super::padded::Padding;
use super::reward_model::RewardModel;
use super::token_logprobs::{Predictions, TokenLogprobs};
use super::transformer::CausalLm;
use crate::compute::backend::{Backend, Examples, LogprobLoss, SamplingModel, ScoreLoss};
use crate::compute::gradients::Gradients;
use crate::model::ModelError;

/// Models in padded batches of examples of similar length.
#[derive(Clone, Copy, Debug)]
pub struct TensorBackend {
    operations: &'static dyn TensorOperations,
}

impl TensorBackend {
    /// A backend with these operations.
    pub fn new(operations: &'static dyn TensorOperations) -> Self {
        Self { operations }
    }

    /// Runs `model` on the chosen `rows`, right-padded to the longest of them; `collisions` says
    /// whether these are asked for.
    fn score(
        &self,
        model: &CausalLm,
        examples: Examples<'_>,
        rows: &[usize],
        prompt_token_counts: &[usize],
        collisions: bool,
    ) -> Result<Scored, ModelError> {
        // Token ids have no autodiff.
        let device = model.device().inner();
        let tokens = examples.tokens.to_padded(rows, Padding::Right, &device)?;
        let [_, longest] = tokens.dims();
        let columns = |row: usize| {
            let length = examples.tokens.length(row);
            prompt_token_counts.get(row).copied().unwrap_or(length)..length
        };
        let token_counts: Vec<usize> = rows.iter().map(|&row| columns(row).len()).collect();
        let flat = rows.iter().enumerate().flat_map(|(at, &row)| columns(row).map(move |column| at * longest + column));
        // Below rows * longest, the size of a tensor.
        let targets: Vec<i32> = flat.map(|at| at as i32).collect();
        let count = targets.len();
        if count == 0 {
            let zeros = vec![0.0; rows.len()];
            return Ok(Scored {
                collisions: if collisions { zeros.clone() } else { Vec::new() },
                logprobs: zeros,
                token_counts,
                head: None,
            });
        }
        let indices = |values: Vec<i32>| Tensor::<1, Int>::from_data(TensorData::new(values, [count]), (&device, DType::I32));
        let before = indices(targets.iter().map(|at| at - 1).collect());
        let targets = tokens.clone().flatten::<1>(0, 1).select(0, indices(targets));
        let hidden: Tensor<2> = self.operations.hidden(&model.model, tokens).flatten(0, 1);
        let (weight, tied) = Predictions::head_weight(model);
        let frozen = !weight.is_require_grad();
        let head = self.operations.token_logprobs(Predictions {
            hidden,
            before,
            weight,
            tied,
            rule: model.logit_rule(),
            precision: model.precision(),
            targets,
        });
        let sums = |of_tokens: Vec<f64>| -> Vec<f64> {
            let mut of_tokens = of_tokens.into_iter();
            token_counts.iter().map(|&count| of_tokens.by_ref().take(count).sum()).collect()
        };
        let [logprobs, collided] = head.values(collisions);
        let collisions = if collisions { sums(collided) } else { Vec::new() };
        Ok(Scored { logprobs: sums(logprobs), collisions, token_counts, head: Some((head, frozen)) })
    }

    /// The scores of the chosen rows: `[rows]`.
    fn scores_of(&self, model: &RewardModel, examples: Examples<'_>, rows: &[usize]) -> Result<Tensor<1>, ModelError> {
        let tokens = examples.tokens.to_padded(rows, Padding::Right, &model.device().inner())?;
        let lengths: Vec<usize> = rows.iter().map(|&row| examples.tokens.length(row)).collect();
        Ok(model.scores(self.operations.hidden(&model.model, tokens), &lengths))
    }

    fn gradients(&self, by_name: NamedTensors) -> Gradients {
        Gradients::Tensors { by_name, factor: 1.0, operations: self.operations }
    }
}

impl Backend for TensorBackend {
    fn logprobs(&self, model: &CausalLm, examples: Examples<'_>, prompt_token_counts: &[usize]) -> Result<Vec<f64>, ModelError> {
        by_length(examples, |examples, rows| Ok(self.score(model, examples, rows, prompt_token_counts, false)?.logprobs))
    }

    fn scores(&self, model: &RewardModel, examples: Examples<'_>) -> Result<Vec<f64>, ModelError> {
        by_length(examples, |examples, rows| Ok(numbers(self.scores_of(model, examples, rows)?)))
    }

    fn logprob_gradients(
        &self,
        model: &mut CausalLm,
        examples: Examples<'_>,
        prompt_token_counts: &[usize],
        step: u64,
        collisions: bool,
        loss: &mut LogprobLoss<'_>,
    ) -> Result<Gradients, ModelError> {
        let mut sum = NamedTensors::new();
        for batch in order(examples).chunks(examples.micro_batch.max(1)) {
            let rows = row_by_row(examples, batch);
            // Masks depend on the rows, never on the order of micro-batches.
            let masked = model.with_dropout(step, rows.first().map_or(0, |&row| row as u64));
            let scored = self.score(&masked, examples, &rows, prompt_token_counts, collisions)?;
            let of_examples = |values: &[f64]| transposed(values, batch.len());
            let derivatives = loss(batch, &of_examples(&scored.logprobs), &of_examples(&scored.collisions));
            if let Some(gradients) = scored.backward(&transposed(&derivatives, examples.rows_per_example)) {
                add(&mut sum, named_tensors::gradients(model, gradients));
            }
        }
        Ok(self.gradients(sum))
    }

    fn score_gradients(&self, model: &mut RewardModel, examples: Examples<'_>, loss: &mut ScoreLoss<'_>) -> Result<Gradients, ModelError> {
        let mut sum = NamedTensors::new();
        for batch in order(examples).chunks(examples.micro_batch.max(1)) {
            let scores = self.scores_of(model, examples, &row_by_row(examples, batch))?;
            let derivatives = loss(batch, &transposed(&numbers(scores.clone().inner()), batch.len()));
            let gradients = backward(scores, &transposed(&derivatives, examples.rows_per_example));
            add(&mut sum, named_tensors::gradients(model, gradients));
        }
        Ok(self.gradients(sum))
    }

    fn sampling_model(&self, model: CausalLm) -> Result<SamplingModel, ModelError> {
        Ok(SamplingModel::Reference(Box::new(model)))
    }
}

/// The responses of one micro-batch after the forward pass.
struct Scored {
    /// One entry a row.
    logprobs: Vec<f64>,
    /// Σ log Σ_v p_v² over each row's response tokens, nats; empty unless it is asked for.
    collisions: Vec<f64>,
    /// How many response tokens each row has.
    token_counts: Vec<usize>,
    /// With whether its weight is frozen; `None` when no row has a response token.
    head: Option<(Box<dyn TokenLogprobs>, bool)>,
}

impl Scored {
    /// The gradients of Σ `derivatives` · logprobs, one derivative a row; `None` when no row has a
    /// response token.
    fn backward(self, derivatives: &[f64]) -> Option<burn::tensor::Gradients> {
        let (head, frozen) = self.head?;
        let rows = derivatives.iter().zip(&self.token_counts);
        let of_tokens = rows.flat_map(|(&derivative, &count)| std::iter::repeat_n(derivative as f32, count)).collect();
        head.backward(of_tokens, frozen)
    }
}

/// The numbers of all examples, longest first, to save padding.
fn order(examples: Examples<'_>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..examples.count()).collect();
    order.sort_by_key(|&example| Reverse(examples.length(example)));
    order
}

/// The results of `work` on examples of one row each, in micro-batches of similar length.
fn by_length(
    examples: Examples<'_>,
    work: impl Fn(Examples<'_>, &[usize]) -> Result<Vec<f64>, ModelError>,
) -> Result<Vec<f64>, ModelError> {
    let mut found = vec![0.0; examples.count()];
    for batch in order(examples).chunks(examples.micro_batch.max(1)) {
        let values = work(examples, &row_by_row(examples, batch))?;
        batch.iter().zip(values).for_each(|(&example, value)| found[example] = value);
    }
    Ok(found)
}

/// The first row of each example of a batch, then the second of each, and so on.
fn row_by_row(examples: Examples<'_>, batch: &[usize]) -> Vec<usize> {
    let row = |which: usize| batch.iter().map(move |&example| examples.rows_of(example)[which]);
    (0..examples.rows_per_example).flat_map(row).collect()
}

/// The transpose of a matrix with so many columns, both row after row.
fn transposed(values: &[f64], columns: usize) -> Vec<f64> {
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns.max(1)).copied()).collect()
}

fn add(sum: &mut NamedTensors, gradients: NamedTensors) {
    for (name, gradient) in gradients {
        let gradient = match sum.remove(&name) {
            Some(earlier) => earlier + gradient,
            None => gradient,
        };
        sum.insert(name, gradient);
    }
}

/// The gradients of Σ `derivatives` · scores.
fn backward(scores: Tensor<1>, derivatives: &[f64]) -> burn::tensor::Gradients {
    let shape = [derivatives.len()];
    let derivatives: Vec<f32> = derivatives.iter().map(|derivative| *derivative as f32).collect();
    let derivatives: Tensor<1> = Tensor::from_data(TensorData::new(derivatives, shape), (&scores.device().inner(), DType::F32));
    (scores * derivatives.autodiff()).sum().backward()
}

fn numbers(scores: Tensor<1>) -> Vec<f64> {
    scores.into_data().iter::<f64>().collect()
}
