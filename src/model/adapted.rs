//! A checkpoint with an adapter: opened, compared, copied.
//!
//! Knows the projections, not the purpose of training them.

use std::fs;
use std::path::Path;

use super::adapter::{self, Adapter};
use super::adapter_config::CONFIG;
use super::adapter_modules::{self, AdapterModules};
use super::parameters;
use super::{AdapterConfig, Checkpoint, Head, ModelConfig, ModelError, ModuleNames};
use crate::disk;

/// A base as an adapter sees it.
pub(crate) struct AdapterBase {
    /// The base's shape. Logits are untied where the adapter replaces one side of them.
    pub(crate) config: ModelConfig,
    /// The adapter's places.
    pub(crate) modules: AdapterModules,
}

impl Checkpoint {
    /// The configuration of this checkpoint's adapter.
    pub fn adapter(&self) -> Option<&AdapterConfig> {
        self.adapter.as_ref().map(|adapter| &adapter.config)
    }

    /// How many numbers an adapter of this configuration has on this checkpoint.
    ///
    /// # Errors
    /// A sentence: an invalid pattern, or modules that the checkpoint does not have.
    pub fn adapter_parameter_count(&self, config: &AdapterConfig) -> Result<usize, String> {
        let parameters = self.adapter_base(config)?.modules.parameters();
        Ok(parameters.iter().map(|parameter| parameter.shape.iter().product::<usize>()).sum())
    }

    /// This checkpoint with the adapter in `folder`, in place of its own if it has one. The base
    /// named by the adapter is ignored. With an adapter of a classifier it is a reward model.
    ///
    /// # Errors
    /// A file that is missing, wrong, or does not fit this checkpoint.
    pub fn with_adapter(self, folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join(CONFIG);
        let config = AdapterConfig::read(&path)?;
        // The score is the adapter's: nothing is drawn from the seed.
        let base = if config.head == Head::Reward { self.with_reward_head(0) } else { self };
        let AdapterBase { config: shape, modules, .. } =
            base.adapter_base(&config).map_err(|problem| ModelError::invalid(&path, problem))?;
        let adapter = Adapter::open(folder, config, modules)?;
        Ok(base.adapted(adapter, shape))
    }

    /// The last parts of the names of all projections but the head, each once: the meaning of
    /// `all-linear`.
    pub fn projections(&self) -> Vec<String> {
        adapter_modules::projections(&self.parameters)
    }

    /// The names of the projections that an adapter of this configuration adapts, and of the
    /// parameters that it replaces.
    ///
    /// # Errors
    /// A sentence: an invalid pattern, or modules that the checkpoint does not have.
    pub fn adapter_places(&self, config: &AdapterConfig) -> Result<(Vec<String>, Vec<String>), String> {
        let modules = self.adapter_base(config)?.modules;
        let saved = modules.saved.into_iter().map(|parameter| parameter.name).collect();
        Ok((modules.adapted.into_iter().map(|projection| projection.name).collect(), saved))
    }

    /// Checks an adapter's training on routed experts. PEFT has them in fused tensors: without
    /// dropout, magnitudes or patterns, gates and ups together, and the MLPs of other layers left
    /// out.
    ///
    /// # Errors
    /// The name of a projection, and what PEFT does not have.
    pub fn check_adapted_experts(&self, config: &AdapterConfig) -> Result<(), String> {
        let (adapted, saved) = self.adapter_places(config)?;
        if let Some(saved) = saved.iter().find(|name| name.contains(".experts.")) {
            return Err(format!("modules_to_save has {saved}, which PEFT has in a tensor of all experts; name other modules"));
        }
        let Some(first) = adapted.iter().find(|name| name.contains(".experts.")) else { return Ok(()) };
        if config.dropout > 0.0 {
            return Err(format!("dropout is {}, expected 0: PEFT has no dropout on experts, and {first} is one's", config.dropout));
        }
        let by_name = matches!(config.targets, ModuleNames::Names(_)) && config.excluded.is_none() && config.layers.is_empty();
        if config.use_dora || !by_name || !config.rank_pattern.is_empty() || !config.alpha_pattern.is_empty() {
            return Err(format!(
                "expected target_modules by names without exclude_modules, patterns or use_dora: {first} is an expert's, and PEFT has all \
                 experts in one tensor"
            ));
        }
        if let Some(dense) = adapted.iter().find(|name| name.contains(".mlp.") && !name.contains(".experts.")) {
            return Err(format!("targets have {dense} beside {first}: PEFT would leave out the former; name projections of the attention"));
        }
        let ends = |ending: &str| adapted.iter().find(|name| name.contains(".experts.") && name.ends_with(ending));
        for (gate, up) in [(".gate_proj", ".up_proj"), (".w1", ".w3")] {
            for (one, other) in [(gate, up), (up, gate)] {
                if let (Some(name), None) = (ends(one), ends(other)) {
                    return Err(format!("targets have {name} without {}: PEFT has both in one tensor; name both or none", &other[1..]));
                }
            }
        }
        Ok(())
    }

    /// Whether adapters of both configurations have the same parameters, and mean the same by them.
    pub fn same_adapter(&self, left: &AdapterConfig, right: &AdapterConfig) -> bool {
        let modules = |config| self.adapter_base(config).map(|base| base.modules);
        modules(left).is_ok_and(|left| modules(right).is_ok_and(|right| left == right))
    }

    /// This checkpoint as a base for an adapter of this configuration.
    ///
    /// # Errors
    /// A sentence: an invalid pattern, or modules that the checkpoint does not have.
    pub(crate) fn adapter_base(&self, config: &AdapterConfig) -> Result<AdapterBase, String> {
        let untied = ModelConfig { tie_word_embeddings: false, ..self.config.clone() };
        let modules = AdapterModules::new(config, &parameters::list(&untied))?;
        let is_tied = self.config.tie_word_embeddings && self.config.head == Head::CausalLm;
        // As in PEFT, the other side keeps the base's values.
        let is_untied = is_tied && (modules.saves(parameters::EMBEDDING) || modules.saves(parameters::LM_HEAD));
        Ok(AdapterBase { config: if is_untied { untied } else { self.config.clone() }, modules })
    }

    /// Copies this checkpoint's adapter to `folder`, naming `base` as the place where PEFT finds
    /// its base.
    ///
    /// # Errors
    /// When there is no adapter, or a file cannot be read or written.
    pub fn copy_adapter(&self, folder: &Path, base: &str) -> Result<(), ModelError> {
        let adapter =
            self.adapter.as_ref().ok_or_else(|| ModelError::invalid(&self.folder, "expected a model with an adapter, found none"))?;
        self.write_companions(folder)?;
        adapter.config.write(folder, Some(base))?;
        let (from, path) = (adapter.folder.join(adapter::WEIGHTS), folder.join(adapter::WEIGHTS));
        let bytes = fs::read(&from).map_err(|source| ModelError::Read { path: from, source })?;
        disk::write(&path, bytes).map_err(|source| ModelError::Write { path, source })
    }
}
