//! A projection, a norm, and the ways back through them. Knows nothing of where in a layer they stand.

use burn::nn::RmsNorm;
use rayon::prelude::*;

use super::parameter::{CpuGradients, Parameter};
use super::tokens::Tokens;
use super::weights::CpuWeights;
use crate::kernels::{self, Left, Packed};
use crate::model::{LowRank, ModelError, Projection};

/// Rows that one thread works on at a time.
const ROWS: usize = 16;

/// A projection in training.
#[derive(Debug)]
pub(super) struct Linear {
    weight: Parameter<2>,
    bias: Option<Parameter<1>>,
    adapter: Option<Adapter>,
}

/// What is trained in place of the weight.
#[derive(Debug)]
struct Adapter {
    lora_a: Parameter<2>,
    lora_b: Parameter<2>,
    low_rank: LowRank,
    /// The projection's number among all of the model's, which its dropout is drawn from.
    number: u64,
}

impl Linear {
    pub(super) fn of(projection: &Projection, weights: &CpuWeights, name: &str, number: u64) -> Result<Self, ModelError> {
        let adapter = |adapter: &LowRank| {
            Ok::<_, ModelError>(Adapter {
                lora_a: Parameter::of(weights, format!("{name}.adapter.lora_a"))?,
                lora_b: Parameter::of(weights, format!("{name}.adapter.lora_b"))?,
                low_rank: adapter.clone(),
                number,
            })
        };
        Ok(Self {
            weight: Parameter::of(weights, format!("{name}.weight"))?,
            bias: projection.bias.as_ref().map(|_| Parameter::of(weights, format!("{name}.bias"))).transpose()?,
            adapter: projection.adapter.as_ref().map(adapter).transpose()?,
        })
    }

    /// Width of what goes in, and of what comes out.
    pub(super) fn dims(&self) -> [usize; 2] {
        self.weight.dims()
    }

    /// `x · weight + bias`, and the adapter's part.
    ///
    /// # Shapes
    /// - x: `[tokens, in]`
    /// - output: `[tokens, out]`
    pub(super) fn forward(&self, x: &[f32], tokens: &Tokens) -> Vec<f32> {
        let mut out = kernels::zeros(tokens.count() * self.dims()[1]);
        self.add(x, tokens, &mut out);
        out
    }

    /// Adds what [`Self::forward`] gives to `out`.
    pub(super) fn add(&self, x: &[f32], tokens: &Tokens, out: &mut [f32]) {
        let [from, to] = self.dims();
        if let Some(bias) = &self.bias {
            out.par_chunks_mut(to.max(1)).for_each(|row| row.iter_mut().zip(bias.values()).for_each(|(to, from)| *to += from));
        }
        let weight = Packed::of_rows(from, &[(self.weight.values(), to)]);
        kernels::add_product(Left::Rows(x), &weight, out);
        if let Some(adapter) = &self.adapter {
            let hidden = adapter.hide(x, tokens);
            let low = adapter.low(hidden.as_deref().unwrap_or(x), tokens);
            let lora_b = Packed::of_rows(adapter.lora_b.dims()[0], &[(adapter.lora_b.values(), to)]);
            kernels::add_product(Left::Rows(&low), &lora_b, out);
        }
    }

    /// Adds to the derivatives by `x`, and to the gradients of what is trained.
    ///
    /// # Shapes
    /// - x, by_x: `[tokens, in]`
    /// - by_out: `[tokens, out]`
    pub(super) fn backward(&self, x: &[f32], tokens: &Tokens, by_out: &[f32], by_x: &mut [f32], gradients: &mut CpuGradients) {
        let [from, to] = self.dims();
        let turned = Packed::of_columns(to, from, self.weight.values());
        kernels::add_product(Left::Rows(by_out), &turned, by_x);
        drop(turned);
        if let Some(bias) = self.bias.as_ref().filter(|bias| bias.trained) {
            kernels::add_column_sums(by_out, gradients.of(bias));
        }
        let by_out_packed = || Packed::of_rows(tokens.count(), &[(by_out, to)]);
        if self.weight.trained {
            kernels::add_product(Left::Columns(x), &by_out_packed(), gradients.of(&self.weight));
        }
        if let Some(adapter) = &self.adapter {
            let hidden = adapter.hide(x, tokens);
            let x = hidden.as_deref().unwrap_or(x);
            let rank = adapter.lora_b.dims()[0];
            // The scale is in what B sees and in what A gets back.
            let low = adapter.low(x, tokens);
            let mut by_low = vec![0.0; low.len()];
            kernels::product(Left::Rows(by_out), &Packed::of_columns(to, rank, adapter.lora_b.values()), &mut by_low);
            kernels::scale(&mut by_low, adapter.low_rank.scale());
            if adapter.lora_b.trained {
                kernels::add_product(Left::Columns(&low), &by_out_packed(), gradients.of(&adapter.lora_b));
            }
            if adapter.lora_a.trained {
                let by_low = Packed::of_rows(tokens.count(), &[(&by_low, rank)]);
                kernels::add_product(Left::Columns(x), &by_low, gradients.of(&adapter.lora_a));
            }
            let turned = Packed::of_columns(rank, from, adapter.lora_a.values());
            match hidden.is_some() {
                false => kernels::add_product(Left::Rows(&by_low), &turned, by_x),
                true => {
                    let mut by_hidden = vec![0.0; by_x.len()];
                    kernels::product(Left::Rows(&by_low), &turned, &mut by_hidden);
                    tokens.hide(&adapter.low_rank, adapter.number, &mut by_hidden);
                    by_x.iter_mut().zip(&by_hidden).for_each(|(to, from)| *to += from);
                }
            }
        }
    }
}

impl Adapter {
    /// What dropout leaves of `x`; `None` when that is all of it.
    fn hide(&self, x: &[f32], tokens: &Tokens) -> Option<Vec<f32>> {
        tokens.drops(&self.low_rank).then(|| {
            let mut x = x.to_vec();
            tokens.hide(&self.low_rank, self.number, &mut x);
            x
        })
    }

    /// `scale · x · lora_a`.
    fn low(&self, x: &[f32], tokens: &Tokens) -> Vec<f32> {
        let [from, rank] = self.lora_a.dims();
        let mut low = vec![0.0; tokens.count() * rank];
        kernels::product(Left::Rows(x), &Packed::of_rows(from, &[(self.lora_a.values(), rank)]), &mut low);
        kernels::scale(&mut low, self.low_rank.scale());
        low
    }
}

/// An RMSNorm in training.
#[derive(Debug)]
pub(super) struct Norm {
    weight: Parameter<1>,
    epsilon: f32,
}

impl Norm {
    pub(super) fn of(norm: &RmsNorm, weights: &CpuWeights, name: &str) -> Result<Self, ModelError> {
        Ok(Self { weight: Parameter::of(weights, format!("{name}.gamma"))?, epsilon: norm.epsilon as f32 })
    }

    /// # Shapes
    /// - x, output: `[rows, width]`
    pub(super) fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut out = kernels::zeros(x.len());
        kernels::rms_norm(x, self.weight.values(), self.epsilon, &mut out);
        out
    }

    /// Adds to the derivatives by `x`, and to the weight's gradient.
    ///
    /// # Shapes
    /// - x, by_out, by_x: `[rows, width]`
    pub(super) fn backward(&self, x: &[f32], by_out: &[f32], by_x: &mut [f32], gradients: &mut CpuGradients) {
        let weight = self.weight.values();
        let width = weight.len().max(1);
        let mut scales = vec![0.0; x.len() / width];
        let pieces = x.par_chunks(ROWS * width).zip(by_out.par_chunks(ROWS * width));
        let pieces = pieces.zip(by_x.par_chunks_mut(ROWS * width)).zip(scales.par_chunks_mut(ROWS));
        pieces.for_each(|(((x, by_out), by_x), scales)| kernels::rms_norm_backward(x, weight, self.epsilon, by_out, by_x, scales));
        if self.weight.trained {
            kernels::add_column_sums_of_products(x, by_out, &scales, gradients.of(&self.weight));
        }
    }
}
