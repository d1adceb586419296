//! A model's weights as a GPU wants them: in its memory, beside each other where they have one input, and in tiles. Knows nothing of what is computed.

use burn::tensor::bf16;
use cubecl::client::Client;
use cubecl::ir::ElemType;
use cubecl::std::tensor::TensorHandle;

use super::kernels::TILE;
use super::{BF16, F32};
use crate::model::parameters::transpose;
use crate::model::{Attention, Layer, ModelError, Projection};

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
    pub(super) heads: usize,
    pub(super) key_value_heads: usize,
    pub(super) head_dim: usize,
    pub(super) rotary: bool,
    pub(super) window: usize,
}

/// What rows are multiplied with.
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
        let head_dim = attention.head_dim();
        let [_, queries] = attention.q_proj.weight.val().dims();
        let [_, keys] = attention.k_proj.weight.val().dims();
        let head_norms = match (&attention.q_norm, &attention.k_norm) {
            (Some(queries), Some(keys)) => {
                let both = [read(queries.gamma.val())?, read(keys.gamma.val())?].concat();
                Some(GpuNorm { weight: upload.numbers(&both), epsilon: queries.epsilon as f32 })
            }
            _ => None,
        };
        Ok(Self {
            input_norm: upload.norm(&layer.input_layernorm)?,
            qkv: upload.projection(&[&attention.q_proj, &attention.k_proj, &attention.v_proj])?,
            head_norms,
            output: upload.projection(&[&attention.o_proj])?,
            mlp_norm: upload.norm(&layer.post_attention_layernorm)?,
            gate_up: upload.projection(&[&layer.mlp.gate_proj, &layer.mlp.up_proj])?,
            down: upload.projection(&[&layer.mlp.down_proj])?,
            heads: queries / head_dim,
            key_value_heads: keys / head_dim,
            head_dim,
            rotary: attention.is_rotary(),
            // No sequence is longer: positions are counted in i32.
            window: attention.sliding_window().unwrap_or(i32::MAX as usize),
        })
    }

    pub(super) fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.key_value_heads) * self.head_dim
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

    /// A weight, of which the transpose's rows are given: `[columns, inner]`.
    pub(super) fn weight(&self, values: Vec<f32>, columns: usize, inner: usize) -> Weight {
        let in_tiles = self.element == BF16 && columns.is_multiple_of(TILE) && inner.is_multiple_of(TILE);
        let values = if in_tiles { tiles(&values, inner) } else { values };
        Weight { numbers: self.matrix(&values, [columns, inner]), in_tiles, inner, columns }
    }

    pub(super) fn norm(&self, norm: &burn::nn::RmsNorm) -> Result<GpuNorm, ModelError> {
        Ok(GpuNorm { weight: self.numbers(&read(norm.gamma.val())?), epsilon: norm.epsilon as f32 })
    }

    /// Projections of one input beside each other, adapters merged in.
    pub(super) fn projection(&self, projections: &[&Projection]) -> Result<GpuProjection, ModelError> {
        let (mut parts, mut bias, mut biased) = (Vec::with_capacity(projections.len()), Vec::new(), false);
        let (mut rows, mut columns) = (0, 0);
        for projection in projections {
            let weight = projection.merged();
            let [from, to] = weight.dims();
            (rows, columns) = (from, columns + to);
            match &projection.bias {
                Some(values) => {
                    biased = true;
                    bias.extend(read(values.val())?);
                }
                None => bias.resize(bias.len() + to, 0.0),
            }
            parts.push((read(weight)?, to));
        }
        let values = parts.iter().flat_map(|(part, width)| transpose(part, rows, *width)).collect();
        Ok(GpuProjection { weight: self.weight(values, columns, rows), bias: biased.then(|| self.numbers(&bias)) })
    }
}

/// A matrix `[rows, width]` in tiles: those of the first [`TILE`] rows, one after the other and each row by row, then those of the next.
pub(super) fn tiles(values: &[f32], width: usize) -> Vec<f32> {
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

/// A parameter's numbers.
pub(super) fn read<const D: usize>(tensor: burn::tensor::Tensor<D>) -> Result<Vec<f32>, ModelError> {
    tensor.try_into_vec_as::<f32>().map_err(|error| ModelError::Device(format!("cannot read the weights back: {error}")))
}
