//! The memory of a model on the CPU, in bytes. Knows the shape only.

use super::{LayerConfig, LayerNorms, ModelConfig};

const NUMBER: u64 = size_of::<f32>() as u64;

impl ModelConfig {
    /// Keys and values of one token, in all layers.
    pub fn cache_bytes_per_token(&self) -> u64 {
        let keys = self.num_key_value_heads as u64 * self.head_dim as u64;
        2 * self.layers.len() as u64 * keys * NUMBER
    }

    /// The memory of one token kept for the backward pass; with `checkpointing` every layer's
    /// input, and all else of one layer at a time.
    pub fn kept_bytes_per_token(&self, checkpointing: bool) -> u64 {
        let (hidden, layers) = (self.hidden_size as u64, self.layers.len() as u64);
        let queries = self.num_attention_heads as u64 * self.head_dim as u64;
        let keys = self.num_key_value_heads as u64 * self.head_dim as u64;
        // Before their norms and after, where there are norms.
        let raw = if self.qk_norm.is_some() { queries + keys } else { 0 };
        // Before the norms behind attention and MLP.
        let behind = if self.layer_norms == LayerNorms::Before { 0 } else { 2 * hidden };
        // Queries and their attention; keys and values; a normalizer a head; the stream between
        // attention and MLP; then what the MLP keeps.
        let attention = 2 * queries + 2 * keys + raw + behind + self.num_attention_heads as u64 + hidden;
        let inside = self.layers.iter().map(|layer| attention + self.kept_in_mlp(layer));
        NUMBER * (layers * hidden + if checkpointing { inside.max().unwrap_or(0) } else { inside.sum() })
    }

    /// Gates and ups of one token: of its experts where these are routed, with the probability of
    /// each expert.
    fn kept_in_mlp(&self, layer: &LayerConfig) -> u64 {
        match self.experts.as_ref().filter(|_| layer.routed) {
            Some(experts) => 2 * experts.num_experts_per_tok as u64 * experts.moe_intermediate_size as u64 + experts.num_experts as u64,
            None => 2 * self.intermediate_size as u64,
        }
    }
}
