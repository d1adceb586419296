//! Language models: the Llama transformer, its checkpoint on disk, its tokenizer and its chat template.
//!
//! Token ids go in, hidden states and logits come out. Knows nothing of Arrow, the pipeline or any training objective.

mod config;
mod error;
mod kv_cache;
mod placement;
mod sequences;
mod transformer;

pub use config::{GenerationConfig, LlamaConfig};
pub use error::ModelError;
pub use kv_cache::KvCache;
pub use placement::Placement;
pub use sequences::{Padding, Sequences};
pub use transformer::{Attention, Decoder, Layer, Llama, Mlp};
