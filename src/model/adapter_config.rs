//! The settings of a LoRA adapter, in the words of PEFT's `adapter_config.json`.
//!
//! Unsupported settings of PEFT are refused by name, never ignored. Knows no model: which modules
//! the names and patterns mean is the part of `adapter_modules`.

use std::fmt;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::ModelError;
use super::files::read_json;
use super::head::Head;
use crate::disk;

/// The file of an adapter's configuration. A folder with it is an adapter.
pub(crate) const CONFIG: &str = "adapter_config.json";

/// The settings that are read.
const KNOWN: [&str; 17] = [
    "alpha_pattern",
    "bias",
    "exclude_modules",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "modules_to_save",
    "peft_type",
    "r",
    "rank_pattern",
    "target_modules",
    "task_type",
    "use_dora",
    "use_rslora",
    "ensure_weight_tying",
];

/// Settings of PEFT without an effect on the model here. Other unknown settings must be absent,
/// null, false or empty. (`fan_in_fan_out` is for layers of GPT-2: PEFT itself takes it back for
/// others.)
const HARMLESS: [&str; 9] = [
    "auto_mapping",
    "base_model_name_or_path",
    "fan_in_fan_out",
    "inference_mode",
    "loftq_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
];

/// The modules that PEFT trains whole in a classifier, beside its adapter.
const CLASSIFIER_MODULES: [&str; 2] = ["classifier", "score"];

/// The words of PEFT for all projections but the head.
pub(super) const ALL_LINEAR: &str = "all-linear";

/// Modules by name, as `target_modules` and `exclude_modules` of PEFT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleNames {
    /// Modules of one of these names, or with a name that ends in a dot and one of these.
    Names(Vec<String>),
    /// Modules whose whole name matches this regular expression of Python.
    Pattern(String),
}

/// An adapter's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    /// How many numbers a token goes through: r.
    pub rank: usize,
    /// The low-rank term is multiplied by alpha / rank, or with `use_rslora` by alpha / √rank.
    pub alpha: f64,
    /// The share of a projection's inputs hidden from the term in each training step, at least 0
    /// and below 1.
    pub dropout: f64,
    /// Whether the factor of the term is alpha / √rank (rsLoRA, Kalajdzievski 2023, arXiv
    /// 2312.03732).
    pub use_rslora: bool,
    /// Whether the weight with the term is scaled to trained magnitudes (DoRA, Liu et al. 2024,
    /// arXiv 2402.09353).
    pub use_dora: bool,
    /// The adapted projections.
    pub targets: ModuleNames,
    /// Projections without an adapter, whatever `targets` says.
    pub excluded: Option<ModuleNames>,
    /// Other ranks: of modules whose name, or its end behind a dot, matches the regular expression.
    /// The first match counts.
    pub rank_pattern: Vec<(String, usize)>,
    /// Other alphas, as `rank_pattern`.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Modules trained whole, by the ends of their names.
    pub modules_to_save: Vec<String>,
    /// The layers with an adapter; all where there are none. Only for `targets` by name.
    pub layers: Vec<usize>,
    /// The names of the lists of layers that `layers` counts in; any where there are none.
    pub layers_pattern: Vec<String>,
    /// The head of the model.
    pub head: Head,
}

/// PEFT's own defaults, without any target.
impl Default for AdapterConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 8.0,
            dropout: 0.0,
            use_rslora: false,
            use_dora: false,
            targets: ModuleNames::Names(Vec::new()),
            excluded: None,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            modules_to_save: Vec::new(),
            layers: Vec::new(),
            layers_pattern: Vec::new(),
            head: Head::CausalLm,
        }
    }
}

impl AdapterConfig {
    pub(super) fn read(path: &Path) -> Result<Self, ModelError> {
        let invalid = |problem: String| ModelError::invalid(path, problem);
        let written = read_json(path)?;
        let Some(settings) = written.as_object() else { return Err(invalid("expected a JSON object".to_string())) };
        Self::from_settings(&Settings(settings)).map_err(invalid)
    }

    fn from_settings(settings: &Settings) -> Result<Self, String> {
        settings.expect("peft_type", &[json!("LORA")])?;
        settings.expect("task_type", &[json!("CAUSAL_LM"), json!("SEQ_CLS"), Value::Null])?;
        settings.expect("bias", &[json!("none"), Value::Null])?;
        // Other initializations change the base's weights: the term no longer fits them.
        let initial = [json!(true), json!(false), json!("gaussian"), json!("orthogonal"), Value::Null];
        settings.expect("init_lora_weights", &initial)?;
        settings.refuse_unknown()?;
        let head = if settings.get("task_type") == "SEQ_CLS" { Head::Reward } else { Head::CausalLm };
        let dropout = settings.number("lora_dropout")?.unwrap_or(0.0);
        if !(0.0..1.0).contains(&dropout) {
            return Err(format!("lora_dropout is {dropout}, expected at least 0 and below 1"));
        }
        let mut modules_to_save = settings.names("modules_to_save")?;
        if head == Head::Reward {
            modules_to_save.extend(CLASSIFIER_MODULES.map(str::to_string));
            modules_to_save.sort();
            modules_to_save.dedup();
        }
        if settings.get("ensure_weight_tying") == true && !modules_to_save.is_empty() && head == Head::CausalLm {
            return Err("ensure_weight_tying with modules_to_save is not supported; expected an adapter without it".to_string());
        }
        let targets = settings.modules("target_modules")?;
        Ok(Self {
            rank: settings.rank("r", settings.get("r"))?,
            alpha: settings.number("lora_alpha")?.ok_or("lora_alpha is null, expected a number")?,
            dropout,
            use_rslora: settings.flag("use_rslora")?,
            use_dora: settings.flag("use_dora")?,
            targets: targets.ok_or("target_modules is null, expected a list of names or a regular expression")?,
            excluded: settings.modules("exclude_modules")?,
            rank_pattern: settings.pattern("rank_pattern", |key, value| settings.rank(key, value))?,
            alpha_pattern: settings
                .pattern("alpha_pattern", |key, value| value.as_f64().ok_or_else(|| format!("{key} is {value}, expected a number")))?,
            modules_to_save,
            layers: settings.layers()?,
            layers_pattern: settings.names("layers_pattern")?,
            head,
        })
    }

    /// Writes `adapter_config.json`; `base` is where PEFT finds the base, if it is to find it by
    /// itself.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, folder: &Path, base: Option<&str>) -> Result<(), ModelError> {
        let list = |names: &[String]| if names.is_empty() { Value::Null } else { json!(names) };
        let task = if self.head == Head::Reward { "SEQ_CLS" } else { "CAUSAL_LM" };
        let alphas: Map<String, Value> = self.alpha_pattern.iter().map(|(key, alpha)| (key.clone(), number(*alpha))).collect();
        let ranks: Map<String, Value> = self.rank_pattern.iter().map(|(key, rank)| (key.clone(), json!(rank))).collect();
        let mut settings = json!({
            "alpha_pattern": alphas, "base_model_name_or_path": base, "bias": "none", "exclude_modules": self.excluded.as_ref().map(in_json),
            "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true, "lora_alpha": number(self.alpha),
            "lora_dropout": self.dropout, "modules_to_save": list(&self.modules_to_save), "peft_type": "LORA", "r": self.rank,
            "rank_pattern": ranks, "target_modules": in_json(&self.targets), "task_type": task, "use_dora": self.use_dora,
            "use_rslora": self.use_rslora,
        });
        if !self.layers.is_empty() {
            settings["layers_to_transform"] = json!(self.layers);
            settings["layers_pattern"] = list(&self.layers_pattern);
        }
        let path = folder.join(CONFIG);
        disk::write(&path, format!("{settings:#}\n")).map_err(|source| ModelError::Write { path, source })
    }
}

/// PEFT writes a whole number without a decimal point.
fn number(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e15 { json!(number as i64) } else { json!(number) }
}

fn in_json(modules: &ModuleNames) -> Value {
    match modules {
        ModuleNames::Names(names) => {
            let mut names = names.clone();
            names.sort();
            names.dedup();
            json!(names)
        }
        ModuleNames::Pattern(pattern) => json!(pattern),
    }
}

/// The keys of an `adapter_config.json`. A problem is a sentence without the file's name.
struct Settings<'a>(&'a Map<String, Value>);

impl Settings<'_> {
    fn get(&self, key: &str) -> &Value {
        self.0.get(key).unwrap_or(&Value::Null)
    }

    fn expect(&self, key: &str, accepted: &[Value]) -> Result<(), String> {
        if accepted.contains(self.get(key)) {
            return Ok(());
        }
        let accepted: Vec<String> = accepted.iter().filter(|value| !value.is_null()).map(Value::to_string).collect();
        Err(format!("{key} is {}; supported: {}", self.get(key), accepted.join(", ")))
    }

    fn refuse_unknown(&self) -> Result<(), String> {
        for (key, value) in self.0.iter().filter(|(key, _)| !KNOWN.contains(&key.as_str()) && !HARMLESS.contains(&key.as_str())) {
            let off = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(items) => items.is_empty(),
                Value::Object(entries) => entries.is_empty(),
                _ => false,
            };
            if !off {
                return Err(format!("{key} is {value}, which is not supported; expected an adapter without it"));
            }
        }
        Ok(())
    }

    fn number(&self, key: &str) -> Result<Option<f64>, String> {
        match self.get(key) {
            Value::Null => Ok(None),
            value => value.as_f64().map(Some).ok_or_else(|| format!("{key} is {value}, expected a number")),
        }
    }

    fn flag(&self, key: &str) -> Result<bool, String> {
        match self.get(key) {
            Value::Null => Ok(false),
            value => value.as_bool().ok_or_else(|| format!("{key} is {value}, expected true or false")),
        }
    }

    fn rank(&self, key: &str, value: &Value) -> Result<usize, String> {
        let rank = value.as_f64().filter(|rank| *rank >= 1.0 && rank.fract() == 0.0 && *rank <= f64::from(u32::MAX));
        rank.map(|rank| rank as usize).ok_or_else(|| format!("{key} is {value}, expected a whole number of at least 1"))
    }

    /// A list of names, or one name.
    fn names(&self, key: &str) -> Result<Vec<String>, String> {
        let names = match self.get(key) {
            Value::Null => Some(Vec::new()),
            Value::String(name) => Some(vec![name.clone()]),
            Value::Array(names) => names.iter().map(|name| name.as_str().map(str::to_string)).collect(),
            _ => None,
        };
        names.ok_or_else(|| format!("{key} is {}, expected a list of names", self.get(key)))
    }

    fn modules(&self, key: &str) -> Result<Option<ModuleNames>, String> {
        match self.get(key) {
            Value::String(pattern) => Ok(Some(ModuleNames::Pattern(pattern.clone()))),
            Value::Null => Ok(None),
            Value::Array(_) => self.names(key).map(|names| Some(ModuleNames::Names(names))),
            value => Err(format!("{key} is {value}, expected a list of names or a regular expression")),
        }
    }

    fn pattern<T>(&self, key: &str, value: impl Fn(&str, &Value) -> Result<T, String>) -> Result<Vec<(String, T)>, String> {
        match self.get(key) {
            Value::Null => Ok(Vec::new()),
            Value::Object(entries) => {
                let entry = |(name, found): (&String, &Value)| Ok((name.clone(), value(&format!("{key}: {name}"), found)?));
                entries.iter().map(entry).collect()
            }
            found => Err(format!("{key} is {found}, expected an object")),
        }
    }

    fn layers(&self) -> Result<Vec<usize>, String> {
        let found = self.get("layers_to_transform");
        let layer = |value: &Value| value.as_u64().and_then(|layer| usize::try_from(layer).ok());
        let layers = match found {
            Value::Null => Some(Vec::new()),
            Value::Array(layers) => layers.iter().map(layer).collect(),
            one => layer(one).map(|layer| vec![layer]),
        };
        layers.ok_or_else(|| format!("layers_to_transform is {found}, expected numbers of layers"))
    }
}

impl fmt::Display for ModuleNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names(names) => f.write_str(&names.join(", ")),
            Self::Pattern(pattern) => write!(f, "\"{pattern}\""),
        }
    }
}

/// The settings that decide which parameters an adapter has, and their meaning.
impl fmt::Display for AdapterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {}, alpha {}", self.rank, self.alpha)?;
        for (key, is_on) in [("use_rslora", self.use_rslora), ("use_dora", self.use_dora)] {
            if is_on {
                write!(f, ", {key}")?;
            }
        }
        for (pattern, rank) in &self.rank_pattern {
            write!(f, ", rank {rank} for \"{pattern}\"")?;
        }
        for (pattern, alpha) in &self.alpha_pattern {
            write!(f, ", alpha {alpha} for \"{pattern}\"")?;
        }
        if let Some(excluded) = &self.excluded {
            write!(f, ", exclude_modules {excluded}")?;
        }
        if !self.modules_to_save.is_empty() {
            write!(f, ", modules_to_save {}", self.modules_to_save.join(", "))?;
        }
        if !self.layers.is_empty() {
            write!(f, ", layers_to_transform {:?}", self.layers)?;
        }
        write!(f, " and target_modules {}", self.targets)
    }
}
