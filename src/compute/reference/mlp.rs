//! The MLP of a layer, or one expert. Knows nothing of the layer around it.

use burn::module::Module;
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor};

use super::projection::Projection;
use crate::model::Activation;

/// SwiGLU (Shazeer 2020, arXiv 2002.05202): `down(silu(gate(x)) * up(x))`, or with another
/// activation.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `hidden_size` to `intermediate_size`.
    pub gate_proj: Projection,
    /// `hidden_size` to `intermediate_size`.
    pub up_proj: Projection,
    /// `intermediate_size` to `hidden_size`.
    pub down_proj: Projection,
    #[module(skip)]
    activation: Activation,
}

/// An MLP with gates and ups from one projection.
#[derive(Module, Debug)]
pub struct FusedMlp {
    /// `hidden_size` to `2 * intermediate_size`: gates, then ups.
    pub gate_up_proj: Projection,
    /// `intermediate_size` to `hidden_size`.
    pub down_proj: Projection,
    #[module(skip)]
    activation: Activation,
}

/// The projections of an MLP of either form.
pub(crate) struct MlpProjections<'a> {
    /// To gates and ups: two, or one to both.
    pub(crate) gates_ups: Vec<&'a Projection>,
    /// Behind them.
    pub(crate) down: &'a Projection,
    /// Of the gates.
    pub(crate) activation: Activation,
}

impl MlpProjections<'_> {
    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.gates_ups.len() as u64 + 1
    }
}

impl Mlp {
    /// An MLP with parameters made at their first use.
    pub(crate) fn unfilled(hidden_size: usize, intermediate_size: usize, bias: bool, activation: Activation, device: &Device) -> Self {
        Self {
            gate_proj: Projection::unfilled(hidden_size, intermediate_size, bias, device),
            up_proj: Projection::unfilled(hidden_size, intermediate_size, bias, device),
            down_proj: Projection::unfilled(intermediate_size, hidden_size, bias, device),
            activation,
        }
    }

    /// Its projections.
    pub(crate) fn projections(&self) -> MlpProjections<'_> {
        MlpProjections { gates_ups: vec![&self.gate_proj, &self.up_proj], down: &self.down_proj, activation: self.activation }
    }

    /// # Shapes
    /// - x, output: `[.., hidden_size]`
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let gate = activated(self.activation, self.gate_proj.forward(x.clone()));
        self.down_proj.forward(gate * self.up_proj.forward(x))
    }
}

impl FusedMlp {
    /// An MLP with parameters made at their first use.
    pub(crate) fn unfilled(hidden_size: usize, intermediate_size: usize, bias: bool, activation: Activation, device: &Device) -> Self {
        Self {
            gate_up_proj: Projection::unfilled(hidden_size, 2 * intermediate_size, bias, device),
            down_proj: Projection::unfilled(intermediate_size, hidden_size, bias, device),
            activation,
        }
    }

    /// Its projections.
    pub(crate) fn projections(&self) -> MlpProjections<'_> {
        MlpProjections { gates_ups: vec![&self.gate_up_proj], down: &self.down_proj, activation: self.activation }
    }

    /// # Shapes
    /// - x, output: `[.., hidden_size]`
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let both = self.gate_up_proj.forward(x);
        let width = both.dims()[D - 1] / 2;
        let (gate, up) = (both.clone().narrow(D - 1, 0, width), both.narrow(D - 1, width, width));
        self.down_proj.forward(activated(self.activation, gate) * up)
    }
}

fn activated<const D: usize>(activation: Activation, x: Tensor<D>) -> Tensor<D> {
    match activation {
        Activation::Silu => silu(x),
        Activation::GeluTanh => {
            let inner = (x.clone() + x.clone().square() * x.clone() * 0.044_715) * (2.0 / std::f64::consts::PI).sqrt();
            x * (inner.tanh() + 1.0) * 0.5
        }
    }
}
