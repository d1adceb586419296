//! The low-rank term of an adapter beside a projection (LoRA, Hu et al. 2021, arXiv 2106.09685),
//! and its dropout.
//!
//! The product of the two matrices is never formed: a token goes through `rank` numbers. Knows
//! nothing of files, nor of the projection's weight.

use burn::module::{Module, Param, ParamId};
use burn::tensor::module::linear;
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::model::AdapterConfig;
use crate::model::adapter::Factors;

/// `y = scale · dropout(x) · lora_a · lora_b`.
#[derive(Module, Debug)]
pub struct LowRank {
    /// `[in, rank]`: the transpose of PEFT's.
    pub lora_a: Param<Tensor<2>>,
    /// `[rank, out]`: the transpose of PEFT's.
    pub lora_b: Param<Tensor<2>>,
    scale: f64,
    dropout: f64,
    seed: u64,
    /// The mask of a forward pass is drawn from these numbers and the seed; `None` drops nothing.
    #[module(skip)]
    mask: Option<[u64; 3]>,
}

impl LowRank {
    /// A term of these values, `[in, out]` beside it; dropout is drawn from `seed`. Its parameters
    /// are numbered from `first_id`, so that they have the same order in every process.
    pub(crate) fn new(factors: Factors, [from, to]: [usize; 2], config: &AdapterConfig, seed: u64, first_id: u64, device: &Device) -> Self {
        let param = |values: Vec<f32>, shape: [usize; 2], id: u64| {
            let mut param: Param<Tensor<2>> = Param::from_data(TensorData::new(values, shape), device);
            param.id = ParamId::from(id);
            param
        };
        Self {
            lora_a: param(factors.lora_a, [from, config.rank], first_id),
            lora_b: param(factors.lora_b, [config.rank, to], first_id + 1),
            scale: config.scale(),
            dropout: config.dropout,
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

    /// The term as a matrix: `[in, out]`.
    pub(crate) fn product(&self) -> Tensor<2> {
        self.lora_a.val().matmul(self.lora_b.val()).mul_scalar(self.scale)
    }

    /// # Shapes
    /// - x: `[.., in]`
    /// - output: `[.., out]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let x = match self.mask {
            None => x,
            Some([step, item, number]) => {
                let mask = mask([self.seed, step, item, number], self.dropout, x.shape().num_elements());
                let mask = Tensor::from_data(TensorData::new(mask, x.shape()), (&x.device(), DType::F32));
                x * mask
            }
        };
        linear(linear(x, self.lora_a.val(), None).mul_scalar(self.scale), self.lora_b.val(), None)
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
