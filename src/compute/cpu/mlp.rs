//! Projections and MLPs of sampling, laid out for the CPU. Knows nothing of attention or layers.

use super::kernels::{self, Left, Packed};
use crate::compute::reference::mlp::MlpProjections;
use crate::compute::reference::projection::FusedProjection;
use crate::compute::{Precision, Projection};
use crate::model::{Activation, ModelError};

/// Projections of one input beside each other.
#[derive(Debug)]
pub(super) struct CpuProjection {
    pub(super) weight: Packed,
    bias: Option<Vec<f32>>,
}

/// An MLP, or one expert.
#[derive(Debug)]
pub(super) struct CpuMlp {
    /// Gates, then ups.
    gate_up: CpuProjection,
    down: CpuProjection,
    activation: Activation,
}

/// Memory of an MLP's forward pass.
#[derive(Debug, Default)]
pub(super) struct MlpScratch {
    gate_up: Vec<f32>,
    activated: Vec<f32>,
}

/// A factor of products of this precision.
pub(super) fn packed_in(precision: Precision, packed: Packed) -> Packed {
    match precision {
        Precision::F32 => packed.narrowed(),
        Precision::Bf16 => packed.rounded(),
    }
}

impl CpuProjection {
    /// Adapters are merged in.
    pub(super) fn fused(projections: &[&Projection]) -> Result<Self, ModelError> {
        let FusedProjection { rows, parts, bias } = FusedProjection::new(projections)?;
        let parts: Vec<(&[f32], usize)> = parts.iter().map(|(values, columns)| (values.as_slice(), *columns)).collect();
        let precision = projections.first().map_or(Precision::F32, |projection| projection.precision());
        Ok(Self { weight: packed_in(precision, Packed::of_rows(rows, &parts)), bias })
    }

    /// `out = x · weight + bias`.
    pub(super) fn apply(&self, x: &[f32], out: &mut Vec<f32>) {
        let width = self.weight.columns();
        out.resize(x.len() / self.weight.rows().max(1) * width, 0.0);
        match &self.bias {
            Some(bias) => {
                out.chunks_exact_mut(width.max(1)).for_each(|row| row.copy_from_slice(bias));
                kernels::add_product(Left::Rows(x), &self.weight, out);
            }
            None => kernels::product(Left::Rows(x), &self.weight, out),
        }
    }

    /// `out += x · weight + bias`.
    pub(super) fn add(&self, x: &[f32], out: &mut [f32]) {
        if let Some(bias) = &self.bias {
            out.chunks_exact_mut(bias.len().max(1)).for_each(|row| row.iter_mut().zip(bias).for_each(|(to, from)| *to += from));
        }
        kernels::add_product(Left::Rows(x), &self.weight, out);
    }
}

impl CpuMlp {
    pub(super) fn new(projections: &MlpProjections<'_>) -> Result<Self, ModelError> {
        let MlpProjections { gates_ups, down, activation } = projections;
        Ok(Self { gate_up: CpuProjection::fused(gates_ups)?, down: CpuProjection::fused(&[down])?, activation: *activation })
    }

    /// Adds the MLP's output to `out`.
    ///
    /// # Shapes
    /// - x, out: `[tokens, hidden_size]`
    pub(super) fn add(&self, x: &[f32], out: &mut [f32], scratch: &mut MlpScratch) {
        self.activate(x, scratch);
        self.down.add(&scratch.activated, out);
    }

    /// The MLP's output, each token's multiplied by its factor.
    ///
    /// # Shapes
    /// - x, out: `[tokens, hidden_size]`
    pub(super) fn apply(&self, x: &[f32], factors: &[f32], out: &mut Vec<f32>, scratch: &mut MlpScratch) {
        self.activate(x, scratch);
        let rows = scratch.activated.chunks_exact_mut(self.down.weight.rows().max(1)).zip(factors);
        rows.for_each(|(row, factor)| row.iter_mut().for_each(|number| *number *= factor));
        self.down.apply(&scratch.activated, out);
    }

    fn activate(&self, x: &[f32], scratch: &mut MlpScratch) {
        let MlpScratch { gate_up, activated } = scratch;
        self.gate_up.apply(x, gate_up);
        let width = self.down.weight.rows();
        activated.resize(gate_up.len() / 2, 0.0);
        kernels::swiglu(self.activation, gate_up, width, activated);
    }
}
