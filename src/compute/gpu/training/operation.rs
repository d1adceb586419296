//! The common part of our own operations: from burn's tensors to their memory, and back into
//! autodiff. Knows nothing of the operations.

use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::ops::{Backward, NodeGuard, OpsKind};
use burn::backend::ops::FloatTensorOps;
use burn::backend::{Autodiff, Cube, FloatDType};
use burn::tensor::{DType, Int, Tensor};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::std::tensor::TensorHandle;

use super::F32;

type Recorded = Autodiff<Cube, NoCheckpointing>;

/// An input of an operation.
pub(super) struct Operand {
    pub(super) numbers: CubeTensor,
    /// Its node in autodiff's graph; `None` without autodiff.
    pub(super) node: Option<NodeGuard>,
}

impl Operand {
    /// `None` when the tensor is not f32 on a GPU.
    pub(super) fn new<const D: usize>(tensor: &Tensor<D>) -> Option<Self> {
        if tensor.dtype() != DType::F32 {
            return None;
        }
        if tensor.is_autodiff() {
            let (numbers, node) = tensor.clone().try_into_primitive::<Recorded>().ok()?.into_parts();
            return Some(Self { numbers, node: Some(node) });
        }
        Some(Self { numbers: tensor.clone().try_into_primitive::<Cube>().ok()?, node: None })
    }

    /// Its numbers, row after row.
    pub(super) fn contiguous(&self) -> CubeTensor {
        into_contiguous(self.numbers.clone())
    }
}

/// The result of an operation, recorded with the state of its backward pass. `None` when some of
/// its operands have autodiff and others have not.
pub(super) fn record<O, const N: usize, const D: usize>(
    operation: O,
    nodes: [Option<NodeGuard>; N],
    state: O::State,
    found: CubeTensor,
) -> Option<Tensor<D>>
where
    O: Backward<Cube, N>,
{
    let nodes: Vec<NodeGuard> = nodes.into_iter().flatten().collect();
    if nodes.is_empty() {
        return Some(Tensor::from_primitive::<Cube>(found));
    }
    let found = match operation.prepare::<NoCheckpointing>(nodes.try_into().ok()?).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, found),
        OpsKind::UnTracked(prep) => prep.finish(found),
    };
    Some(Tensor::from_primitive::<Recorded>(found))
}

/// Memory for f32 numbers, on the GPU where `beside` is.
pub(super) fn empty<const D: usize>(shape: [usize; D], beside: &CubeTensor) -> CubeTensor {
    Cube::float_empty(shape.into(), &beside.device, FloatDType::F32)
}

/// The memory of i32 numbers, row after row; `None` when they are not on a GPU.
pub(super) fn integers<const D: usize>(tensor: &Tensor<D, Int>) -> Option<CubeTensor> {
    if tensor.dtype() != DType::I32 {
        return None;
    }
    Some(into_contiguous(tensor.clone().try_into_primitive::<Cube>().ok()?))
}

/// Numbers in the memory of the GPU where `beside` is.
pub(super) fn numbers(values: &[f32], beside: &CubeTensor) -> TensorHandle {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    TensorHandle::new_contiguous([values.len()], beside.client.create_from_slice(&bytes), F32)
}

/// For launches.
pub(super) fn handle(tensor: &CubeTensor) -> TensorHandle {
    tensor.clone().into()
}
