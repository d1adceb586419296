//! A projection, a norm, and their backward passes. Knows nothing of where in a layer they stand.

use super::parameter::{CpuGradients, Parameter};
use super::tokens::Tokens;
use super::weights::CpuWeights;
use crate::compute::cpu::kernels::{self, Buffer, Left, Memory, Right};
use crate::compute::{self, LowRank, Precision, Projection};
use crate::model::ModelError;

/// Rows of one thread at a time.
const ROWS: usize = 16;

/// A projection in training.
#[derive(Debug)]
pub(super) struct Linear {
    weight: Parameter<2>,
    bias: Option<Parameter<1>>,
    adapter: Option<Adapter>,
    precision: Precision,
}

/// Trained in place of the weight.
#[derive(Debug)]
struct Adapter {
    lora_a: Parameter<2>,
    lora_b: Parameter<2>,
    magnitude: Option<Magnitude>,
    low_rank: LowRank,
    /// The projection's number in the model. Its dropout is drawn from it.
    number: u64,
}

/// The magnitudes of an adapter's outputs (DoRA). Their factors are constants to the backward pass.
#[derive(Debug)]
struct Magnitude {
    parameter: Parameter<1>,
    /// 1 / the norm of each column of the weight with the low-rank term: `[out]`.
    inverse_norms: Vec<f32>,
    /// The magnitudes by these norms: `[out]`.
    factors: Vec<f32>,
}

impl Linear {
    pub(super) fn new(projection: &Projection, weights: &CpuWeights, name: &str, number: u64) -> Result<Self, ModelError> {
        let weight = Parameter::from_weights(weights, format!("{name}.weight"))?;
        let adapter = |adapter: &LowRank| {
            let lora_a = Parameter::from_weights(weights, format!("{name}.adapter.lora_a"))?;
            let lora_b = Parameter::from_weights(weights, format!("{name}.adapter.lora_b"))?;
            let magnitude = match &adapter.magnitude {
                Some(_) => {
                    let parameter = Parameter::from_weights(weights, format!("{name}.adapter.magnitude"))?;
                    Some(Magnitude::new(parameter, &weight, [&lora_a, &lora_b], adapter.scale()))
                }
                None => None,
            };
            Ok::<_, ModelError>(Adapter { lora_a, lora_b, magnitude, low_rank: adapter.clone(), number })
        };
        Ok(Self {
            bias: projection.bias.as_ref().map(|_| Parameter::from_weights(weights, format!("{name}.bias"))).transpose()?,
            adapter: projection.adapter.as_ref().map(adapter).transpose()?,
            precision: projection.precision(),
            weight,
        })
    }

    /// Widths of input and output.
    pub(super) fn dims(&self) -> [usize; 2] {
        self.weight.dims()
    }

    /// Adds `x · weight + bias`, and the adapter's part, to `out`.
    ///
    /// # Shapes
    /// - x: `[tokens, in]`
    /// - out: `[tokens, out]`
    pub(super) fn add(&self, x: &[f32], tokens: &Tokens, out: &mut [f32]) {
        self.add_bias(out);
        kernels::add_products_in(self.precision, Left::Rows(x), [(self.right(), &mut *out)]);
        self.add_adapter(x, tokens, out);
    }

    /// Gives every trained parameter a gradient, of zeros if it has none yet.
    pub(super) fn touch(&self, gradients: &mut CpuGradients) {
        let adapter = self.adapter.iter().flat_map(|adapter| [&adapter.lora_a, &adapter.lora_b]);
        for parameter in std::iter::once(&self.weight).chain(adapter).filter(|parameter| parameter.trained) {
            gradients.add(parameter, |_| {});
        }
        if let Some(bias) = self.bias.as_ref().filter(|bias| bias.trained) {
            gradients.add(bias, |_| {});
        }
    }

    /// `[in, out]`.
    fn right(&self) -> Right<'_> {
        Right::Rows(self.weight.values(), self.dims()[1])
    }

    fn add_bias(&self, out: &mut [f32]) {
        if let Some(bias) = &self.bias {
            let to = self.dims()[1].max(1);
            kernels::each(out.chunks_mut(kernels::rows_together(to) * to), |rows: &mut [f32]| {
                rows.chunks_exact_mut(to).for_each(|row| row.iter_mut().zip(bias.values()).for_each(|(to, from)| *to += from));
            });
        }
    }

    fn add_adapter(&self, x: &[f32], tokens: &Tokens, out: &mut [f32]) {
        if let Some(adapter) = &self.adapter {
            let hidden = adapter.hide(x, tokens);
            let x = hidden.as_deref().unwrap_or(x);
            let low = adapter.low(self.precision, x, tokens);
            let lora_b = Right::Rows(adapter.lora_b.values(), self.dims()[1]);
            let Some(magnitude) = &adapter.magnitude else {
                kernels::add_products_in(self.precision, Left::Rows(&low), [(lora_b, out)]);
                return;
            };
            let product = self.product(x);
            add_scaled(&product, |column| magnitude.factors[column] - 1.0, out, magnitude.factors.len());
            let mut term = vec![0.0; product.len()];
            kernels::products_in(self.precision, Left::Rows(&low), [(lora_b, &mut term[..])]);
            add_scaled(&term, |column| magnitude.factors[column], out, magnitude.factors.len());
        }
    }

    /// `x · weight`.
    fn product(&self, x: &[f32]) -> Vec<f32> {
        let [from, to] = self.dims();
        let mut product = vec![0.0; x.len() / from.max(1) * to];
        kernels::products_in(self.precision, Left::Rows(x), [(self.right(), &mut product[..])]);
        product
    }

    /// The backward pass to bias and adapter, and to `x` through the adapter.
    fn backward_beside(&self, x: &[f32], tokens: &Tokens, by_out: &[f32], by_x: &mut [f32], gradients: &mut CpuGradients) {
        let [from, to] = self.dims();
        if let Some(bias) = self.bias.as_ref().filter(|bias| bias.trained) {
            gradients.add(bias, |sum| kernels::add_column_sums(by_out, sum));
        }
        let Some(adapter) = &self.adapter else { return };
        let hidden = adapter.hide(x, tokens);
        let x = hidden.as_deref().unwrap_or(x);
        let rank = adapter.lora_b.dims()[0];
        // The scale is in the input of B and in the derivative by the output of A.
        let low = adapter.low(self.precision, x, tokens);
        // By the outputs of the low-rank term, and by what magnitudes change of the product.
        let (mut by_term, mut by_product) = (Vec::new(), Vec::new());
        if let Some(magnitude) = &adapter.magnitude {
            if magnitude.parameter.trained {
                let mut merged = self.product(x);
                let lora_b = Right::Rows(adapter.lora_b.values(), to);
                kernels::add_products_in(self.precision, Left::Rows(&low), [(lora_b, &mut merged[..])]);
                let normed = scaled(&merged, |column| magnitude.inverse_norms[column], to);
                let ones = vec![1.0; tokens.count()];
                gradients.add(&magnitude.parameter, |sum| kernels::add_column_sums_of_products(&normed, by_out, &ones, sum));
            }
            by_term = scaled(by_out, |column| magnitude.factors[column], to);
            by_product = scaled(by_out, |column| magnitude.factors[column] - 1.0, to);
        }
        let by_out = if adapter.magnitude.is_some() { &by_term } else { by_out };
        let mut by_low = vec![0.0; low.len()];
        let lora_b = Right::Columns(adapter.lora_b.values(), rank);
        kernels::products_in(self.precision, Left::Rows(by_out), [(lora_b, &mut by_low[..])]);
        kernels::scale(&mut by_low, adapter.low_rank.scale());
        if adapter.lora_b.trained {
            let right = Right::Rows(by_out, to);
            gradients.add_products(tokens.by_segments(self.precision), &[&adapter.lora_b], Left::Columns(&low), &[right]);
        }
        if adapter.lora_a.trained {
            let right = Right::Rows(&by_low, rank);
            gradients.add_products(tokens.by_segments(self.precision), &[&adapter.lora_a], Left::Columns(x), &[right]);
        }
        let transposed = Right::Columns(adapter.lora_a.values(), from);
        let weight = Right::Columns(self.weight.values(), from);
        if hidden.is_some() {
            let mut by_hidden = vec![0.0; by_x.len()];
            kernels::products_in(self.precision, Left::Rows(&by_low), [(transposed, &mut by_hidden[..])]);
            if adapter.magnitude.is_some() {
                kernels::add_products_in(self.precision, Left::Rows(&by_product), [(weight, &mut by_hidden[..])]);
            }
            tokens.hide(&adapter.low_rank, adapter.number, &mut by_hidden);
            by_x.iter_mut().zip(&by_hidden).for_each(|(to, from)| *to += from);
        } else {
            kernels::add_products_in(self.precision, Left::Rows(&by_low), [(transposed, &mut *by_x)]);
            if adapter.magnitude.is_some() {
                kernels::add_products_in(self.precision, Left::Rows(&by_product), [(weight, by_x)]);
            }
        }
    }
}

/// `values` with each column times its `factor`.
///
/// # Shapes
/// - values, output: `[tokens, columns]`
fn scaled(values: &[f32], factor: impl Fn(usize) -> f32, columns: usize) -> Vec<f32> {
    let mut scaled = vec![0.0; values.len()];
    add_scaled(values, factor, &mut scaled, columns);
    scaled
}

/// Adds `values` with each column times its `factor` to `out`.
///
/// # Shapes
/// - values, out: `[tokens, columns]`
fn add_scaled(values: &[f32], factor: impl Fn(usize) -> f32, out: &mut [f32], columns: usize) {
    let factors: Vec<f32> = (0..columns).map(factor).collect();
    let rows = kernels::rows_together(columns) * columns.max(1);
    kernels::each(values.chunks(rows).zip(out.chunks_mut(rows)), |(values, out): (&[f32], &mut [f32])| {
        for (values, out) in values.chunks_exact(columns.max(1)).zip(out.chunks_exact_mut(columns.max(1))) {
            out.iter_mut().zip(values).zip(&factors).for_each(|((out, value), factor)| *out += value * factor);
        }
    });
}

impl Magnitude {
    fn new(parameter: Parameter<1>, weight: &Parameter<2>, [lora_a, lora_b]: [&Parameter<2>; 2], scale: f32) -> Self {
        let ([from, to], [_, rank]) = (weight.dims(), lora_a.dims());
        let mut scaled = lora_a.values().to_vec();
        kernels::scale(&mut scaled, scale);
        let mut merged = weight.values().to_vec();
        debug_assert_eq!(scaled.len(), from * rank);
        kernels::add_product(Left::Rows(&scaled), Right::Rows(lora_b.values(), to), &mut merged);
        let mut squares = vec![0.0; to];
        kernels::add_column_sums_of_products(&merged, &merged, &vec![1.0; from], &mut squares);
        let inverse_norms: Vec<f32> = squares.into_iter().map(|sum| sum.sqrt().recip()).collect();
        let factors = parameter.values().iter().zip(&inverse_norms).map(|(magnitude, inverse)| magnitude * inverse).collect();
        Self { parameter, inverse_norms, factors }
    }
}

/// Several projections of one input: `x · weight + bias` each, plus the adapter's term.
///
/// # Shapes
/// - x: `[tokens, in]`
/// - output: `[tokens, out]` each
pub(super) fn forward<const N: usize>(projections: [&Linear; N], x: &[f32], tokens: &Tokens) -> [Buffer; N] {
    let biased = projections.iter().any(|projection| projection.bias.is_some());
    let mut outs = projections.map(|projection| {
        let length = tokens.count() * projection.dims()[1];
        if biased { tokens.memory.zeros(length) } else { tokens.memory.any(length) }
    });
    projections.iter().zip(&mut outs).for_each(|(projection, out)| projection.add_bias(out));
    let products = projections.iter().zip(&mut outs).map(|(projection, out)| (projection.right(), &mut out[..]));
    let precision = precision(&projections);
    if biased {
        kernels::add_products_in(precision, Left::Rows(x), products)
    } else {
        kernels::products_in(precision, Left::Rows(x), products)
    }
    projections.iter().zip(&mut outs).for_each(|(projection, out)| projection.add_adapter(x, tokens, out));
    outs
}

/// The backward pass of [`forward`] or [`Linear::add`]: returns the derivatives by `x`, and adds to
/// the gradients.
///
/// # Shapes
/// - x, output: `[tokens, in]`
/// - by_outs: `[tokens, out]` each
pub(super) fn backward<const N: usize>(
    projections: [&Linear; N],
    x: &[f32],
    tokens: &Tokens,
    by_outs: [&[f32]; N],
    gradients: &mut CpuGradients,
) -> Buffer {
    let mut by_x = tokens.memory.any(x.len());
    for (number, (projection, by_out)) in projections.iter().zip(by_outs).enumerate() {
        let transposed = Right::Columns(projection.weight.values(), projection.dims()[0]);
        let products = [(transposed, &mut by_x[..])];
        match number {
            0 => kernels::products_in(projection.precision, Left::Rows(by_out), products),
            _ => kernels::add_products_in(projection.precision, Left::Rows(by_out), products),
        }
        projection.backward_beside(x, tokens, by_out, &mut by_x, gradients);
    }
    let trained = projections.iter().zip(by_outs).filter(|(projection, _)| projection.weight.trained);
    let (weights, rights): (Vec<_>, Vec<_>) =
        trained.map(|(projection, by_out)| (&projection.weight, Right::Rows(by_out, projection.dims()[1]))).unzip();
    gradients.add_products(tokens.by_segments(precision(&projections)), &weights, Left::Columns(x), &rights);
    by_x
}

/// The precision of projections of one input, which is that of their model.
fn precision<const N: usize>(projections: &[&Linear; N]) -> Precision {
    projections.first().map_or(Precision::F32, |projection| projection.precision)
}

impl Adapter {
    /// `x` after dropout; `None` when nothing is dropped.
    fn hide(&self, x: &[f32], tokens: &Tokens) -> Option<Vec<f32>> {
        tokens.drops(&self.low_rank).then(|| {
            let mut x = x.to_vec();
            tokens.hide(&self.low_rank, self.number, &mut x);
            x
        })
    }

    /// `scale · x · lora_a`.
    fn low(&self, precision: Precision, x: &[f32], tokens: &Tokens) -> Vec<f32> {
        let [_, rank] = self.lora_a.dims();
        let mut low = vec![0.0; tokens.count() * rank];
        kernels::products_in(precision, Left::Rows(x), [(Right::Rows(self.lora_a.values(), rank), &mut low[..])]);
        kernels::scale(&mut low, self.low_rank.scale());
        low
    }
}

/// An RMSNorm in training.
#[derive(Debug)]
pub(super) struct Norm {
    weight: Parameter<1>,
    /// The weights with their offset; `None` without one.
    factors: Option<Vec<f32>>,
    epsilon: f32,
}

impl Norm {
    pub(super) fn new(norm: &compute::Norm, weights: &CpuWeights, name: &str) -> Result<Self, ModelError> {
        let weight = Parameter::from_weights(weights, format!("{name}.gamma"))?;
        let offset = norm.offset();
        let factors = (offset != 0.0).then(|| weight.values().iter().map(|weight| weight + offset).collect());
        Ok(Self { weight, factors, epsilon: norm.epsilon() })
    }

    fn factors(&self) -> &[f32] {
        self.factors.as_deref().unwrap_or(self.weight.values())
    }

    /// # Shapes
    /// - x, output: `[rows, width]`
    pub(super) fn forward(&self, x: &[f32], memory: &Memory) -> Buffer {
        let mut out = memory.any(x.len());
        kernels::rms_norm(x, self.factors(), self.epsilon, &mut out);
        out
    }

    /// Adds to the derivatives by `x`, and to the weight's gradient.
    ///
    /// # Shapes
    /// - x, by_out, by_x: `[rows, width]`
    pub(super) fn backward(&self, x: &[f32], by_out: &[f32], by_x: &mut [f32], gradients: &mut CpuGradients) {
        let weight = self.factors();
        let width = weight.len().max(1);
        let mut scales = vec![0.0; x.len() / width];
        let pieces =
            x.chunks(ROWS * width).zip(by_out.chunks(ROWS * width)).zip(by_x.chunks_mut(ROWS * width)).zip(scales.chunks_mut(ROWS));
        kernels::each(pieces, |(((x, by_out), by_x), scales)| {
            kernels::rms_norm_backward(x, weight, self.epsilon, by_out, by_x, scales);
        });
        if self.weight.trained {
            gradients.add(&self.weight, |sum| kernels::add_column_sums_of_products(x, by_out, &scales, sum));
        }
    }
}
