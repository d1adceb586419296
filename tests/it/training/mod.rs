//! Gradients, optimizer steps, adapters, offline DPO and reward models.

mod adapters;
mod backends;
mod experts;
mod exported_rewards;
mod families;
mod gradients;
mod lora;
mod malformed_rows;
mod offline_dpo;
mod padding;
mod precision;
mod reference_logprobs;
mod rewards;
mod trainer;
mod weight_decay;
