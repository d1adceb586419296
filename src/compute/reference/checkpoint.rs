//! The reference models from a checkpoint: loaded, freshly initialized, saved. Knows nothing of
//! training.

use std::convert::Infallible;
use std::fs;
use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;

use super::parameters;
use super::reward_model::RewardModel;
use super::transformer::CausalLm;
use crate::model::initialization::{generator, normal};
use crate::model::parameters::Parameter;
use crate::model::{Checkpoint, Dtype, Head, ModelError, weights_writer};

impl Checkpoint {
    /// Reads a language model's weights, as f32 whatever their format on disk, an adapter's part
    /// merged in. A device with autodiff gives a model to train.
    ///
    /// # Errors
    /// When this is a reward model, was opened blank, or a file cannot be read any more.
    pub fn load(&self, device: &Device) -> Result<CausalLm, ModelError> {
        self.expect(Head::CausalLm)?;
        parameters::fill(CausalLm::unfilled(&self.config, device), device, &mut |parameter| {
            self.parameter(&self.stored_name(&parameter.name))
        })
    }

    /// Reads a reward model's weights, as [`Checkpoint::load`] does a language model's.
    ///
    /// # Errors
    /// When this is a language model, was opened blank, or a file cannot be read any more.
    pub fn load_reward_model(&self, device: &Device) -> Result<RewardModel, ModelError> {
        self.expect(Head::Reward)?;
        let unfilled = RewardModel::unfilled(&self.config, device);
        parameters::fill(unfilled, device, &mut |parameter| self.parameter(&self.stored_name(&parameter.name)))
    }

    /// A language model with fresh weights: norms are 1 with their offset, biases 0, all else
    /// normal with mean 0 and standard deviation `initializer_range`, as Hugging Face initialises
    /// its models. The same seed gives the same weights.
    pub fn init(&self, device: &Device, seed: u64) -> CausalLm {
        let mut generator = generator(seed);
        let Ok(model) = parameters::fill(CausalLm::unfilled(&self.config, device), device, &mut |parameter| {
            let count = parameter.shape.iter().product();
            let deviation = self.config.initializer_range;
            Ok::<_, Infallible>(match parameter.name.rsplit_once('.') {
                Some((_, "bias")) => vec![0.0; count],
                Some((layer, _)) if layer.ends_with("norm") => vec![(1.0 - self.config.norm_offset) as f32; count],
                _ => normal(&mut generator, count, deviation),
            })
        });
        model
    }

    /// Writes `model` to `folder` with this checkpoint's configuration, tokenizer and chat
    /// template; other software loads it as it is.
    ///
    /// The bytes depend on the model and this checkpoint only. Weights are f32, so `config.json`
    /// says so; tied weights are written once.
    ///
    /// # Errors
    /// When the model is not of this checkpoint's shape, or a file cannot be read or written.
    pub fn save(&self, folder: &Path, model: &CausalLm) -> Result<(), ModelError> {
        self.write_model(folder, model)
    }

    /// Writes a reward model, as [`Checkpoint::save`] does a language model.
    ///
    /// # Errors
    /// When the model is not of this checkpoint's shape, or a file cannot be read or written.
    pub fn save_reward_model(&self, folder: &Path, model: &RewardModel) -> Result<(), ModelError> {
        self.write_model(folder, model)
    }

    fn write_model(&self, folder: &Path, model: &impl Module) -> Result<(), ModelError> {
        let stored = |parameter: Parameter| Parameter { name: self.stored_name(&parameter.name), ..parameter };
        if !parameters::list(model).into_iter().map(stored).eq(self.parameters.iter().cloned()) {
            return Err(ModelError::invalid(&self.folder, "the model to be saved has other parameters than config.json describes"));
        }
        fs::create_dir_all(folder).map_err(|source| ModelError::Write { path: folder.to_path_buf(), source })?;
        weights_writer::write(folder, &self.parameters, Dtype::F32, u64::MAX, |sink| parameters::each_value(model, sink))?;
        self.write_settings(folder, Dtype::F32)
    }
}
