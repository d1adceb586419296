//! An MLP, or one expert, in training, and its backward pass. Knows nothing of the layer around it.

use super::linear::{self, Linear};
use super::parameter::CpuGradients;
use super::tokens::Tokens;
use super::weights::CpuWeights;
use crate::compute::Mlp;
use crate::compute::cpu::kernels::{self, Buffer, Memory, PIECE};
use crate::model::ModelError;

/// Projections of an MLP.
pub(super) const PROJECTIONS: u64 = 3;

/// An MLP's parameters.
#[derive(Debug)]
pub(super) struct TrainedMlp {
    gates: Linear,
    ups: Linear,
    down: Linear,
}

/// The inputs of the backward pass: `[tokens, intermediate_size]` each.
#[derive(Debug)]
pub(super) struct Kept {
    gates: Buffer,
    ups: Buffer,
}

impl TrainedMlp {
    /// `number` is the number of its first projection in the model.
    pub(super) fn new(mlp: &Mlp, weights: &CpuWeights, name: &str, number: u64) -> Result<Self, ModelError> {
        Ok(Self {
            gates: Linear::new(&mlp.gate_proj, weights, &format!("{name}.gate_proj"), number)?,
            ups: Linear::new(&mlp.up_proj, weights, &format!("{name}.up_proj"), number + 1)?,
            down: Linear::new(&mlp.down_proj, weights, &format!("{name}.down_proj"), number + 2)?,
        })
    }

    /// Adds the output for `x` to `out`, each token's multiplied by its factor where there are
    /// `factors`.
    ///
    /// # Shapes
    /// - x, out: `[tokens, hidden_size]`
    pub(super) fn add(&self, x: &[f32], factors: Option<&[f32]>, tokens: &Tokens, out: &mut [f32]) -> Kept {
        let [gates, ups] = linear::forward([&self.gates, &self.ups], x, tokens);
        let kept = Kept { gates, ups };
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
        let Kept { mut gates, mut ups } = kept;
        let pieces = gates.chunks_mut(PIECE).zip(ups.chunks_mut(PIECE)).zip(by_activated.chunks(PIECE));
        kernels::each(pieces, |((gates, ups), by_activated)| kernels::gate_backward(gates, ups, by_activated));
        (linear::backward([&self.gates, &self.ups], x, tokens, [&gates, &ups], gradients), by_factors)
    }

    /// Gives every trained parameter a gradient, of zeros if it has none yet.
    pub(super) fn touch(&self, gradients: &mut CpuGradients) {
        [&self.gates, &self.ups, &self.down].into_iter().for_each(|projection| projection.touch(gradients));
    }
}

impl Kept {
    /// silu(gates) · ups, times the factors.
    fn activated(&self, factors: Option<&[f32]>, tokens: &Tokens) -> Buffer {
        let mut out = activated(&self.gates, &self.ups, tokens.memory);
        if let Some(factors) = factors {
            let width = out.len() / factors.len().max(1);
            out.chunks_exact_mut(width.max(1)).zip(factors).for_each(|(row, factor)| row.iter_mut().for_each(|number| *number *= factor));
        }
        out
    }
}

fn activated(gates: &[f32], ups: &[f32], memory: &Memory) -> Buffer {
    let mut out = memory.any(gates.len());
    let pieces = gates.chunks(PIECE).zip(ups.chunks(PIECE)).zip(out.chunks_mut(PIECE));
    kernels::each(pieces, |((gates, ups), out)| kernels::gate(gates, ups, out));
    out
}
