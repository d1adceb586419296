//! The parameters of a model as a checkpoint stores them: names, shapes and order. Knows nothing of
//! files or tensors.

use super::{Head, ModelConfig, ModelError};

/// The embedding, and the weights of tied logits.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
/// The weights of untied logits. A copy of tied ones may be stored, and a reward model may have
/// left its policy's behind.
pub(crate) const LM_HEAD: &str = "lm_head.weight";

/// One parameter as a checkpoint stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// The checkpoint's key, as `model.layers.0.mlp.up_proj.weight`.
    pub(crate) name: String,
    /// The checkpoint's shape: `[out, in]` for a projection.
    pub(crate) shape: Vec<usize>,
    /// Whether the model holds it the other way round, `[in, out]`.
    pub(crate) transposed: bool,
}

impl Parameter {
    /// The projection of a weight, if an adapter can stand beside it: all but a head. A head's name
    /// has one part only.
    pub(crate) fn projection(&self) -> Option<&str> {
        let name = self.name.strip_suffix(".weight").filter(|_| self.transposed)?;
        name.contains('.').then_some(name)
    }
}

/// The parameters of a model of this shape, in their order. The reference transformer has its
/// fields in the same order; saving a model compares both.
pub(crate) fn list(config: &ModelConfig) -> Vec<Parameter> {
    let [hidden, inner] = [config.hidden_size, config.intermediate_size];
    let queries = config.num_attention_heads * config.head_dim;
    let keys = config.num_key_value_heads * config.head_dim;
    let mut parameters = Vec::new();
    let mut add = |name: String, shape: &[usize], transposed: bool| parameters.push(Parameter { name, shape: shape.to_vec(), transposed });
    add(EMBEDDING.to_string(), &[config.vocab_size, hidden], false);
    for (layer, layer_config) in config.layers.iter().enumerate() {
        let routed = config.experts.as_ref().filter(|_| layer_config.routed);
        let (inputs, fused) = if config.fused_projections {
            (vec![("qkv_proj", queries + 2 * keys)], true)
        } else {
            (vec![("q_proj", queries), ("k_proj", keys), ("v_proj", keys)], false)
        };
        let output = "self_attn.o_proj".to_string();
        let inputs = inputs.into_iter().map(|(name, width)| (format!("self_attn.{name}"), [width, hidden], config.qkv_bias));
        let mut projections: Vec<(String, [usize; 2], bool)> = inputs.collect();
        projections.push((output.clone(), [hidden, queries], config.o_bias));
        let mut add_mlp = |mlp: &str, inner: usize| {
            if fused {
                projections.push((format!("{mlp}.gate_up_proj"), [2 * inner, hidden], config.mlp_bias));
            } else {
                projections.push((format!("{mlp}.gate_proj"), [inner, hidden], config.mlp_bias));
                projections.push((format!("{mlp}.up_proj"), [inner, hidden], config.mlp_bias));
            }
            projections.push((format!("{mlp}.down_proj"), [hidden, inner], config.mlp_bias));
        };
        match routed {
            Some(experts) => {
                (0..experts.num_experts).for_each(|expert| add_mlp(&format!("mlp.experts.{expert}"), experts.moe_intermediate_size));
            }
            None => add_mlp("mlp", inner),
        }
        for (name, shape, bias) in projections {
            add(format!("model.layers.{layer}.{name}.weight"), &shape, true);
            if bias {
                add(format!("model.layers.{layer}.{name}.bias"), &shape[..1], false);
            }
            // The norms of queries and keys stand behind the projections of the attention.
            if name == output
                && let Some(norm) = config.qk_norm
            {
                let [of_queries, of_keys] = norm.widths([queries, keys], config.head_dim);
                add(format!("model.layers.{layer}.self_attn.q_norm.weight"), &[of_queries], false);
                add(format!("model.layers.{layer}.self_attn.k_norm.weight"), &[of_keys], false);
            }
            // The router stands in front of its experts.
            if name == output
                && let Some(experts) = routed
            {
                add(format!("model.layers.{layer}.mlp.gate.weight"), &[experts.num_experts, hidden], false);
            }
        }
        for name in config.layer_norms.names() {
            add(format!("model.layers.{layer}.{name}.weight"), &[hidden], false);
        }
    }
    add("model.norm.weight".to_string(), &[hidden], false);
    match config.head {
        Head::CausalLm if config.tie_word_embeddings => {}
        Head::CausalLm => add(LM_HEAD.to_string(), &[config.vocab_size, hidden], true),
        Head::Reward => add("score.weight".to_string(), &[1, hidden], true),
    }
    if let Some(experts) = &config.experts {
        parameters.iter_mut().for_each(|parameter| parameter.name = experts.names.stored(&parameter.name));
    }
    parameters
}

/// Takes the values of one parameter after the other.
pub(crate) type Sink<'a> = dyn FnMut(Vec<f32>) -> Result<(), ModelError> + 'a;

/// The transpose of a `rows` × `columns` matrix, in tiles small enough for the cache.
pub(crate) fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const TILE: usize = 32;
    let mut transposed = vec![0.0; values.len()];
    for top in (0..rows).step_by(TILE) {
        for left in (0..columns).step_by(TILE) {
            for row in top..rows.min(top + TILE) {
                for column in left..columns.min(left + TILE) {
                    // Both indices are below rows * columns, the length of either side.
                    transposed[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    transposed
}

#[cfg(test)]
mod tests {
    use super::transpose;

    #[test]
    fn transpose_turns_rows_into_columns() {
        let values: Vec<f32> = (0..35 * 70).map(|value| value as f32).collect();
        let transposed = transpose(&values, 35, 70);
        assert_eq!(transposed[69 * 35 + 34], values[34 * 70 + 69]);
        assert_eq!(transpose(&transposed, 70, 35), values);
    }
}
