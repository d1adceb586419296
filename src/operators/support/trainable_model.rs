//! The model to be trained by a task: all weights, or an adapter.

use std::path::Path;

use burn::tensor::Device;

use super::{Context, OperatorError, lora};
use crate::compute::CausalLm;
use crate::model::{AdapterConfig, Checkpoint};

/// A model to be trained by a task: the weights of a checkpoint, or an adapter on them.
pub(in crate::operators) struct TrainableModel<'a> {
    checkpoint: &'a Checkpoint,
    adapter: Option<AdapterConfig>,
    seed: u64,
}

impl<'a> TrainableModel<'a> {
    /// The model of this task, from `checkpoint`.
    pub(in crate::operators) fn new(context: &Context, checkpoint: &'a Checkpoint) -> Self {
        let adapter = context.task.operator.lora().map(|lora| lora::config(lora, checkpoint));
        Self { checkpoint, adapter, seed: context.seed().number("lora", "", 0) }
    }

    /// The model to train: the checkpoint's weights with its adapter merged in, or the adapter on
    /// the frozen base.
    pub(in crate::operators) fn load(&self, device: &Device) -> Result<CausalLm, OperatorError> {
        Ok(match &self.adapter {
            Some(config) => self.checkpoint.load_adapted(device, config, self.seed)?,
            None => self.checkpoint.load(device)?,
        })
    }

    /// Writes the trained weights or the adapter.
    pub(in crate::operators) fn save(&self, folder: &Path, model: &CausalLm) -> Result<(), OperatorError> {
        let saved = match &self.adapter {
            Some(config) => self.checkpoint.save_adapter(folder, config, model),
            None => self.checkpoint.save(folder, model),
        };
        Ok(saved?)
    }
}
