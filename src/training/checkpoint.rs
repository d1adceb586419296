//! A trainer on disk: weights, optimizer moments and step. Training continues from it bit for bit.
//!
//! `weights.safetensors` holds the f32 weights in training, not the frozen ones;
//! `gradient_means.safetensors` and `gradient_squares.safetensors` what the optimizer remembers of
//! each, under the same names; `trainer.json` the step. The same state gives the same bytes. Knows
//! no settings: those are the caller's to bring back, and a change of them is the caller's to
//! notice. Atomic replacement of the folder is the caller's too.

use std::fs;
use std::path::Path;

use burn::module::Module;
use burn::store::{ModuleSnapshot, SafetensorsStore};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Settings, Skipped, Trainer, TrainingError};
use crate::compute::reference::named_tensors::{self, NamedTensors};
use crate::disk;

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    version: u32,
    /// Updates of the weights.
    step: u64,
    /// Skipped steps, if there are any, and how many of them are the last ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    skipped: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    skipped_in_a_row: u64,
    files: Vec<String>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

const WEIGHTS: &str = "weights.safetensors";
const MEANS: &str = "gradient_means.safetensors";
const SQUARES: &str = "gradient_squares.safetensors";
const PROGRESS: &str = "trainer.json";

impl<M: Module + Sync> Trainer<M> {
    /// Writes the state into the existing `folder`, over an earlier state.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save_state(&self, folder: &Path) -> Result<(), TrainingError> {
        let moments = &self.optimizer.moments;
        let mut files = vec![WEIGHTS.to_string()];
        save(&self.model, &folder.join(WEIGHTS))?;
        for (name, moments) in [(MEANS, &moments.first), (SQUARES, &moments.second)] {
            if !moments.is_empty() {
                save(&with_values(self.model.clone(), moments), &folder.join(name))?;
                files.push(name.to_string());
            }
        }
        let path = folder.join(PROGRESS);
        let Skipped { count: skipped, in_a_row: skipped_in_a_row } = self.skipped;
        let progress = Progress { version: VERSION, step: moments.step, skipped, skipped_in_a_row, files };
        let text = serde_json::to_string_pretty(&progress).map_err(|problem| TrainingError::state(&path, problem))?;
        disk::write(&path, text).map_err(|problem| TrainingError::state(&path, format!("{problem}{}", disk::way_on(&problem))))
    }

    /// The trainer that was saved in `folder`. Of `model` only the architecture, the device and
    /// what is frozen are used; `settings` and `total_steps` must be those the saved trainer had.
    ///
    /// # Errors
    /// When a file cannot be read or does not fit the model.
    pub fn load_state(folder: &Path, model: M, settings: Settings, total_steps: u64) -> Result<Self, TrainingError> {
        let path = folder.join(PROGRESS);
        let text = fs::read_to_string(&path).map_err(|problem| TrainingError::state(&path, problem))?;
        let progress: Progress = serde_json::from_str(&text).map_err(|problem| TrainingError::state(&path, problem))?;
        if progress.version != VERSION {
            return Err(TrainingError::state(&path, format!("state version {}, expected {VERSION}", progress.version)));
        }
        let model = load(model.train(), &folder.join(WEIGHTS))?;
        let moments = |name: &str| -> Result<NamedTensors, TrainingError> {
            if progress.files.iter().any(|file| file == name) {
                Ok(named_tensors::values(&load(model.clone(), &folder.join(name))?))
            } else {
                Ok(NamedTensors::new())
            }
        };
        let first = moments(MEANS)?;
        let second = moments(SQUARES)?;
        let mut trainer = Self::new(model, settings, total_steps)?;
        trainer.skipped = Skipped { count: progress.skipped, in_a_row: progress.skipped_in_a_row };
        trainer.optimizer.moments.step = progress.step;
        trainer.optimizer.moments.first = first;
        trainer.optimizer.moments.second = second;
        Ok(trainer)
    }
}

/// `module` with `values` in place of its own; 0 where there is none.
fn with_values<M: Module>(module: M, values: &NamedTensors) -> M {
    let or_zero = |name: &str, own: Tensor<1>| values.get(name).cloned().unwrap_or_else(|| own.zeros_like());
    named_tensors::change(module, or_zero)
}

/// Writes the parameters in training of `module`, a module with autodiff.
fn save(module: &impl Module, path: &Path) -> Result<(), TrainingError> {
    // Without metadata: its order in the file would change from run to run.
    let mut store = SafetensorsStore::from_file(path).clear_metadata().overwrite(true).with_full_paths(named_tensors::names(module));
    module.valid().save_into(&mut store).map_err(|problem| TrainingError::state(path, problem))
}

/// Reads the parameters in training of `module`, a module with autodiff.
fn load<M: Module>(module: M, path: &Path) -> Result<M, TrainingError> {
    let trained = named_tensors::names(&module);
    let mut store = SafetensorsStore::from_file(path).allow_partial(true);
    let mut module = module.valid();
    let result = module.load_from(&mut store).map_err(|problem| TrainingError::state(path, problem))?;
    if let Some(name) = result.unused.first() {
        return Err(TrainingError::state(path, format!("tensor {name} belongs to no parameter of this model")));
    }
    match result.missing.iter().find(|(name, _)| trained.contains(name)) {
        Some((name, _)) => Err(TrainingError::state(path, format!("expected a tensor {name}, found none"))),
        None => Ok(module.train()),
    }
}
