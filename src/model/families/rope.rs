//! Rotary positions in `config.json`: `rope_parameters` as transformers 5 writes it, or
//! `rope_theta` and `rope_scaling` as earlier ones do. Knows no family.

use serde_json::{Map, Value};

use super::settings::{Defaults, Settings};
use crate::model::rope::{Llama3Scaling, LongRope, Rope, RopeScaling, Yarn};
use crate::model::{Activation, ModelConfig};

/// The keys that transformers knows for any type.
const KNOWN: [&str; 17] = [
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "factor",
    "high_freq_factor",
    "long_factor",
    "low_freq_factor",
    "mrope_section",
    "mscale",
    "mscale_all_dim",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "rope_theta",
    "rope_type",
    "short_factor",
    "truncate",
    "type",
];

/// What a family's class in transformers adds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) default_theta: f64,
    pub(super) max_position_embeddings: usize,
    /// Whether `partial_rotary_factor` counts.
    pub(super) is_partial: bool,
    /// Whether `su` and `yarn` are other names of longrope.
    pub(super) has_old_names: bool,
    /// `original_max_position_embeddings` where nothing else says it.
    pub(super) original: Option<f64>,
}

impl Reading {
    /// As most families read it.
    pub(super) fn new(default_theta: f64, max_position_embeddings: usize) -> Self {
        Self { default_theta, max_position_embeddings, is_partial: false, has_old_names: false, original: None }
    }

    /// The positions of a model with one rotation for all layers.
    pub(super) fn read(self, settings: &Settings) -> Result<Rope, String> {
        let (name, rope) = match (written(settings, "rope_scaling")?, written(settings, "rope_parameters")?) {
            (Some((_, scaling)), Some((_, parameters))) if scaling != parameters => {
                return Err("rope_scaling and rope_parameters say different things; expected one of them".to_string());
            }
            (scaling, parameters) => parameters.or(scaling).unwrap_or_default(),
        };
        let outer = settings.get::<f64>("rope_theta")?;
        if let (Some(outer), Some(inner)) = (outer, Settings::of(&rope).get::<f64>("rope_theta")?)
            && outer != inner
        {
            return Err(format!("rope_theta is {outer}, but {name} says {inner}; expected one value"));
        }
        // A setting of the model's own comes first, as transformers has it for Phi-3.
        let original = settings.get("original_max_position_embeddings")?.or(self.original);
        let partial = settings.get("partial_rotary_factor")?;
        Self { default_theta: outer.unwrap_or(self.default_theta), ..self }.parse(name, &rope, original, partial)
    }

    /// The positions of layers without a window and of those with one. `local` is the base of the
    /// latter where `rope_parameters` has none.
    pub(super) fn read_both(self, settings: &Settings, local: f64) -> Result<[Rope; 2], String> {
        let mut nested = written(settings, "rope_parameters")?.map(|(_, rope)| rope).unwrap_or_default();
        if let Some(key) = nested.keys().find(|key| !["full_attention", "sliding_attention"].contains(&key.as_str())) {
            return Err(format!("rope_parameters has {key}, expected full_attention and sliding_attention"));
        }
        let mut of_kind = |kind: &str| match nested.remove(kind) {
            None | Some(Value::Null) => Ok(Map::new()),
            Some(Value::Object(rope)) => Ok(rope),
            Some(other) => Err(format!("rope_parameters: {kind} is {other}, expected an object")),
        };
        let (mut full, sliding) = (of_kind("full_attention")?, of_kind("sliding_attention")?);
        full.extend(written(settings, "rope_scaling")?.map(|(_, scaling)| scaling).unwrap_or_default());
        let default_theta = settings.get("rope_theta")?.unwrap_or(self.default_theta);
        let parse = |default_theta: f64, rope: &Map<String, Value>| {
            let mut rope = rope.clone();
            // transformers looks for it beside both, where it is not.
            rope.remove("truncate");
            Self { default_theta, ..self }.parse("rope_parameters", &rope, None, None)
        };
        Ok([parse(default_theta, &full)?, parse(local, &sliding)?])
    }

    /// `original` and `partial` are settings of the model's own.
    fn parse(self, name: &str, rope: &Map<String, Value>, original: Option<f64>, partial: Option<f64>) -> Result<Rope, String> {
        let settings = Settings::of(rope);
        let kind = settings.get::<String>("rope_type")?.or(settings.get("type")?).unwrap_or_else(|| "default".to_string());
        let kind = match kind.as_str() {
            "su" | "yarn" if self.has_old_names => "longrope",
            other => other,
        };
        let unknown = |(key, value): &(&String, &Value)| {
            // transformers passes over all others of type default.
            value.is_object() || kind != "default" && !value.is_null() && !KNOWN.contains(&key.as_str())
        };
        if let Some((key, _)) = rope.iter().find(unknown) {
            return Err(format!("{name} of type {kind} has {key}, which is not supported"));
        }
        let partial = settings.get::<f64>("partial_rotary_factor")?.or(partial).unwrap_or(1.0);
        if !self.is_partial && kind != "default" && partial != 1.0 {
            return Err(format!("partial_rotary_factor is {partial}; supported: 1"));
        }
        let number = |key: &str| settings.get::<f64>(key)?.ok_or_else(|| format!("{name} of type {kind}: {key} is missing"));
        let context = self.max_position_embeddings as f64;
        let original = match original {
            Some(original) => original,
            None => settings.get("original_max_position_embeddings")?.unwrap_or(context),
        };
        let scaling = match kind {
            "default" => None,
            "linear" => Some(RopeScaling::Linear { factor: number("factor")? }),
            // The factor counts beyond the original context only.
            "dynamic" => {
                number("factor").map(|_| Some(RopeScaling::Dynamic { original_max_position_embeddings: self.max_position_embeddings }))?
            }
            "yarn" => Some(RopeScaling::Yarn(yarn(&settings, original, context)?)),
            "longrope" => {
                let list = |key: &str| settings.get::<Vec<f64>>(key)?.ok_or_else(|| format!("{name} of type longrope: {key} is missing"));
                list("long_factor")?;
                let factor = settings.get("factor")?.unwrap_or(context / original);
                let usual = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() };
                Some(RopeScaling::LongRope(LongRope {
                    short_factor: list("short_factor")?,
                    attention_factor: settings.get("attention_factor")?.unwrap_or(usual),
                    original_max_position_embeddings: original as usize,
                }))
            }
            "llama3" => Some(RopeScaling::Llama3(Llama3Scaling {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_max_position_embeddings: original,
            })),
            other => {
                return Err(format!(
                    "{name} of type {other} is not supported; supported: default, linear, dynamic, yarn, longrope, llama3"
                ));
            }
        };
        Ok(Rope {
            theta: settings.get("rope_theta")?.unwrap_or(self.default_theta),
            partial_rotary_factor: if self.is_partial { partial } else { 1.0 },
            scaling,
        })
    }
}

impl Settings<'_> {
    /// The model without what makes its family special: no biases, no norms of queries and keys,
    /// every layer with rotary positions and without a window. The head and the family's name are
    /// the caller's to set.
    pub(super) fn model(&self, defaults: &Defaults) -> Result<ModelConfig, String> {
        let rope = Reading::new(defaults.rope_theta, self.context(defaults)?).read(self)?;
        self.model_with(defaults, rope, self.activation("hidden_act", Activation::Silu)?)
    }
}

fn yarn(settings: &Settings, original: f64, context: f64) -> Result<Yarn, String> {
    let factor = settings.get("factor")?.unwrap_or(context / original);
    let scale = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * f64::ln(factor) + 1.0 };
    let both = settings.get::<f64>("mscale")?.zip(settings.get::<f64>("mscale_all_dim")?).filter(|(one, all)| *one != 0.0 && *all != 0.0);
    let usual = both.map_or_else(|| scale(1.0), |(one, all)| scale(one) / scale(all));
    // 0 is none, as in Python.
    let turns = |key: &str, usual: f64| Ok::<_, String>(settings.get(key)?.filter(|turns| *turns != 0.0).unwrap_or(usual));
    Ok(Yarn {
        factor,
        beta_fast: turns("beta_fast", 32.0)?,
        beta_slow: turns("beta_slow", 1.0)?,
        truncate: settings.get("truncate")?.unwrap_or(true),
        attention_factor: settings.get("attention_factor")?.unwrap_or(usual),
        original_max_position_embeddings: original,
    })
}

/// A key and its object.
type Entry = (&'static str, Map<String, Value>);

/// The object under a key, if it is there and has anything in it.
fn written(settings: &Settings, name: &'static str) -> Result<Option<Entry>, String> {
    Ok(settings.get::<Map<String, Value>>(name)?.filter(|rope| !rope.is_empty()).map(|rope| (name, rope)))
}
