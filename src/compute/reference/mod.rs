//! The reference: the transformer in burn's operations, plain or with autodiff, on any device.
//!
//! Every other forward pass is held to it by tests. Knows no accelerator: another backend may
//! replace [`TensorOperations`], never the other way round.

mod adapted;
pub(crate) mod attention;
pub(crate) mod backend;
mod checkpoint;
pub(crate) mod kv_cache;
pub(crate) mod low_rank;
pub(crate) mod mlp;
pub(crate) mod named_tensors;
pub(crate) mod norm;
pub(crate) mod operations;
mod padded;
pub(crate) mod parameters;
pub(crate) mod placement;
pub(crate) mod products;
pub(crate) mod projection;
pub(crate) mod reward_model;
mod rotation;
pub(crate) mod routed;
pub(crate) mod token_logprobs;
pub(crate) mod transformer;

pub use attention::Attention;
pub use backend::TensorBackend;
pub use kv_cache::KvCache;
pub use low_rank::LowRank;
pub use mlp::{FusedMlp, Mlp};
pub use norm::Norm;
pub(crate) use operations::scaled;
pub use operations::{ReferenceOperations, TensorOperations};
pub use padded::Padding;
pub use placement::Placement;
pub use projection::Projection;
pub use reward_model::RewardModel;
pub use routed::{RoutedMlp, Router};
pub use transformer::{CausalLm, Decoder, Layer};
