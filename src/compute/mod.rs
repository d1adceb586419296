//! How a model is computed.
//!
//! # Backends
//!
//! `training` and `generation` see one interface, [`Backend`], and no device: [`backend_for`]
//! chooses once.
//!
//! | module | backend | computes |
//! |---|---|---|
//! | [`mod@reference`] | [`TensorBackend`](reference::TensorBackend) | padded batches in burn's operations, gradients by autodiff, on any device |
//! | [`cpu`] | [`CpuBackend`](cpu::CpuBackend) | sequences without padding in kernels of our own, with vectors and threads |
//! | `gpu` | `GpuBackend` | the tensor backend with kernels of our own in place of its slow operations; a decoder of our own for sampling |
//!
//! # Forward passes
//!
//! One transformer is computed in five ways. The first is the reference: the simplest to read, and
//! the one compared with Hugging Face's numbers. The others are faster, and a test holds each to
//! the reference.
//!
//! | forward pass | where | used for | held to | by the test |
//! |---|---|---|---|---|
//! | **reference** | [`Decoder::forward`](reference::Decoder) | sampling and training where no other backend fits; the oracle of tests | Hugging Face transformers | `model/{checkpoint,families,reward_head}.rs`, `training/lora.rs` |
//! | CPU sampling | [`CpuDecoder::forward`](cpu::CpuDecoder::forward) | `generate` | the reference | `generation/local.rs`, `model/cpu_decoder.rs` |
//! | CPU training | [`CpuTraining`] | logprobs, rewards, gradients | the reference and its autodiff | `training/{gradients,backends,trainer,rewards}.rs` |
//! | GPU sampling | `gpu::GpuDecoder::forward` | `generate` | the CPU's sampling, and golden files | `generation/gpu.rs` |
//! | GPU training | `gpu::hidden`, `gpu::ScoredTokens` | logprobs, rewards, gradients | the reference and its autodiff | `training/gradients.rs` (feature `cuda`), `generation/gpu.rs` |
//!
//! Routed experts have the first three: the kernels for GPUs do not know them, and `plan` refuses
//! them there.
//!
//! # Layers
//!
//! Each folder has its own kernels (`cpu/kernels`, `gpu/kernels`), decoder (forward), backward pass
//! (`training`) and cache, as far as it needs them. [`mod@reference`] knows no accelerator. Knows
//! nothing of Arrow tables, losses, sampling rules or the pipeline.

mod backend;
pub mod cpu;
mod device;
#[cfg(feature = "gpu")]
pub mod gpu;
mod gradients;
mod precision;
pub mod reference;
mod span;
mod threads;
mod update;

pub use backend::{Backend, Examples, LogprobLoss, SamplingModel, ScoreLoss};
pub use cpu::{CpuCache, CpuDecoder, CpuGradients, CpuTraining, CpuWeights, PrefixGroup};
pub use device::{DeviceChoice, backend_for, gpu_problem, training_backend_for, training_backend_on_replicas};
#[cfg(feature = "gpu")]
pub use gpu::{GpuCache, GpuChange, GpuDecoder, GpuElement, GpuSample, GpuSampling};
pub use gradients::{Gradient, Gradients, ParameterState};
pub use precision::Precision;
pub use reference::{
    Attention, CausalLm, Decoder, FusedMlp, KvCache, Layer, LowRank, Mlp, Norm, Padding, Placement, Projection, RewardModel, RoutedMlp,
};
pub use span::Span;
pub use threads::Threads;
pub use update::{AdamW, RmsProp, Update};
