//! Weights that are NaN or infinite.
//!
//! Knows parameters by name, not their use.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::compute::reference::named_tensors;

/// The name of a parameter with NaN or infinity; `None` if there is none.
pub fn broken_parameter(model: &impl Module) -> Option<String> {
    let finite = |weights: Tensor<1>| weights.into_data().iter::<f32>().all(f32::is_finite);
    named_tensors::values(model).into_iter().find_map(|(name, weights)| (!finite(weights)).then_some(name))
}
