//! An adapter beside a projection: the low-rank term (LoRA, Hu et al. 2021, arXiv 2106.09685), its
//! dropout, and magnitudes (DoRA, Liu et al. 2024, arXiv 2402.09353).
//!
//! Without magnitudes the product of the two matrices is never formed: a token goes through `rank`
//! numbers. Knows nothing of files.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::products::linear;
use crate::compute::Precision;
use crate::model::adapter::Factors;
use crate::model::adapter_modules::AdaptedProjection;

/// `y = scale · dropout(x) · lora_a · lora_b`, and with magnitudes what scales the columns of the
/// weight with this term to them.
#[derive(Module, Debug)]
pub struct LowRank {
    /// `[in, rank]`: the transpose of PEFT's.
    pub lora_a: Param<Tensor<2>>,
    /// `[rank, out]`: the transpose of PEFT's.
    pub lora_b: Param<Tensor<2>>,
    /// `[out]`, in DoRA.
    pub magnitude: Option<Param<Tensor<1>>>,
    scale: f64,
    dropout: f64,
    seed: u64,
    /// The mask of a forward pass is drawn from these numbers and the seed; `None` drops nothing.
    #[module(skip)]
    mask: Option<[u64; 3]>,
}

impl LowRank {
    /// A term of these values beside a `projection`; dropout is drawn from `seed`. Its parameters
    /// are numbered from `first_id`, so that they have the same order in every process.
    pub(crate) fn new(factors: Factors, projection: &AdaptedProjection, dropout: f64, seed: u64, first_id: u64, device: &Device) -> Self {
        fn param<const D: usize>(values: Vec<f32>, shape: [usize; D], id: u64, device: &Device) -> Param<Tensor<D>> {
            let mut param: Param<Tensor<D>> = Param::from_data(TensorData::new(values, shape), device);
            param.id = ParamId::from(id);
            param
        }
        let (rank, [from, to]) = (projection.rank, projection.dims);
        Self {
            lora_a: param(factors.lora_a, [from, rank], first_id, device),
            lora_b: param(factors.lora_b, [rank, to], first_id + 1, device),
            magnitude: factors.magnitude.map(|magnitude| param(magnitude, [to], first_id + 2, device)),
            scale: projection.scale,
            dropout,
            seed,
            mask: None,
        }
    }

    /// The same term with a dropout mask drawn from its seed and these `numbers`.
    pub(crate) fn masked(self, numbers: [u64; 3]) -> Self {
        Self { mask: (self.dropout > 0.0).then_some(numbers), ..self }
    }

    /// The factor of the product of the matrices.
    pub(crate) fn scale(&self) -> f32 {
        self.scale as f32
    }

    /// Whether dropout changes anything.
    pub(crate) fn drops(&self) -> bool {
        self.dropout > 0.0
    }

    /// Multiplies inputs by a dropout mask drawn from the term's seed and these `numbers`.
    pub(crate) fn hide(&self, [step, item, number]: [u64; 3], x: &mut [f32]) {
        let mask = mask([self.seed, step, item, number], self.dropout, x.len());
        x.iter_mut().zip(mask).for_each(|(x, factor)| *x *= factor);
    }

    /// A `weight` with the adapter's part: `[in, out]`.
    pub(crate) fn merged(&self, weight: Tensor<2>) -> Tensor<2> {
        let merged = weight.clone() + self.lora_a.val().matmul(self.lora_b.val()).mul_scalar(self.scale);
        match self.factors(weight) {
            Some(factors) => merged * factors,
            None => merged,
        }
    }

    /// With magnitudes, each divided by the norm of the weight's column with the term: `[1, out]`.
    /// As in the paper's section 4.3 the norms are constants to the backward pass.
    fn factors(&self, weight: Tensor<2>) -> Option<Tensor<2>> {
        let magnitude = self.magnitude.as_ref()?.val();
        let merged = weight.detach() + self.lora_a.val().detach().matmul(self.lora_b.val().detach()).mul_scalar(self.scale);
        Some(magnitude.unsqueeze::<2>() / merged.square().sum_dim(0).sqrt())
    }

    /// The part to add to `product`, that of `x` and the `weight` without a bias.
    ///
    /// # Shapes
    /// - x: `[.., in]`
    /// - weight: `[in, out]`
    /// - product, output: `[.., out]`
    pub(crate) fn beside<const D: usize>(&self, precision: Precision, x: Tensor<D>, weight: Tensor<2>, product: Tensor<D>) -> Tensor<D> {
        let Some(factors) = self.factors(weight.clone()) else { return self.forward(precision, x) };
        let mut shape = [1; D];
        shape[D - 1] = factors.dims()[1];
        let factors: Tensor<D> = factors.reshape(shape);
        let x = self.hidden(x);
        let product = if self.mask.is_some() { linear(precision, x.clone(), weight, None) } else { product };
        product * factors.clone().sub_scalar(1.0) + self.term(precision, x) * factors
    }

    /// The term, without magnitudes.
    ///
    /// # Shapes
    /// - x: `[.., in]`
    /// - output: `[.., out]`
    pub fn forward<const D: usize>(&self, precision: Precision, x: Tensor<D>) -> Tensor<D> {
        self.term(precision, self.hidden(x))
    }

    fn term<const D: usize>(&self, precision: Precision, x: Tensor<D>) -> Tensor<D> {
        let low = linear(precision, x, self.lora_a.val(), None).mul_scalar(self.scale);
        linear(precision, low, self.lora_b.val(), None)
    }

    /// `x` after dropout.
    fn hidden<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self.mask {
            None => x,
            Some([step, item, number]) => {
                let mask = mask([self.seed, step, item, number], self.dropout, x.shape().num_elements());
                let mask = Tensor::from_data(TensorData::new(mask, x.shape()), (&x.device(), DType::F32));
                x * mask
            }
        }
    }
}

/// `count` factors: 0 with probability `dropout`, else 1 / (1 − dropout), to keep the mean at 1.
fn mask(numbers: [u64; 4], dropout: f64, count: usize) -> Vec<f32> {
    let mut key = [0; 32];
    for (bytes, number) in key.chunks_exact_mut(8).zip(numbers) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    let mut generator = ChaCha8Rng::from_seed(key);
    let limit = (dropout * (1u64 << 32) as f64) as u64;
    let kept = (1.0 / (1.0 - dropout)) as f32;
    (0..count).map(|_| if u64::from(generator.next_u32()) < limit { 0.0 } else { kept }).collect()
}
