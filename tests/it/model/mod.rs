//! Models: configuration, weights, tokenizer, chat template, export, and their results.

mod chat_templates;
mod checkpoint;
mod config;
mod conversations;
mod cpu_decoder;
mod endings;
mod experts;
mod export;
mod families;
mod loading;
mod reward_head;
mod sft_tokens;
