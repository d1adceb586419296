//! Sequence logprobs, and the way back from a derivative by them to the gradients of the weights.
//!
//! Only the positions that predict a response token reach the vocabulary, and autodiff never sees a tensor of its size: the derivative
//! of a logprob by its logits is known (one-hot minus probabilities), so the backward pass through the head is written out here
//! and autodiff starts at the hidden states. That leaves one `[tokens, vocabulary]` tensor instead of about ten.
//! Knows nothing of losses and optimizers.

use std::cmp::Reverse;
use std::collections::HashMap;

use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{DType, Gradients, IndexingUpdateOp, Int, Tensor, TensorData};

use crate::model::{CausalLm, CpuTraining, CpuWeights, Padding, Placement};

use super::responses::token_ids;
use super::trainer::{micro_batches, on_processor};
use super::{Responses, TrainingError};

/// The most tokens that go through a model on the processor together: more would not be faster.
const TOKENS: usize = 4096;

/// The logprob of each chosen row's response given its prompt: the sum over response tokens, nats, at temperature 1.
///
/// At most `micro_batch` rows go through the model together. On the processor, rows of one prompt share its computation, and a row has the same bits
/// whatever it is computed beside; elsewhere rows of similar length are padded to the longest, and the same rows and the same `micro_batch` give the
/// same bits.
///
/// # Errors
/// When a row does not exist or `micro_batch` is 0.
pub fn response_logprobs(model: &CausalLm, responses: &Responses, rows: &[usize], micro_batch: usize) -> Result<Vec<f64>, TrainingError> {
    let model = model.valid();
    let mut logprobs = Vec::with_capacity(rows.len());
    if on_processor(&model.device()) {
        let model = CpuTraining::of_causal_lm(&model, &CpuWeights::of(&model)?, false)?;
        for groups in batches(responses, rows, micro_batch)? {
            let (mut families, mut prompts) = (Vec::new(), Vec::new());
            for group in &groups {
                let rows: Vec<usize> = group.iter().map(|(_, row)| *row).collect();
                let (family, of_family) = responses.families(&rows, rows.len())?;
                families.extend(family);
                prompts.extend(of_family);
            }
            let found = model.logprobs(&families, &prompts)?;
            logprobs.extend(groups.iter().flatten().map(|(at, _)| *at).zip(found.into_iter().flatten()));
        }
    } else {
        let mut order: Vec<(usize, usize)> = rows.iter().copied().enumerate().collect();
        order.sort_by_key(|&(_, row)| Reverse(responses.length(row)));
        for piece in micro_batches(&order, micro_batch)? {
            let (at, rows): (Vec<usize>, Vec<usize>) = piece.iter().copied().unzip();
            logprobs.extend(at.into_iter().zip(Scored::new(&model, responses, &rows, false)?.logprobs));
        }
    }
    logprobs.sort_by_key(|&(at, _)| at);
    Ok(logprobs.into_iter().map(|(_, logprob)| logprob).collect())
}

/// Rows of one prompt, each with its place among all rows.
type Group = Vec<(usize, usize)>;

/// All rows in groups, and these in batches: of at most `size` rows and, unless one row has more, [`TOKENS`] tokens.
fn batches(responses: &Responses, rows: &[usize], size: usize) -> Result<Vec<Vec<Group>>, TrainingError> {
    let mut groups: Vec<Group> = Vec::new();
    if !rows.is_empty() {
        let ids = token_ids(responses.sequences(), rows)?;
        let mut numbers: HashMap<&[i32], usize> = HashMap::new();
        for (at, (&row, ids)) in rows.iter().zip(&ids).enumerate() {
            let number = *numbers.entry(&ids[..responses.response(row).start]).or_insert(groups.len());
            if number == groups.len() {
                groups.push(Group::new());
            }
            groups[number].push((at, row));
        }
    }
    let mut batches: Vec<Vec<Group>> = Vec::new();
    let (mut count, mut tokens) = (size, 0);
    for group in &groups {
        for piece in micro_batches(group, size)? {
            let more = piece.iter().map(|(_, row)| responses.length(*row)).sum::<usize>();
            if count + piece.len() > size || tokens + more > TOKENS {
                batches.push(Vec::new());
                (count, tokens) = (0, 0);
            }
            (count, tokens) = (count + piece.len(), tokens + more);
            batches.last_mut().into_iter().for_each(|batch| batch.push(piece.to_vec()));
        }
    }
    Ok(batches)
}

/// The responses of one micro-batch after the forward pass.
///
/// `tokens` below is the number of response tokens of all rows together.
pub(super) struct Scored {
    /// One entry a row, see [`response_logprobs`].
    pub(super) logprobs: Vec<f64>,
    /// Σ log Σ_v p_v² over each row's response tokens, nats; empty unless it is asked for.
    pub(super) collisions: Vec<f64>,
    /// How many response tokens each row has.
    pub(super) token_counts: Vec<usize>,
    /// `None` when no row has a response token.
    head: Option<Head>,
}

/// What the way back through the head needs.
enum Head {
    /// Computed by kernels of our own, and whether its weight is frozen.
    #[cfg(feature = "cuda")]
    OnGpu(Box<crate::model::ScoredTokens>, bool),
    Tensors(Box<HeadTensors>),
}

/// The same where kernels of our own do not compute it.
struct HeadTensors {
    /// `[tokens, hidden_size]`, with autodiff: the states that predict a response token.
    hidden: Tensor<2>,
    /// `[vocab_size, hidden_size]`, with autodiff.
    weight: Tensor<2>,
    /// Whether the weight is frozen, and so wants no gradient.
    frozen: bool,
    /// `[tokens, vocab_size]`, without.
    probabilities: Tensor<2>,
    /// `[tokens]`: the response tokens.
    targets: Tensor<1, Int>,
}

impl Scored {
    /// Runs `model` on the chosen `rows`, right-padded to the longest of them; `collisions` says whether these are asked for.
    ///
    /// # Errors
    /// When no row is chosen or one does not exist.
    pub(super) fn new(model: &CausalLm, responses: &Responses, rows: &[usize], collisions: bool) -> Result<Self, TrainingError> {
        let tokens = responses.sequences().gather(rows, Padding::Right)?;
        let [_, longest] = tokens.dims();
        let device = tokens.device();
        let columns = |row: usize| responses.response(row);
        let token_counts: Vec<usize> = rows.iter().map(|&row| columns(row).len()).collect();
        let flat = rows.iter().enumerate().flat_map(|(at, &row)| columns(row).map(move |column| at * longest + column));
        // Below rows * longest, which `gather` has made a tensor of.
        let targets: Vec<i32> = flat.map(|at| at as i32).collect();
        let count = targets.len();
        if count == 0 {
            let zeros = vec![0.0; rows.len()];
            return Ok(Self { collisions: if collisions { zeros.clone() } else { Vec::new() }, logprobs: zeros, token_counts, head: None });
        }

        let indices = |values: Vec<i32>| Tensor::<1, Int>::from_data(TensorData::new(values, [count]), (&device, DType::I32));
        let before = indices(targets.iter().map(|at| at - 1).collect());
        let targets = tokens.clone().flatten::<1>(0, 1).select(0, indices(targets));
        let hidden: Tensor<2> = model.hidden(tokens, &Placement::right_padded(longest, &device), None).flatten(0, 1);
        let (weight, tied, frozen) = head_weight(model);
        let sums = |of_tokens: Vec<f64>| -> Vec<f64> {
            let mut of_tokens = of_tokens.into_iter();
            token_counts.iter().map(|&count| of_tokens.by_ref().take(count).sum()).collect()
        };
        #[cfg(feature = "cuda")]
        if let Some(scored) = crate::model::ScoredTokens::new(&hidden, &before, &weight, tied, &targets) {
            let found = scored.found();
            let of_tokens = |which: usize| sums(found.iter().map(|found| f64::from(found[which])).collect());
            let (logprobs, collisions) = (of_tokens(0), if collisions { of_tokens(1) } else { Vec::new() });
            return Ok(Self { logprobs, collisions, token_counts, head: Some(Head::OnGpu(Box::new(scored), frozen)) });
        }
        let hidden = hidden.select(0, before);
        let weight = if tied { weight } else { weight.transpose() };
        let logits = hidden.clone().inner().matmul(weight.clone().inner().transpose());
        let probabilities = softmax(logits.clone(), 1);
        // log Σ e^logit = largest logit − log of its probability, which is at least 1 / vocab_size and so keeps its digits.
        let normalizer = logits.clone().max_dim(1) - probabilities.clone().max_dim(1).log();
        let of_tokens = logits.gather(1, targets.clone().unsqueeze_dim(1)) - normalizer;
        let logprobs = sums(of_tokens.into_data().iter().collect());
        let collided = || sums(probabilities.clone().square().sum_dim(1).log().into_data().iter().collect());
        let collisions = if collisions { collided() } else { Vec::new() };
        let head = Head::Tensors(Box::new(HeadTensors { hidden, weight, frozen, probabilities, targets }));
        Ok(Self { logprobs, collisions, token_counts, head: Some(head) })
    }

    /// The gradients of Σ `derivatives` · logprobs, one derivative a row; `None` when no row has a response token.
    pub(super) fn backward(self, derivatives: &[f64]) -> Option<Gradients> {
        let of_tokens: Vec<f32> = derivatives
            .iter()
            .zip(&self.token_counts)
            .flat_map(|(&derivative, &count)| std::iter::repeat_n(derivative as f32, count))
            .collect();
        match self.head? {
            #[cfg(feature = "cuda")]
            Head::OnGpu(scored, frozen) => scored.backward(&of_tokens, frozen),
            Head::Tensors(head) => Some(head.backward(of_tokens)),
        }
    }
}

impl HeadTensors {
    fn backward(self, of_tokens: Vec<f32>) -> Gradients {
        let Self { hidden, weight, frozen, probabilities, targets } = self;
        let shape = [of_tokens.len(), 1];
        let (plain_hidden, plain_weight) = (hidden.clone().inner(), weight.clone().inner());
        let derivative: Tensor<2> = Tensor::from_data(TensorData::new(of_tokens, shape), (&plain_hidden.device(), DType::F32));

        // With G = derivative ⊙ (one-hot − probabilities), the gradient by the logits, these are G · weight and Gᵀ · hidden.
        let by_hidden =
            (plain_weight.clone().select(0, targets.clone()) - probabilities.clone().matmul(plain_weight.clone())) * derivative.clone();
        // A sum with these derivatives, for autodiff to go on from.
        let of_hidden = (hidden * by_hidden.autodiff()).sum();
        if frozen {
            return of_hidden.backward();
        }
        let scaled = plain_hidden * derivative;
        let by_weight = plain_weight.zeros_like().select_assign(0, targets, scaled.clone(), IndexingUpdateOp::Add)
            - probabilities.transpose().matmul(scaled);
        (of_hidden + (weight * by_weight.autodiff()).sum()).backward()
    }
}

/// The weights from hidden states to logits, whether they are an embedding's, `[vocab_size, hidden_size]`, or else the transpose of that, and whether they are
/// frozen.
fn head_weight(model: &CausalLm) -> (Tensor<2>, bool, bool) {
    let (weight, tied) = match &model.lm_head {
        Some(lm_head) => (lm_head.weight.val(), false),
        None => (model.model.embed_tokens.weight.val(), true),
    };
    let frozen = !weight.is_require_grad();
    (weight, tied, frozen)
}

/// `model` with the dropout of a micro-batch of a step: masks depend on which rows these are, never on when they are worked on.
pub(super) fn masked(model: &CausalLm, step: u64, rows: &[usize]) -> CausalLm {
    model.with_dropout(step, rows.first().map_or(0, |&row| row as u64))
}
