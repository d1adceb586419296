//! Language models: the transformer, its checkpoint on disk, its tokenizer and its chat template.
//!
//! Token ids go in; hidden states, logits and rewards come out. Knows nothing of Arrow, the pipeline or any training objective.

mod adapted;
mod adapter;
mod chat;
mod checkpoint;
mod config;
mod conversation;
mod cpu;
mod device;
mod dtype;
mod error;
mod export;
mod families;
mod files;
mod generation_config;
#[cfg(feature = "gpu")]
mod gpu;
mod head;
mod kv_cache;
mod low_rank;
mod parameters;
mod placement;
mod projection;
mod reward_model;
mod rope;
mod sequences;
mod size;
mod tokenizer;
mod transformer;
mod weights;
mod weights_writer;

pub use adapter::{AdapterConfig, base_of};
pub use chat::ChatTemplate;
pub use checkpoint::Checkpoint;
pub use config::{LayerConfig, ModelConfig};
pub use conversation::{Message, PromptContent};
pub use cpu::{CpuCache, CpuDecoder, CpuGradients, CpuTraining, CpuWeights, Family, Span};
pub use device::DeviceChoice;
pub use dtype::Dtype;
pub use error::ModelError;
pub use generation_config::GenerationConfig;
#[cfg(feature = "cuda")]
pub use gpu::ScoredTokens;
#[cfg(feature = "gpu")]
pub use gpu::{Drawing, Drawn, GpuCache, GpuDecoder, GpuElement};
pub use head::Head;
pub use kv_cache::KvCache;
pub use low_rank::LowRank;
pub use placement::Placement;
pub use projection::Projection;
pub use reward_model::RewardModel;
pub use rope::{Llama3Scaling, Rope};
pub use sequences::{Padding, Sequences};
pub use tokenizer::{EncodedPair, SpecialTokens, Tokenizer};
pub use transformer::{Attention, CausalLm, Decoder, Layer, Mlp};
