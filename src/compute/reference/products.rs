//! Matrix products in the precision of a model. Knows nothing of where they stand.
//!
//! In bf16 both factors are rounded, and so is the derivative by the product, a factor of both
//! products of the backward pass; sums are f32. The derivatives by the factors themselves are not
//! rounded, as if rounding were the identity.

use burn::tensor::module::linear as plain;
use burn::tensor::{DType, Tensor};

use crate::compute::Precision;

/// `x · weight + bias`.
///
/// # Shapes
/// - x: `[.., in]`
/// - weight: `[in, out]`
/// - bias: `[out]`
/// - output: `[.., out]`
pub(crate) fn linear<const D: usize>(precision: Precision, x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    if precision == Precision::F32 {
        return plain(x, weight, bias);
    }
    let product = rounding_derivatives(precision, plain(factor(precision, x), factor(precision, weight), None));
    match bias {
        Some(bias) => {
            let mut shape = [1; D];
            shape[D - 1] = bias.dims()[0];
            product + bias.reshape(shape)
        }
        None => product,
    }
}

/// A factor of a product, with the derivatives of the tensor.
pub(crate) fn factor<const D: usize>(precision: Precision, tensor: Tensor<D>) -> Tensor<D> {
    match precision {
        Precision::F32 => tensor,
        // The difference of a number and its rounding is exact, and so is the sum.
        Precision::Bf16 => tensor.clone() + (rounded(tensor.clone()) - tensor).detach(),
    }
}

/// The nearest bf16 numbers, as f32. Derivatives are rounded too.
pub(crate) fn rounded<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    tensor.cast(DType::BF16).cast(DType::F32)
}

/// A product as it is. Derivatives by it are rounded, since they are factors of the backward pass.
pub(crate) fn rounding_derivatives<const D: usize>(precision: Precision, product: Tensor<D>) -> Tensor<D> {
    match precision {
        Precision::F32 => product,
        Precision::Bf16 => {
            let near = rounded(product.clone());
            near.clone() + (product - near).detach()
        }
    }
}
