//! A GPU as a backend: the tensor backend with operations of our own, and a decoder of our own to
//! sample from.

use burn::tensor::{Device, Int, Tensor};

use super::decoder::{GpuDecoder, GpuElement};
use super::optimizer;
use super::training::{self, ScoredTokens};
use crate::compute::Precision;
use crate::compute::backend::{Backend, Examples, LogprobLoss, SamplingModel, ScoreLoss};
use crate::compute::gradients::Gradients;
use crate::compute::reference::token_logprobs::{Predictions, TokenLogprobs};
use crate::compute::reference::{CausalLm, Decoder, ReferenceOperations, RewardModel, TensorBackend, TensorOperations};
use crate::compute::update::AdamW;
use crate::model::{Checkpoint, ModelError};

/// The highest number of a GPU.
const MOST_GPU: u32 = 64;

/// The number of an NVIDIA GPU; none of another device.
pub fn gpu_number(device: &Device) -> Option<u32> {
    (0..=MOST_GPU).find(|gpu| *device == Device::cuda(*gpu))
}

/// NVIDIA GPUs.
#[derive(Clone, Copy, Debug)]
pub struct GpuBackend {
    tensors: TensorBackend,
}

impl Default for GpuBackend {
    fn default() -> Self {
        Self { tensors: TensorBackend::new(&GpuOperations) }
    }
}

impl Backend for GpuBackend {
    fn logprobs(&self, model: &CausalLm, examples: Examples<'_>, prompt_token_counts: &[usize]) -> Result<Vec<f64>, ModelError> {
        self.tensors.logprobs(model, examples, prompt_token_counts)
    }

    fn scores(&self, model: &RewardModel, examples: Examples<'_>) -> Result<Vec<f64>, ModelError> {
        self.tensors.scores(model, examples)
    }

    fn logprob_gradients(
        &self,
        model: &mut CausalLm,
        examples: Examples<'_>,
        prompt_token_counts: &[usize],
        step: u64,
        collisions: bool,
        loss: &mut LogprobLoss<'_>,
    ) -> Result<Gradients, ModelError> {
        self.tensors.logprob_gradients(model, examples, prompt_token_counts, step, collisions, loss)
    }

    fn score_gradients(&self, model: &mut RewardModel, examples: Examples<'_>, loss: &mut ScoreLoss<'_>) -> Result<Gradients, ModelError> {
        self.tensors.score_gradients(model, examples, loss)
    }

    fn sequences_at_once(&self, _: Precision) -> usize {
        // Larger batches hardly slow a step.
        256
    }

    fn sampling_model(&self, model: CausalLm) -> Result<SamplingModel, ModelError> {
        self.tensors.sampling_model(model)
    }

    /// The weights go to the GPU as its decoder keeps them.
    fn load_sampling_model(&self, checkpoint: &Checkpoint, device: &Device, precision: Precision) -> Result<SamplingModel, ModelError> {
        let element = match precision {
            Precision::F32 => GpuElement::F32,
            Precision::Bf16 => GpuElement::Bf16,
        };
        let missing = || ModelError::Device(format!("expected an NVIDIA GPU, found {device:?}"));
        let gpu = gpu_number(device).ok_or_else(missing)?;
        let gpu = cubecl::Device::Cuda(cubecl::device::CudaDevice::new(gpu as usize));
        Ok(SamplingModel::Gpu(Box::new(GpuDecoder::new(checkpoint.load(&Device::flex())?, &gpu, element)?)))
    }
}

/// Operations of our own where the numbers are f32 on a GPU, burn's elsewhere.
#[derive(Clone, Copy, Debug)]
struct GpuOperations;

impl TensorOperations for GpuOperations {
    fn hidden(&self, decoder: &Decoder, tokens: Tensor<2, Int>) -> Tensor<3> {
        training::hidden(decoder, &tokens).unwrap_or_else(|| ReferenceOperations.hidden(decoder, tokens))
    }

    fn token_logprobs(&self, predictions: Predictions) -> Box<dyn TokenLogprobs> {
        match ScoredTokens::new(&predictions) {
            Some(scored) => Box::new(scored),
            None => ReferenceOperations.token_logprobs(predictions),
        }
    }

    fn sum_of_squares(&self, tensors: &[&Tensor<1>]) -> f64 {
        optimizer::sum_of_squares(tensors.iter().copied()).unwrap_or_else(|| ReferenceOperations.sum_of_squares(tensors))
    }

    fn adam_w(&self, rule: AdamW, factor: f64, tensors: [Tensor<1>; 4]) -> [Tensor<1>; 3] {
        optimizer::adam_w(rule, factor, &tensors).unwrap_or_else(|| ReferenceOperations.adam_w(rule, factor, tensors))
    }
}

impl TokenLogprobs for ScoredTokens {
    fn values(&self, collisions: bool) -> [Vec<f64>; 2] {
        let found = self.found();
        let of_tokens = |which: usize| found.iter().map(|found| f64::from(found[which])).collect();
        [of_tokens(0), if collisions { of_tokens(1) } else { Vec::new() }]
    }

    fn backward(self: Box<Self>, derivatives: Vec<f32>, frozen: bool) -> Option<burn::tensor::Gradients> {
        ScoredTokens::backward(*self, &derivatives, frozen)
    }
}
