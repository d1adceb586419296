//! Language models as data: configuration, checkpoint, tokenizer and chat template, on disk and in
//! memory.
//!
//! `compute` says how it is computed. Knows nothing of Arrow, the pipeline, forward passes or any
//! training objective.

pub(crate) mod adapted;
pub(crate) mod adapter;
mod adapter_config;
pub(crate) mod adapter_modules;
mod chat;
mod checkpoint;
mod config;
mod conversation;
mod dtype;
mod end_tokens;
mod endings;
mod error;
mod experts;
mod export;
mod families;
mod files;
mod generation_config;
mod head;
mod hub_cache;
pub(crate) mod initialization;
mod message;
mod padding;
pub(crate) mod parameters;
mod rope;
mod size;
mod tokenizer;
mod tokenizer_settings;
mod weights;
pub(crate) mod weights_writer;

pub use adapter::{HubBase, base_of, hub_base_of};
pub use adapter_config::{AdapterConfig, ModuleNames};
pub use chat::row_template::RowTemplate;
pub use chat::{ChatTemplate, TemplateSettings};
pub use checkpoint::Checkpoint;
pub use config::{Activation, LayerConfig, LayerNorms, ModelConfig, QkNorm};
pub use dtype::Dtype;
pub use error::ModelError;
pub use experts::{ExpertNames, ExpertsConfig};
pub use generation_config::GenerationConfig;
pub use head::Head;
pub use message::{Answer, Conversation, Fields, Message, PromptContent};
pub(crate) use message::{GIVEN_VARIABLES, kind};
pub use rope::{Llama3Scaling, LongRope, Rope, RopeScaling, RopeTable, Yarn};
pub use tokenizer::{EncodedPair, SpecialTokens, TextStream, Tokenizer};
pub use weights::has_whole_length;
