//! A model's weights in the layout for a GPU: in its memory, beside each other where they have one
//! input, and in tiles. Knows nothing of their use.

use burn::tensor::bf16;
use cubecl::client::Client;
use cubecl::ir::ElemType;
use cubecl::std::tensor::TensorHandle;

use crate::compute::gpu::kernels::TILE;
use crate::compute::gpu::{BF16, F32};
use crate::compute::reference::attention::AttentionShape;
use crate::compute::reference::mlp::MlpProjections;
use crate::compute::reference::parameters::host_values;
use crate::compute::reference::projection::FusedProjection;
use crate::compute::{Attention, Layer, Norm, Projection};
use crate::model::ModelError;
use crate::model::parameters::transpose;

/// One layer's weights; projections of one input stand beside each other.
pub(super) struct GpuLayer {
    pub(super) input_norm: GpuNorm,
    pub(super) qkv: GpuProjection,
    /// `[2, head_dim]`, of queries and of keys.
    pub(super) head_norms: Option<GpuNorm>,
    pub(super) output: GpuProjection,
    pub(super) mlp_norm: GpuNorm,
    pub(super) gate_up: GpuProjection,
    pub(super) down: GpuProjection,
    pub(super) shape: AttentionShape,
}

/// The right factor of a product.
pub(super) struct Weight {
    pub(super) numbers: TensorHandle,
    /// Whether they stand in [`tiles`] of their transpose, else as the transpose's rows.
    pub(super) in_tiles: bool,
    pub(super) inner: usize,
    pub(super) columns: usize,
}

pub(super) struct GpuProjection {
    pub(super) weight: Weight,
    /// `[out]`, f32.
    pub(super) bias: Option<TensorHandle>,
}

pub(super) struct GpuNorm {
    /// f32.
    pub(super) weight: TensorHandle,
    pub(super) epsilon: f32,
}

impl GpuLayer {
    pub(super) fn new(layer: Layer, upload: &Upload<'_>) -> Result<Self, ModelError> {
        let attention: &Attention = &layer.self_attn;
        let shape = attention.shape();
        let missing = || ModelError::Device("expected a layer with an MLP and a norm before its attention, found none".to_string());
        let MlpProjections { gates_ups, down, .. } = layer.mlp_projections().ok_or_else(missing)?;
        let head_norms = match (&attention.q_norm, &attention.k_norm) {
            (Some(queries), Some(keys)) => {
                let both = [host_values(queries.gamma.val())?, host_values(keys.gamma.val())?].concat();
                Some(GpuNorm { weight: upload.numbers(&both), epsilon: queries.epsilon() })
            }
            _ => None,
        };
        Ok(Self {
            input_norm: upload.norm(layer.input_layernorm.as_ref().ok_or_else(missing)?)?,
            qkv: upload.projection(&attention.inputs())?,
            head_norms,
            output: upload.projection(&[&attention.o_proj])?,
            mlp_norm: upload.norm(&layer.post_attention_layernorm)?,
            gate_up: upload.projection(&gates_ups)?,
            down: upload.projection(&[down])?,
            // No sequence is longer: positions are counted in i32.
            shape: AttentionShape { window: shape.window.min(i32::MAX as usize), ..shape },
        })
    }

    /// Width inside the MLP.
    pub(super) fn inner(&self) -> usize {
        self.down.weight.inner
    }
}

/// Where weights go.
pub(super) struct Upload<'a> {
    pub(super) client: &'a Client,
    pub(super) element: ElemType,
}

impl Upload<'_> {
    pub(super) fn numbers(&self, values: &[f32]) -> TensorHandle {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        TensorHandle::new_contiguous([values.len()], self.client.create_from_slice(&bytes), F32)
    }

    pub(super) fn matrix(&self, values: &[f32], shape: [usize; 2]) -> TensorHandle {
        let bytes: Vec<u8> = match self.element {
            BF16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
        TensorHandle::new_contiguous(shape, self.client.create_from_slice(&bytes), self.element)
    }

    /// A weight from the rows of its transpose: `[columns, inner]`.
    pub(super) fn weight(&self, values: Vec<f32>, columns: usize, inner: usize) -> Weight {
        let in_tiles = self.element == BF16 && columns.is_multiple_of(TILE) && inner.is_multiple_of(TILE);
        let values = if in_tiles { tiles(&values, inner) } else { values };
        Weight { numbers: self.matrix(&values, [columns, inner]), in_tiles, inner, columns }
    }

    pub(super) fn norm(&self, norm: &Norm) -> Result<GpuNorm, ModelError> {
        Ok(GpuNorm { weight: self.numbers(&host_values(norm.factors())?), epsilon: norm.epsilon() })
    }

    /// Projections of one input beside each other, adapters merged in.
    pub(super) fn projection(&self, projections: &[&Projection]) -> Result<GpuProjection, ModelError> {
        let FusedProjection { rows, parts, bias } = FusedProjection::new(projections)?;
        let columns = parts.iter().map(|(_, columns)| columns).sum();
        let values = parts.iter().flat_map(|(part, columns)| transpose(part, rows, *columns)).collect();
        Ok(GpuProjection { weight: self.weight(values, columns, rows), bias: bias.map(|bias| self.numbers(&bias)) })
    }
}

/// A matrix `[rows, width]` in tiles: those of the first [`TILE`] rows, one after the other and
/// each row by row, then those of the next.
pub(in crate::compute::gpu) fn tiles(values: &[f32], width: usize) -> Vec<f32> {
    let mut tiled = Vec::with_capacity(values.len());
    for rows in values.chunks_exact(width * TILE) {
        for column in (0..width).step_by(TILE) {
            for row in rows.chunks_exact(width) {
                tiled.extend_from_slice(&row[column..column + TILE]);
            }
        }
    }
    tiled
}
