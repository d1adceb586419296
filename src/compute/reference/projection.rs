//! A projection: the one kind of layer with a weight matrix inside the transformer, with or without
//! a bias or an adapter.
//!
//! Knows nothing of attention, heads or checkpoints.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};

use super::low_rank::LowRank;
use super::parameters::host_values;
use super::products::linear;
use crate::compute::Precision;
use crate::model::ModelError;

/// `y = x · weight + bias`, plus the term of an adapter.
#[derive(Module, Debug)]
pub struct Projection {
    /// `[in, out]`: the transpose of a checkpoint's.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Trained in place of the weight; `None` unless a checkpoint was loaded to be adapted.
    pub adapter: Option<LowRank>,
    #[module(skip)]
    precision: Precision,
}

impl Projection {
    /// A projection with parameters made at their first use; a checkpoint gives them their values
    /// before.
    pub(crate) fn unfilled(from: usize, to: usize, bias: bool, device: &Device) -> Self {
        let weight = Initializer::Zeros.init([from, to], device);
        let bias = bias.then(|| Initializer::Zeros.init([to], device));
        Self { weight, bias, adapter: None, precision: Precision::F32 }
    }

    /// The weight with the adapter's part added, `[in, out]`.
    pub(crate) fn merged(&self) -> Tensor<2> {
        match &self.adapter {
            None => self.weight.val(),
            Some(adapter) => adapter.merged(self.weight.val()),
        }
    }

    /// The precision of its products.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    pub(crate) fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }

    /// # Shapes
    /// - x: `[.., in]`
    /// - output: `[.., out]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let bias = self.bias.as_ref().map(|bias| bias.val());
        match &self.adapter {
            None => linear(self.precision, x, self.weight.val(), bias),
            Some(adapter) if adapter.magnitude.is_none() => {
                linear(self.precision, x.clone(), self.weight.val(), bias) + adapter.forward(self.precision, x)
            }
            Some(adapter) => {
                let product = linear(self.precision, x.clone(), self.weight.val(), None);
                let out = product.clone() + adapter.beside(self.precision, x, self.weight.val(), product);
                match bias {
                    Some(bias) => {
                        let mut shape = [1; D];
                        shape[D - 1] = bias.dims()[0];
                        out + bias.reshape(shape)
                    }
                    None => out,
                }
            }
        }
    }
}

/// Projections of one input beside each other, adapters merged in, as numbers.
pub(crate) struct FusedProjection {
    /// The width of their input.
    pub(crate) rows: usize,
    /// Each one's weight, `[rows, columns]`, and its columns.
    pub(crate) parts: Vec<(Vec<f32>, usize)>,
    /// Of all columns; `None` when no projection has one.
    pub(crate) bias: Option<Vec<f32>>,
}

impl FusedProjection {
    /// # Errors
    /// When a parameter is not f32.
    pub(crate) fn new(projections: &[&Projection]) -> Result<Self, ModelError> {
        let mut parts = Vec::with_capacity(projections.len());
        let (mut bias, mut biased) = (Vec::new(), false);
        let mut rows = 0;
        for projection in projections {
            let weight = projection.merged();
            let [from, to] = weight.dims();
            rows = from;
            match &projection.bias {
                Some(values) => {
                    biased = true;
                    bias.extend(host_values(values.val())?);
                }
                None => bias.resize(bias.len() + to, 0.0),
            }
            parts.push((host_values(weight)?, to));
        }
        Ok(Self { rows, parts, bias: biased.then_some(bias) })
    }
}
