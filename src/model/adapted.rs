//! A checkpoint with an adapter: opened, compared, copied.
//!
//! Knows the projections, not the purpose of training them.

use std::fs;
use std::path::Path;

use super::adapter::{self, Adapter};
use super::{AdapterConfig, Checkpoint, ModelError};
use crate::disk;

impl Checkpoint {
    /// The configuration of this checkpoint's adapter.
    pub fn adapter(&self) -> Option<&AdapterConfig> {
        self.adapter.as_ref().map(|adapter| &adapter.config)
    }

    /// How many numbers an adapter of this configuration has on this checkpoint.
    pub fn adapter_parameter_count(&self, config: &AdapterConfig) -> usize {
        config.parameters(&self.parameters).iter().map(|parameter| parameter.shape.iter().product::<usize>()).sum()
    }

    /// This checkpoint with the adapter in `folder`, in place of its own if it has one. The base
    /// named by the adapter is ignored.
    ///
    /// # Errors
    /// A file that is missing, wrong, or does not fit this checkpoint.
    pub fn with_adapter(self, folder: &Path) -> Result<Self, ModelError> {
        let adapter = Adapter::open(folder, &self.parameters)?;
        Ok(self.adapted(adapter))
    }

    /// The last parts of the names of all projections but the head, each once: the meaning of
    /// `all-linear`.
    pub fn projections(&self) -> Vec<String> {
        let names = self.parameters.iter().filter_map(|parameter| parameter.projection()?.rsplit('.').next());
        let mut names: Vec<String> = names.map(str::to_string).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Checks an adapter's training on routed experts. PEFT has them in fused tensors: without
    /// dropout, gates and ups together, and the MLPs of other layers left out.
    ///
    /// # Errors
    /// The name of a projection, and what PEFT does not have.
    pub fn check_adapted_experts(&self, config: &AdapterConfig) -> Result<(), String> {
        let adapted: Vec<&str> = self.parameters.iter().filter_map(|parameter| config.adapted(parameter)).collect();
        let Some(first) = adapted.iter().find(|name| name.contains(".experts.")) else { return Ok(()) };
        if config.dropout > 0.0 {
            return Err(format!("dropout is {}, expected 0: PEFT has no dropout on experts, and {first} is one's", config.dropout));
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
        let same_targets = left.parameters(&self.parameters) == right.parameters(&self.parameters);
        same_targets && left.rank == right.rank && left.alpha == right.alpha
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
