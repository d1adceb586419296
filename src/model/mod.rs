//! Language models: the transformer, its checkpoint on disk, its tokenizer and its chat template.
//!
//! Token ids go in; hidden states, logits and rewards come out. Knows nothing of Arrow, the pipeline or any training objective.

mod chat;
mod checkpoint;
mod config;
mod conversation;
mod device;
mod error;
mod head;
mod kv_cache;
mod parameters;
mod placement;
mod projection;
mod reward_model;
mod sequences;
mod tokenizer;
mod transformer;
mod weights;

pub use chat::ChatTemplate;
pub use checkpoint::Checkpoint;
pub use config::{GenerationConfig, ModelConfig};
pub use conversation::{Asked, Message};
pub use device::DeviceChoice;
pub use error::ModelError;
pub use head::Head;
pub use kv_cache::KvCache;
pub use placement::Placement;
pub use projection::Projection;
pub use reward_model::RewardModel;
pub use sequences::{Padding, Sequences};
pub use tokenizer::{EncodedPair, SpecialTokens, Tokenizer};
pub use transformer::{Attention, CausalLm, Decoder, Layer, Mlp};
