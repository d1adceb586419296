//! The MLP of a layer, or one expert. Knows nothing of the layer around it.

use burn::module::Module;
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor};

use super::projection::Projection;

/// SwiGLU: `down(silu(gate(x)) * up(x))`.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `hidden_size` to `intermediate_size`.
    pub gate_proj: Projection,
    /// `hidden_size` to `intermediate_size`.
    pub up_proj: Projection,
    /// `intermediate_size` to `hidden_size`.
    pub down_proj: Projection,
}

impl Mlp {
    /// An MLP with parameters made at their first use.
    pub(crate) fn unfilled(hidden_size: usize, intermediate_size: usize, bias: bool, device: &Device) -> Self {
        Self {
            gate_proj: Projection::unfilled(hidden_size, intermediate_size, bias, device),
            up_proj: Projection::unfilled(hidden_size, intermediate_size, bias, device),
            down_proj: Projection::unfilled(intermediate_size, hidden_size, bias, device),
        }
    }

    /// # Shapes
    /// - x, output: `[.., hidden_size]`
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let gate = silu(self.gate_proj.forward(x.clone()));
        self.down_proj.forward(gate * self.up_proj.forward(x))
    }
}
