//! An MLP, or one expert, in training, and its backward pass. Knows nothing of the layer around it.

use super::columns;
use super::linear::{self, Linear};
use super::parameter::CpuGradients;
use super::tokens::Tokens;
use super::weights::CpuWeights;
use crate::compute::Projection;
use crate::compute::cpu::kernels::{self, Buffer, Memory, PIECE};
use crate::compute::reference::mlp::MlpProjections;
use crate::model::{Activation, ModelError};

/// An MLP's parameters.
#[derive(Debug)]
pub(super) struct TrainedMlp {
    inputs: Inputs,
    down: Linear,
    activation: Activation,
}

/// The projections to gates and ups.
#[derive(Debug)]
enum Inputs {
    Separate(Box<[Linear; 2]>),
    Fused(Box<Linear>),
}

/// The inputs of the backward pass: `[tokens, intermediate_size]` each.
#[derive(Debug)]
pub(super) struct Kept {
    gates: Buffer,
    ups: Buffer,
    activation: Activation,
}

impl TrainedMlp {
    /// `number` is the number of its first projection in the model.
    pub(super) fn new(projections: &MlpProjections<'_>, weights: &CpuWeights, name: &str, number: u64) -> Result<Self, ModelError> {
        let linear =
            |projection: &Projection, field: &str, past: u64| Linear::new(projection, weights, &format!("{name}.{field}"), number + past);
        let inputs = match projections.gates_ups[..] {
            [gates, ups] => Inputs::Separate(Box::new([linear(gates, "gate_proj", 0)?, linear(ups, "up_proj", 1)?])),
            [both] => Inputs::Fused(Box::new(linear(both, "gate_up_proj", 0)?)),
            _ => return Err(ModelError::Device(format!("expected one or two projections to gates and ups in {name}"))),
        };
        let down = linear(projections.down, "down_proj", projections.count() - 1)?;
        Ok(Self { inputs, down, activation: projections.activation })
    }

    /// The widths of gates and ups.
    fn widths(&self) -> [usize; 2] {
        [self.down.dims()[0]; 2]
    }

    /// Adds the output for `x` to `out`, each token's multiplied by its factor where there are
    /// `factors`.
    ///
    /// # Shapes
    /// - x, out: `[tokens, hidden_size]`
    pub(super) fn add(&self, x: &[f32], factors: Option<&[f32]>, tokens: &Tokens, out: &mut [f32]) -> Kept {
        let [gates, ups] = match &self.inputs {
            Inputs::Separate(separate) => linear::forward(separate.each_ref(), x, tokens),
            Inputs::Fused(both) => {
                let [both] = linear::forward([both], x, tokens);
                columns::split(&both, self.widths(), tokens.memory)
            }
        };
        let kept = Kept { gates, ups, activation: self.activation };
        self.down.add(&kept.activated(factors, tokens), tokens, out);
        kept
    }

    /// Returns the derivatives by `x`, and by the factors where there are some; adds to the
    /// gradients.
    ///
    /// # Shapes
    /// - x, by_out: `[tokens, hidden_size]`
    pub(super) fn backward(
        &self,
        kept: Kept,
        x: &[f32],
        factors: Option<&[f32]>,
        tokens: &Tokens,
        by_out: &[f32],
        gradients: &mut CpuGradients,
    ) -> (Buffer, Vec<f32>) {
        let scaled = kept.activated(factors, tokens);
        let mut by_activated = linear::backward([&self.down], &scaled, tokens, [by_out], gradients);
        drop(scaled);
        let mut by_factors = Vec::new();
        if let Some(factors) = factors {
            let width = self.down.dims()[0].max(1);
            let activated = kept.activated(None, tokens);
            let rows = by_activated.chunks_exact_mut(width).zip(activated.chunks_exact(width)).zip(factors);
            by_factors.extend(rows.map(|((by, activated), factor)| {
                let by_factor = kernels::dot(by, activated);
                by.iter_mut().for_each(|by| *by *= factor);
                by_factor
            }));
        }
        let Kept { mut gates, mut ups, activation } = kept;
        let pieces = gates.chunks_mut(PIECE).zip(ups.chunks_mut(PIECE)).zip(by_activated.chunks(PIECE));
        kernels::each(pieces, |((gates, ups), by_activated)| kernels::gate_backward(activation, gates, ups, by_activated));
        let by_x = match &self.inputs {
            Inputs::Separate(separate) => linear::backward(separate.each_ref(), x, tokens, [&gates, &ups], gradients),
            Inputs::Fused(both) => {
                let by_both = columns::join([&gates, &ups], self.widths(), tokens.memory);
                linear::backward([both], x, tokens, [&by_both], gradients)
            }
        };
        (by_x, by_factors)
    }

    /// Gives every trained parameter a gradient, of zeros if it has none yet.
    pub(super) fn touch(&self, gradients: &mut CpuGradients) {
        match &self.inputs {
            Inputs::Separate(both) => both.iter().for_each(|projection| projection.touch(gradients)),
            Inputs::Fused(both) => both.touch(gradients),
        }
        self.down.touch(gradients);
    }
}

impl Kept {
    /// activation(gates) · ups, times the factors.
    fn activated(&self, factors: Option<&[f32]>, tokens: &Tokens) -> Buffer {
        let mut out = activated(self.activation, &self.gates, &self.ups, tokens.memory);
        if let Some(factors) = factors {
            let width = out.len() / factors.len().max(1);
            out.chunks_exact_mut(width.max(1)).zip(factors).for_each(|(row, factor)| row.iter_mut().for_each(|number| *number *= factor));
        }
        out
    }
}

fn activated(activation: Activation, gates: &[f32], ups: &[f32], memory: &Memory) -> Buffer {
    let mut out = memory.any(gates.len());
    let pieces = gates.chunks(PIECE).zip(ups.chunks(PIECE)).zip(out.chunks_mut(PIECE));
    kernels::each(pieces, |((gates, ups), out)| kernels::gate(activation, gates, ups, out));
    out
}
