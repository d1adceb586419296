//! Matrix products on a GPU as training wants them: f32 in and out, computed by tensor cores from bf16, with a way back of the same kind.
//!
//! What PyTorch's autocast does: weights, and gradients of them, stay f32. Knows nothing of layers.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, binary};
use burn::backend::ops::FloatTensorOps;
use burn::backend::{Autodiff, Cube, FloatDType, TensorMetadata};
use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubek_matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek_matmul::launch::launch_ref;
use cubek_matmul::multi_level;
use cubek_matmul::strategy::Strategy;
use cubek_std::InputBinding;

use super::{BF16, F32};

/// `x · weight` from numbers that are shortened to bf16; `None` when they are not f32 on a GPU, both with autodiff or both without.
///
/// # Shapes
/// - x: `[rows, in]`
/// - weight: `[in, out]`
/// - output: `[rows, out]`
pub fn product(x: &Tensor<2>, weight: &Tensor<2>) -> Option<Tensor<2>> {
    type Recorded = Autodiff<Cube, NoCheckpointing>;
    if [x, weight].iter().any(|tensor| tensor.dtype() != burn::tensor::DType::F32) {
        return None;
    }
    if !x.is_autodiff() {
        let x = x.clone().try_into_primitive::<Cube>().ok()?;
        let weight = weight.clone().try_into_primitive::<Cube>().ok()?;
        return Some(Tensor::from_primitive::<Cube>(multiply(shorten(x), shorten(weight))));
    }
    let (x, x_node) = x.clone().try_into_primitive::<Recorded>().ok()?.into_parts();
    let (weight, weight_node) = weight.clone().try_into_primitive::<Recorded>().ok()?.into_parts();
    let (x, weight) = (shorten(x), shorten(weight));
    let found = multiply(x.clone(), weight.clone());
    let found = match Product.prepare::<NoCheckpointing>([x_node, weight_node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((x, weight), found),
        OpsKind::UnTracked(prep) => prep.finish(found),
    };
    Some(Tensor::from_primitive::<Recorded>(found))
}

#[derive(Debug)]
struct Product;

impl Backward<Cube, 2> for Product {
    type State = (CubeTensor, CubeTensor);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (x, weight) = ops.state;
        binary::<Cube, _, _>(
            ops.parents,
            ops.node,
            gradients,
            |gradient| multiply(shorten(gradient), Cube::float_transpose(weight)),
            |gradient| multiply(Cube::float_transpose(x), shorten(gradient)),
        );
    }
}

fn shorten(tensor: CubeTensor) -> CubeTensor {
    Cube::float_cast(tensor, FloatDType::BF16)
}

/// The product of two bf16 matrices, in f32.
fn multiply(left: CubeTensor, right: CubeTensor) -> CubeTensor {
    let shape = [left.shape()[0], right.shape()[1]];
    let out = Cube::float_empty(shape.into(), &left.device, FloatDType::F32);
    let mut elements = MatmulElems::from_globals(&MatmulGlobalElems { lhs: BF16, rhs: BF16, out: F32 });
    let factors = [&left, &right].map(|tensor| InputBinding::new(tensor.clone().binding(), BF16));
    let strategy = Strategy::MultiLevel(multi_level::Strategy::DoubleCyclicMma(Default::default()));
    let [first, second] = factors;
    match launch_ref(&strategy, &out.client, first, second, out.clone().binding(), &mut elements) {
        Ok(()) => out,
        // There are shapes and GPUs that it is not for.
        Err(_) => Cube::float_cast(Cube::float_matmul(left, right), FloatDType::F32),
    }
}
