//! A language model with an adapter: loaded to be trained on a frozen base, saved.
//!
//! Knows the projections, not the purpose of training them.

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::{Device, Tensor};

use super::low_rank::LowRank;
use super::parameters;
use super::projection::Projection;
use super::transformer::{CausalLm, Decoder};
use crate::model::adapted::AdapterBase;
use crate::model::adapter::{self, Factors};
use crate::model::adapter_modules::AdaptedProjection;
use crate::model::initialization::generator;
use crate::model::parameters::{Parameter, Sink, transpose};
use crate::model::{AdapterConfig, Checkpoint, Dtype, ModelError, weights_writer};

impl Decoder {
    /// Every projection, under its name in a checkpoint, in the order of the parameters.
    pub(super) fn projections_mut(&mut self) -> impl Iterator<Item = (String, &mut Projection)> {
        self.layers.iter_mut().enumerate().flat_map(|(index, layer)| {
            let attention = &mut layer.self_attn;
            let inputs = [
                ("q_proj", &mut attention.q_proj),
                ("k_proj", &mut attention.k_proj),
                ("v_proj", &mut attention.v_proj),
                ("qkv_proj", &mut attention.qkv_proj),
            ];
            let inputs = inputs.into_iter().filter_map(|(name, projection)| Some((name, projection.as_mut()?)));
            let of_attention = inputs.chain([("o_proj", &mut attention.o_proj)]);
            let of_attention = of_attention.map(|(field, projection)| (format!("self_attn.{field}"), projection));
            let mlp = layer.mlp.iter_mut().map(|mlp| ("mlp".to_string(), mlp));
            let experts = layer.routed.iter_mut().flat_map(|routed| routed.experts.iter_mut().enumerate());
            let mlps = mlp.chain(experts.map(|(expert, mlp)| (format!("mlp.experts.{expert}"), mlp)));
            let of_mlps = mlps.flat_map(|(name, mlp)| {
                [("gate_proj", &mut mlp.gate_proj), ("up_proj", &mut mlp.up_proj), ("down_proj", &mut mlp.down_proj)]
                    .map(|(field, projection)| (format!("{name}.{field}"), projection))
            });
            let fused = layer
                .fused_mlp
                .iter_mut()
                .flat_map(|mlp| [("mlp.gate_up_proj", &mut mlp.gate_up_proj), ("mlp.down_proj", &mut mlp.down_proj)]);
            let all = of_attention.chain(of_mlps).chain(fused.map(|(name, projection)| (name.to_string(), projection)));
            all.map(move |(name, projection)| (format!("model.layers.{index}.{name}"), projection))
        })
    }
}

impl CausalLm {
    /// The model for one forward pass of training, with the adapter's dropout masks drawn from its
    /// seed and these numbers; without an adapter that drops anything it is the model as it is.
    pub fn with_dropout(&self, step: u64, item: u64) -> Self {
        let mut model = self.clone();
        for (number, (_, projection)) in (0..).zip(model.model.projections_mut()) {
            projection.adapter = projection.adapter.take().map(|adapter| adapter.masked([step, item, number]));
        }
        model
    }
}

impl Checkpoint {
    /// The base, frozen, with an adapter to train: this checkpoint's own, or where it has none a
    /// fresh one that adds nothing yet. Modules that the adapter saves whole are trained too.
    ///
    /// The same seed gives the same fresh adapter and the same dropout. Nothing else is held: the
    /// base is there once, and is the model without its adapter.
    ///
    /// # Errors
    /// When this checkpoint's own adapter is another one than `config` says, `config` means modules
    /// that the checkpoint or PEFT does not have, or a file cannot be read any more.
    pub fn load_adapted(&self, device: &Device, config: &AdapterConfig, seed: u64) -> Result<CausalLm, ModelError> {
        let AdapterBase { config: shape, modules, .. } =
            self.adapter_base(config).map_err(|problem| ModelError::invalid(&self.folder, problem))?;
        if let Some(own) = self.adapter.as_ref().filter(|own| !self.same_adapter(&own.config, config)) {
            let problem = format!("the adapter is {:?}, expected {config:?}", own.config);
            return Err(ModelError::invalid(&own.folder, problem));
        }
        let checked = self.check_adapted_experts(config);
        checked.map_err(|problem| ModelError::invalid(&self.folder, format!("adapter: {problem}")))?;
        let unfilled = CausalLm::unfilled(&shape, device);
        let saves = |name: &str| modules.saves(&self.stored_name(name));
        let filled = parameters::fill(unfilled, device, &mut |parameter| {
            let name = self.stored_name(&parameter.name);
            if modules.saves(&name) { self.parameter(&name) } else { self.base_parameter(&name) }
        })?;
        let mut model = parameters::trained_only(filled, &saves);
        let mut generator = generator(seed);
        // Behind the parameters of the base.
        let mut id = parameters::list(&model).len() as u64 + 1;
        for (name, projection) in model.model.projections_mut() {
            let Some(adapted) = modules.projection(&self.stored_name(&name)) else { continue };
            let factors = match &self.adapter {
                Some(own) => own.factors(adapted)?,
                None if modules.has_magnitudes => {
                    Factors::sample(adapted, Some(&parameters::host_values(projection.weight.val())?), &mut generator)
                }
                None => Factors::sample(adapted, None, &mut generator),
            };
            projection.adapter = Some(LowRank::new(factors, adapted, config.dropout, seed, id, device));
            id += if modules.has_magnitudes { 3 } else { 2 };
        }
        Ok(model)
    }

    /// Writes the adapter of `model`, which [`Checkpoint::load_adapted`] made by `config`, to
    /// `folder` in PEFT's format, the tokenizer beside it. The folder of the base is left open: the
    /// bytes do not depend on it.
    ///
    /// # Errors
    /// When the model has no such adapter, or a file cannot be written.
    pub fn save_adapter(&self, folder: &Path, config: &AdapterConfig, model: &CausalLm) -> Result<(), ModelError> {
        let AdapterBase { modules, .. } = self.adapter_base(config).map_err(|problem| ModelError::invalid(&self.folder, problem))?;
        self.write_companions(folder)?;
        config.write(folder, None)?;
        let mut model = model.clone();
        let mut saved: HashMap<String, Vec<f32>> = HashMap::new();
        if !modules.saved.is_empty() {
            let saves = |name: &str| modules.saves(&self.stored_name(name));
            parameters::each_named_value(&model, &saves, &mut |name, values| {
                saved.insert(self.stored_name(name), values);
                Ok(())
            })?;
        }
        let lacks = |name: &str| ModelError::invalid(folder, format!("the model to be saved has no adapter at {name}"));
        let stored = model.model.projections_mut().map(|(name, projection)| (self.stored_name(&name), projection));
        let adapters: HashMap<String, &mut Projection> = stored.collect();
        weights_writer::write_file(&folder.join(adapter::WEIGHTS), &modules.parameters(), Dtype::F32, |sink| {
            for AdaptedProjection { name, .. } in &modules.adapted {
                let adapter = adapters.get(name).and_then(|projection| projection.adapter.as_ref()).ok_or_else(|| lacks(name))?;
                write_factor(adapter.lora_a.val(), name, sink)?;
                write_factor(adapter.lora_b.val(), name, sink)?;
                if let Some(magnitude) = &adapter.magnitude {
                    sink(parameters::host_values(magnitude.val())?)?;
                }
            }
            for Parameter { name, .. } in &modules.saved {
                sink(saved.remove(name).ok_or_else(|| lacks(name))?)?;
            }
            Ok(())
        })
    }
}

/// Hands over a matrix in PEFT's layout, the transpose of a model's.
fn write_factor(factor: Tensor<2>, name: &str, sink: &mut Sink<'_>) -> Result<(), ModelError> {
    let [rows, columns] = factor.dims();
    match factor.try_into_vec_as::<f32>() {
        Ok(values) => sink(transpose(&values, rows, columns)),
        Err(error) => Err(ModelError::Device(format!("cannot read the adapter of {name} back: {error}"))),
    }
}
