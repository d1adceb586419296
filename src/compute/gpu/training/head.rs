//! From hidden states to the logprobs of a token each, and from derivatives by these to those by
//! hidden states and weights. Knows nothing of losses.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients as Reached;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops};
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::{Gradients, Tensor};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::matrix::{Form, Matrix};
use super::operation::{Operand, empty, handle, integers, numbers, record};
use super::select::select;
use crate::compute::gpu::kernels::{self, FOUND, SAMPLERS, UNITS};
use crate::compute::reference::token_logprobs::Predictions;

/// Hidden states after the way to their tokens' logprobs.
pub struct ScoredTokens {
    /// Of the hidden states and the weight.
    nodes: [Option<NodeGuard>; 2],
    hidden: Matrix,
    weight: Matrix,
    /// Whether the weight is an embedding's, `[vocab_size, hidden_size]`; else it is `[hidden_size,
    /// vocab_size]`.
    tied: bool,
    /// `[tokens, vocab_size]`.
    logits: CubeTensor,
    /// `[tokens]`.
    targets: CubeTensor,
    /// `[tokens, FOUND]`.
    found: CubeTensor,
}

impl ScoredTokens {
    /// `None` when hidden states and weight are not f32 on a GPU.
    pub fn new(predictions: &Predictions) -> Option<Self> {
        let Predictions { hidden, before, weight, tied, targets, precision, .. } = predictions;
        let tied = *tied;
        let (hidden, weight) = (Operand::new(&select(hidden, before)?)?, Operand::new(weight)?);
        let targets = integers(targets)?;
        let dims = weight.numbers.shape();
        let form = Form::of(&weight.numbers.client, *precision, dims.iter().copied());
        let nodes = [hidden.node, weight.node];
        let [hidden, weight] = [hidden.numbers, weight.numbers].map(|numbers| Matrix::new(&[numbers], form));
        let logits = hidden.plain().product(&if tied { weight.transposed() } else { weight.plain() });
        let [tokens, vocab_size] = [logits.shape()[0], logits.shape()[1]];
        let found = empty([tokens, FOUND], &logits);
        kernels::logprobs::launch(
            &logits.client,
            CubeCount::Static(tokens as u32, 1, 1),
            CubeDim::new_1d(SAMPLERS as u32),
            handle(&logits).into_arg(),
            handle(&targets).into_arg(),
            handle(&found).into_arg(),
            vocab_size,
        );
        Some(Self { nodes, hidden, weight, tied, logits, targets, found })
    }

    /// Each token's logprob, and log Σ p² over the vocabulary, nats. One transfer from the GPU.
    pub fn found(&self) -> Vec<[f32; 2]> {
        let found = Tensor::<2>::from_primitive::<Cube>(self.found.clone()).into_data();
        let found: Vec<f32> = found.iter().collect();
        found.as_chunks().0.iter().map(|&[logprob, collision, _]: &[f32; FOUND]| [logprob, collision]).collect()
    }

    /// The gradients of Σ `derivatives` · logprobs, one a token; `None` without autodiff.
    pub fn backward(self, derivatives: &[f32], frozen: bool) -> Option<Gradients> {
        let Self { nodes, hidden, weight, tied, logits, targets, found } = self;
        let [tokens, vocab_size] = [logits.shape()[0], logits.shape()[1]];
        let by_logits = Matrix::empty([tokens, vocab_size], hidden.form, &logits);
        let (out, all_rows) = by_logits.memory();
        kernels::logprobs_back::launch(
            &logits.client,
            CubeCount::Static(all_rows as u32, vocab_size.div_ceil(UNITS) as u32, 1),
            CubeDim::new_1d(UNITS as u32),
            handle(&logits).into_arg(),
            handle(&targets).into_arg(),
            handle(&found).into_arg(),
            numbers(derivatives, &logits).into_arg(),
            handle(out).into_arg(),
            tokens,
            vocab_size,
            by_logits.form.in_tiles(),
            by_logits.element(),
        );
        let by_hidden = by_logits.plain().product(&if tied { weight.plain() } else { weight.transposed() });
        let by_weight = (!frozen).then(|| match tied {
            true => by_logits.transposed().product(&hidden.plain()),
            false => hidden.transposed().product(&by_logits.plain()),
        });
        let nothing = empty([1], &logits);
        let end: Tensor<1> = record(KnownDerivatives, nodes, [Some(by_hidden), by_weight], nothing)?;
        end.is_autodiff().then(|| end.backward())
    }
}

/// The end of a computation with known derivatives.
#[derive(Debug)]
struct KnownDerivatives;

impl Backward<Cube, 2> for KnownDerivatives {
    type State = [Option<CubeTensor>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Reached, _: &mut Checkpointer) {
        for (node, gradient) in ops.parents.into_iter().zip(ops.state) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                gradients.register::<Cube>(node.id, gradient);
            }
        }
    }
}
