//! The modules of a base that an adapter's names and patterns mean, by PEFT's rules.
//!
//! Knows parameters by name and shape, not their values. Patterns are Python's regular expressions.

use std::collections::{BTreeMap, BTreeSet};

use fancy_regex::Regex;

use super::adapter_config::{ALL_LINEAR, AdapterConfig, ModuleNames};
use super::parameters::Parameter;

/// The matrices of a projection's adapter in the weights file, `[rank, in]` and `[out, rank]`.
pub(crate) const LORA_A: &str = "lora_A.weight";
pub(crate) const LORA_B: &str = "lora_B.weight";
/// The magnitudes of a projection's adapter in the weights file, `[out]`.
pub(crate) const MAGNITUDE: &str = "lora_magnitude_vector";

/// The places of an adapter on one base.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AdapterModules {
    /// The adapted projections, in the order of the base's parameters.
    pub(crate) adapted: Vec<AdaptedProjection>,
    /// The base's parameters that the adapter replaces, in their order.
    pub(crate) saved: Vec<Parameter>,
    /// Whether each projection has magnitudes.
    pub(crate) has_magnitudes: bool,
    /// The place of each projection in `adapted`, by its name.
    places: BTreeMap<String, usize>,
}

/// A projection with an adapter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AdaptedProjection {
    /// As `model.layers.0.self_attn.q_proj`.
    pub(crate) name: String,
    pub(crate) rank: usize,
    /// The factor of the low-rank term.
    pub(crate) scale: f64,
    /// Widths of the projection's input and output.
    pub(crate) dims: [usize; 2],
}

impl AdapterModules {
    /// The modules of a base with these `parameters` that `config` means.
    ///
    /// # Errors
    /// A sentence: an invalid pattern, a module that cannot have an adapter, or no module at all.
    pub(crate) fn new(config: &AdapterConfig, parameters: &[Parameter]) -> Result<Self, String> {
        let all = matches!(&config.targets, ModuleNames::Pattern(all) if all == ALL_LINEAR);
        let named = all.then(|| AdapterConfig { targets: ModuleNames::Names(projections(parameters)), ..config.clone() });
        let config = named.as_ref().unwrap_or(config);
        let rules = Rules::new(config)?;
        let shapes: BTreeMap<&str, &[usize]> =
            parameters.iter().filter_map(|parameter| Some((parameter.projection()?, &parameter.shape[..]))).collect();
        let mut adapted = Vec::new();
        for module in modules(parameters) {
            if !rules.adapts(&module)? {
                continue;
            }
            let Some([to, from]) = shapes.get(module.as_str()) else {
                return Err(format!(
                    "target_modules {} means {module} too; supported are the projections of the layers: {}",
                    config.targets,
                    projections(parameters).join(", ")
                ));
            };
            let (rank, scale) = rules.rank_and_scale(&module)?;
            adapted.push(AdaptedProjection { name: module, rank, scale, dims: [*from, *to] });
        }
        let saved: Vec<Parameter> = parameters.iter().filter(|parameter| is_saved(config, &parameter.name)).cloned().collect();
        if adapted.is_empty() {
            let (targets, found) = (&config.targets, projections(parameters).join(", "));
            return Err(format!("target_modules is {targets}, which are no projections of the base's; it has {found}"));
        }
        if saved.is_empty() && !config.modules_to_save.is_empty() {
            let names = config.modules_to_save.join(", ");
            return Err(format!("modules_to_save is {names}, which are no modules of the base's"));
        }
        if let Some(both) = adapted
            .iter()
            .find(|projection| saved.iter().any(|saved| saved.name.rsplit_once('.').is_some_and(|(module, _)| module == projection.name)))
        {
            return Err(format!("{} is in target_modules and in modules_to_save; expected it in one of them", both.name));
        }
        let places = adapted.iter().enumerate().map(|(place, projection)| (projection.name.clone(), place)).collect();
        Ok(Self { adapted, saved, has_magnitudes: config.use_dora, places })
    }

    /// The projection of this name, if it is adapted.
    pub(crate) fn projection(&self, name: &str) -> Option<&AdaptedProjection> {
        self.places.get(name).and_then(|place| self.adapted.get(*place))
    }

    /// Whether the adapter replaces the base's parameter of this name.
    pub(crate) fn saves(&self, parameter: &str) -> bool {
        self.saved.iter().any(|saved| saved.name == parameter)
    }

    /// The parameters of the weights file, in its order.
    pub(crate) fn parameters(&self) -> Vec<Parameter> {
        let mut parameters = Vec::new();
        for AdaptedProjection { name, rank, dims: [from, to], .. } in &self.adapted {
            let mut add = |part: &str, shape: Vec<usize>| {
                let transposed = shape.len() == 2;
                parameters.push(Parameter { name: key(&format!("{name}.{part}")), shape, transposed });
            };
            add(LORA_A, vec![*rank, *from]);
            add(LORA_B, vec![*to, *rank]);
            if self.has_magnitudes {
                add(MAGNITUDE, vec![*to]);
            }
        }
        parameters.extend(self.saved.iter().map(|saved| Parameter { name: key(&saved.name), ..saved.clone() }));
        parameters
    }
}

/// The name in the weights file of a part of the base, or beside it.
pub(crate) fn key(name: &str) -> String {
    format!("base_model.model.{name}")
}

/// The names of all modules in transformers, each once: those of the parameters without their last
/// part, what these are in, and the activations of MLPs. A pattern that means another module than a
/// projection is an error in PEFT too.
fn modules(parameters: &[Parameter]) -> Vec<String> {
    let (mut modules, mut seen) = (Vec::new(), BTreeSet::new());
    for parameter in parameters {
        let mut name = parameter.name.as_str();
        while let Some((module, _)) = name.rsplit_once('.') {
            if seen.insert(module) {
                modules.push(module.to_string());
                modules.extend(module.ends_with(".mlp").then(|| format!("{module}.act_fn")));
            }
            name = module;
        }
    }
    modules
}

/// The last parts of the names of all projections but the head, each once: the meaning of
/// `all-linear`.
pub(super) fn projections(parameters: &[Parameter]) -> Vec<String> {
    let names = parameters.iter().filter_map(|parameter| parameter.projection()?.rsplit('.').next());
    let mut names: Vec<String> = names.map(str::to_string).collect();
    names.sort();
    names.dedup();
    names
}

/// Whether a parameter is in a module that is saved: as PEFT, by the end of the module's name
/// alone, so that `norm` means `input_layernorm` too.
fn is_saved(config: &AdapterConfig, parameter: &str) -> bool {
    let ends = |module: &str| config.modules_to_save.iter().any(|name| module.ends_with(name.as_str()));
    parameter.match_indices('.').any(|(at, _)| ends(&parameter[..at]))
}

/// A configuration's rules, compiled.
struct Rules<'a> {
    config: &'a AdapterConfig,
    targets: Matcher<'a>,
    excluded: Option<Matcher<'a>>,
    saved: Vec<Regex>,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
    layers: Vec<Regex>,
}

enum Matcher<'a> {
    Names(&'a [String]),
    Pattern(Regex),
}

impl<'a> Rules<'a> {
    fn new(config: &'a AdapterConfig) -> Result<Self, String> {
        let end = |key: &str, pattern: &str| compile(key, pattern, &format!(r"\A(.*\.)?({pattern})\z"));
        // The first number behind a name is the layer's, as in PEFT.
        let layers = match &config.layers_pattern[..] {
            [] => vec![compile("layers_pattern", "", r"\A.*?\.[^.]*\.(?P<idx>\d+)\.")?],
            patterns => {
                let layer = |pattern: &String| compile("layers_pattern", pattern, &format!(r"\A(?:.*?\.)?{pattern}\.(?P<idx>\d+)\."));
                patterns.iter().map(layer).collect::<Result<_, _>>()?
            }
        };
        let saved = |name: &String| compile("modules_to_save", name, &format!(r"\A(^|.*\.){name}($|\..*)"));
        Ok(Self {
            config,
            targets: Matcher::new("target_modules", &config.targets)?,
            excluded: config.excluded.as_ref().map(|excluded| Matcher::new("exclude_modules", excluded)).transpose()?,
            saved: config.modules_to_save.iter().map(saved).collect::<Result<_, _>>()?,
            ranks: config
                .rank_pattern
                .iter()
                .map(|(pattern, rank)| Ok((end("rank_pattern", pattern)?, *rank)))
                .collect::<Result<_, String>>()?,
            alphas: config
                .alpha_pattern
                .iter()
                .map(|(key, alpha)| Ok((end("alpha_pattern", key)?, *alpha)))
                .collect::<Result<_, String>>()?,
            layers,
        })
    }

    /// PEFT's `check_target_module_exists`.
    fn adapts(&self, module: &str) -> Result<bool, String> {
        if let Some(excluded) = &self.excluded
            && excluded.matches(module)?
        {
            return Ok(false);
        }
        for saved in &self.saved {
            if is_match(saved, module)? {
                return Ok(false);
            }
        }
        match &self.targets {
            names @ Matcher::Names(_) if !self.config.layers.is_empty() => Ok(names.matches(module)? && self.is_in_layers(module)?),
            targets => targets.matches(module),
        }
    }

    fn is_in_layers(&self, module: &str) -> Result<bool, String> {
        for layer in &self.layers {
            let captures = layer.captures(module).map_err(|error| error.to_string())?;
            if let Some(index) = captures.as_ref().and_then(|captures| captures.name("idx")) {
                return Ok(index.as_str().parse().is_ok_and(|index: usize| self.config.layers.contains(&index)));
            }
        }
        Ok(false)
    }

    fn rank_and_scale(&self, module: &str) -> Result<(usize, f64), String> {
        let rank = first(&self.ranks, module)?.unwrap_or(self.config.rank);
        let alpha = first(&self.alphas, module)?.unwrap_or(self.config.alpha);
        let divisor = if self.config.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
        Ok((rank, alpha / divisor))
    }
}

impl<'a> Matcher<'a> {
    fn new(key: &str, modules: &'a ModuleNames) -> Result<Self, String> {
        Ok(match modules {
            ModuleNames::Names(names) => Self::Names(names),
            ModuleNames::Pattern(pattern) => Self::Pattern(compile(key, pattern, &format!(r"\A(?:{pattern})\z"))?),
        })
    }

    fn matches(&self, module: &str) -> Result<bool, String> {
        match self {
            Self::Names(names) => {
                let ends = |name: &String| module.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
                Ok(names.iter().any(ends))
            }
            Self::Pattern(pattern) => is_match(pattern, module),
        }
    }
}

/// `whole`, made of the `pattern` of a setting.
fn compile(key: &str, pattern: &str, whole: &str) -> Result<Regex, String> {
    Regex::new(whole).map_err(|error| format!("{key}: \"{pattern}\" is no regular expression that is supported: {error}"))
}

fn is_match(pattern: &Regex, module: &str) -> Result<bool, String> {
    pattern.is_match(module).map_err(|error| format!("\"{pattern}\" cannot be tried on {module}: {error}"))
}

/// The value of the first pattern that matches.
fn first<T: Copy>(patterns: &[(Regex, T)], module: &str) -> Result<Option<T>, String> {
    for (pattern, value) in patterns {
        if is_match(pattern, module)? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}
