//! Routed experts: a layer's MLP in many copies, of which a router chooses some for each token
//! (Shazeer et al. 2017, arXiv 1701.06538; Jiang et al. 2024, arXiv 2401.04088). Knows nothing of
//! tensors or files.

/// A model in use has tens of thousands of experts in all layers; beyond this a `config.json` is
/// taken to be broken.
const MOST_EXPERTS: usize = 1 << 17;

/// The experts of a model's routed layers. Fields have the names of Hugging Face's configuration
/// classes.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertsConfig {
    /// Experts in each routed layer (`num_local_experts` in some families).
    pub num_experts: usize,
    /// How many of them compute a token: those with the largest probabilities.
    pub num_experts_per_tok: usize,
    /// Width inside an expert.
    pub moe_intermediate_size: usize,
    /// Whether the chosen experts' probabilities are divided by their sum.
    pub norm_topk_prob: bool,
    /// The factor of the loss for balanced experts, which TRL adds to its own. Training here does
    /// not: it depends on the batch, and with it gradients would depend on micro-batches.
    pub router_aux_loss_coef: f64,
    /// How the parameters are called in a checkpoint.
    pub names: ExpertNames,
}

/// The names of routed experts in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertNames {
    /// `mlp.gate`, and `mlp.experts.0` with `gate_proj`, `up_proj` and `down_proj`.
    Projections,
    /// `block_sparse_moe.gate`, and `block_sparse_moe.experts.0` with `w1`, `w3` and `w2`.
    Numbered,
}

impl ExpertsConfig {
    /// Checks the sizes against each other; the model has so many `layers`.
    pub(super) fn check(&self, layers: usize) -> Result<(), String> {
        let Self { num_experts, num_experts_per_tok, .. } = self;
        if num_experts_per_tok > num_experts {
            return Err(format!("num_experts_per_tok is {num_experts_per_tok}, expected at most the {num_experts} experts of a layer"));
        }
        if layers.saturating_mul(*num_experts) > MOST_EXPERTS {
            return Err(format!("{layers} layers of {num_experts} experts, expected at most {MOST_EXPERTS} experts in all"));
        }
        Ok(())
    }
}

impl ExpertNames {
    /// A checkpoint's name for the parameter or projection with the path `name` in a model.
    pub(crate) fn stored(self, name: &str) -> String {
        match self {
            Self::Projections => name.to_string(),
            Self::Numbered => numbered(name),
        }
    }
}

/// A name with its routed experts, if it has any, in the words of [`ExpertNames::Numbered`].
fn numbered(name: &str) -> String {
    let mut parts: Vec<&str> = name.split('.').collect();
    let Some(at) = parts.windows(2).position(|both| both[0] == "mlp" && matches!(both[1], "gate" | "experts")) else {
        return name.to_string();
    };
    parts[at] = "block_sparse_moe";
    // Behind `experts` is the expert's number.
    if let Some(part) = parts.get_mut(at + 3) {
        *part = match *part {
            "gate_proj" => "w1",
            "up_proj" => "w3",
            "down_proj" => "w2",
            other => other,
        };
    }
    parts.join(".")
}

/// A tensor with the weights of all experts of a layer, as transformers 5 holds them in memory.
pub(super) struct FusedExperts<'a> {
    /// The experts' name: `model.layers.0.mlp.experts`.
    pub(super) experts: &'a str,
    /// For each expert, one after the other: names and shapes of its projections.
    pub(super) projections: Vec<(&'static str, [usize; 2])>,
}

impl FusedExperts<'_> {
    /// `[experts, out of all projections, in]`.
    pub(super) fn shape(&self, experts: &ExpertsConfig) -> [usize; 3] {
        let columns = self.projections.first().map_or(0, |(_, [_, columns])| *columns);
        [experts.num_experts, self.projections.iter().map(|(_, [rows, _])| rows).sum(), columns]
    }
}

impl ExpertsConfig {
    /// The content of the tensor `name`, if it has the weights of all experts of a layer.
    pub(super) fn fused<'a>(&self, name: &'a str, hidden_size: usize) -> Option<FusedExperts<'a>> {
        let inner = self.moe_intermediate_size;
        let (experts, tensor) = name.rsplit_once('.').filter(|(experts, _)| experts.ends_with(".mlp.experts"))?;
        let projections = match tensor {
            "gate_up_proj" => vec![("gate_proj", [inner, hidden_size]), ("up_proj", [inner, hidden_size])],
            "down_proj" => vec![("down_proj", [hidden_size, inner])],
            _ => return None,
        };
        Some(FusedExperts { experts, projections })
    }
}

#[cfg(test)]
mod tests {
    use super::ExpertNames;

    #[test]
    fn names_of_experts_are_those_of_checkpoints() {
        let names = [
            ("model.layers.3.mlp.gate.weight", "model.layers.3.block_sparse_moe.gate.weight"),
            ("model.layers.3.mlp.experts.11.gate_proj.weight", "model.layers.3.block_sparse_moe.experts.11.w1.weight"),
            ("model.layers.3.mlp.experts.11.down_proj", "model.layers.3.block_sparse_moe.experts.11.w2"),
            ("model.layers.3.mlp.experts.0.up_proj.bias", "model.layers.3.block_sparse_moe.experts.0.w3.bias"),
            ("model.layers.3.mlp.gate_proj.weight", "model.layers.3.mlp.gate_proj.weight"),
            ("model.layers.3.self_attn.q_proj.weight", "model.layers.3.self_attn.q_proj.weight"),
            ("lm_head.weight", "lm_head.weight"),
        ];
        for (name, stored) in names {
            assert_eq!(ExpertNames::Numbered.stored(name), stored);
            assert_eq!(ExpertNames::Numbered.stored(stored), stored);
            assert_eq!(ExpertNames::Projections.stored(name), name);
        }
    }
}
