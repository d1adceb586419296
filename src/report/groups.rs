//! Groups of runs with the same settings but for the seed, and the differences between the groups.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::error::ReportError;
use super::source::{Source, form};
use super::words::shortened;

/// The most settings in the name of a group; runs with more differences are called by their own
/// names.
const MOST_NAMING: usize = 4;
/// Characters of a value that are shown.
const MOST_CHARACTERS: usize = 80;

/// Runs that differ in their seeds only.
pub struct Group {
    /// Its difference from the other groups, in words.
    pub name: String,
    /// The values of the differing settings, in the order of [`Groups::settings`].
    pub values: Vec<String>,
    /// The runs, by their index.
    pub runs: Vec<usize>,
}

/// Several runs, grouped.
pub struct Groups {
    /// The settings in which the runs differ, seeds aside.
    pub settings: Vec<String>,
    /// The groups, in the order of their values.
    pub all: Vec<Group>,
}

impl Groups {
    /// Groups runs by every setting of their resolved pipelines but name and seed. If a param fills
    /// in a setting, both differ in the same way; only the param is named.
    ///
    /// # Errors
    /// A run's `pipeline.yaml` is no YAML.
    pub fn of(runs: &[Source]) -> Result<Self, ReportError> {
        let all: Vec<BTreeMap<String, String>> = runs.iter().map(flat).collect::<Result<_, _>>()?;
        let paths: BTreeSet<&String> = all.iter().flat_map(BTreeMap::keys).collect();
        let column = |path: &str| all.iter().map(|settings| settings.get(path).cloned().unwrap_or_default()).collect::<Vec<String>>();
        let differing = paths
            .into_iter()
            .map(|path| (path.clone(), column(path)))
            .filter(|(_, values)| values.iter().any(|value| Some(value) != values.first()));
        let (params, others): (Vec<_>, Vec<_>) = differing.partition(|(path, _)| path.starts_with("params."));
        let filled_in = |values: &[String]| params.iter().any(|(_, param)| partition(param) == partition(values));
        let others: Vec<_> = others.into_iter().filter(|(_, values)| !filled_in(values)).collect();
        let differing: Vec<(String, Vec<String>)> = params.into_iter().chain(others).collect();

        let mut by_values: BTreeMap<Vec<Ordered>, Vec<usize>> = BTreeMap::new();
        for run in 0..runs.len() {
            let values = differing.iter().map(|(_, values)| Ordered::of(values.get(run).map_or("", String::as_str))).collect();
            by_values.entry(values).or_default().push(run);
        }
        let settings: Vec<String> = differing.iter().map(|(path, _)| path.strip_prefix("params.").unwrap_or(path).to_string()).collect();
        let groups = by_values.into_iter().map(|(values, members)| {
            let values: Vec<String> = values.into_iter().map(|value| shortened(&value.text, MOST_CHARACTERS)).collect();
            let called = |run: &usize| runs.get(*run).map(Source::name).unwrap_or_default();
            let name = match settings.len() {
                0 if members.len() > 1 => "all runs".to_string(),
                1..=MOST_NAMING => settings
                    .iter()
                    .zip(&values)
                    .map(|(setting, value)| format!("{} {value}", last_word(setting)))
                    .collect::<Vec<_>>()
                    .join(", "),
                _ if members.len() > 1 => format!("{} and {} more", members.first().map(called).unwrap_or_default(), members.len() - 1),
                _ => members.first().map(called).unwrap_or_default().to_string(),
            };
            Group { name, values, runs: members }
        });
        let all = groups.collect();
        Ok(Self { settings, all })
    }

    /// The setting with the most values for which there are enough colours. Its curves share one
    /// chart; the other settings make charts of their own. `None` where one chart is enough or the
    /// settings do not help.
    pub fn colored_by(&self, most_curves: usize) -> Option<usize> {
        if self.all.len() <= most_curves || self.settings.len() < 2 || self.settings.len() > MOST_NAMING {
            return None;
        }
        let values = |setting: usize| self.all.iter().filter_map(|group| group.values.get(setting)).collect::<BTreeSet<_>>().len();
        let fitting = (0..self.settings.len()).filter(|setting| (2..=most_curves).contains(&values(*setting)));
        fitting.max_by_key(|setting| (values(*setting), std::cmp::Reverse(*setting)))
    }
}

/// The last part of a setting's path.
pub fn last_word(setting: &str) -> &str {
    setting.rsplit('.').next().unwrap_or(setting)
}

/// For each run, the first run with the same value.
fn partition(values: &[String]) -> Vec<Option<usize>> {
    values.iter().map(|value| values.iter().position(|other| other == value)).collect()
}

/// A value that sorts as a number where it is one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Ordered {
    /// The number's bits in numeric order; texts come after.
    number: u64,
    text: String,
}

impl Ordered {
    fn of(text: &str) -> Self {
        let ordered = |number: f64| {
            let bits = number.to_bits();
            if bits >> 63 == 1 { !bits } else { bits | (1 << 63) }
        };
        Self { number: text.parse().map_or(u64::MAX, ordered), text: text.to_string() }
    }
}

/// Every setting by its path, without names and seeds.
fn flat(source: &Source) -> Result<BTreeMap<String, String>, ReportError> {
    let value: Value = serde_saphyr::from_str(&source.yaml).map_err(|error| form(format!("{}: pipeline.yaml", source.name()), error))?;
    let mut settings = BTreeMap::new();
    flatten(String::new(), &value, &mut settings);
    for ours in ["name", "seed", "params.seed"] {
        settings.remove(ours);
    }
    Ok(settings)
}

fn flatten(path: String, value: &Value, settings: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            for (key, value) in entries {
                flatten(if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, value, settings);
            }
        }
        Value::String(text) => drop(settings.insert(path, text.clone())),
        other => drop(settings.insert(path, other.to_string())),
    }
}
