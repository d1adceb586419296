//! Where an output of a node is within its run.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::StoreError;

/// A table of Parquet parts or a model directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputKind {
    /// Parquet parts under `tables/`.
    Table,
    /// A Hugging Face directory under `models/`.
    Model,
}

impl OutputKind {
    /// `table` or `model`.
    pub fn name(self) -> &'static str {
        match self {
            OutputKind::Table => "table",
            OutputKind::Model => "model",
        }
    }

    /// The folder of the run that has all of this kind.
    pub(super) fn folder(self) -> &'static str {
        match self {
            OutputKind::Table => "tables",
            OutputKind::Model => "models",
        }
    }
}

/// One output of one node in one iteration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutputKey {
    /// What it is.
    pub kind: OutputKind,
    /// The node's name.
    pub name: String,
    /// The iteration, from 1; `None` for a node that runs once.
    pub iteration: Option<u32>,
}

impl OutputKey {
    /// The table `name`.
    pub fn table(name: impl Into<String>, iteration: Option<u32>) -> Self {
        Self { kind: OutputKind::Table, name: name.into(), iteration }
    }

    /// The model `name`.
    pub fn model(name: impl Into<String>, iteration: Option<u32>) -> Self {
        Self { kind: OutputKind::Model, name: name.into(), iteration }
    }

    /// `tables/<name>` or `models/<name>`, then `iteration=N` if there is one. Unpadded: readers take N for a number.
    pub fn relative_path(&self) -> PathBuf {
        let path = PathBuf::from(self.kind.folder()).join(&self.name);
        match self.iteration {
            Some(iteration) => path.join(format!("iteration={iteration}")),
            None => path,
        }
    }

    /// The iteration that a folder's name states.
    pub(super) fn iteration_of(folder: &str) -> Option<u32> {
        let number = folder.strip_prefix("iteration=")?;
        number.parse().ok().filter(|iteration: &u32| iteration.to_string() == number)
    }

    /// One word for file names.
    pub(super) fn word(&self) -> String {
        match self.iteration {
            Some(iteration) => format!("{}-{}", self.name, iteration),
            None => self.name.clone(),
        }
    }

    /// Refuses a name that could lead out of the run's folder.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        check_name(self.kind.name(), &self.name)
    }
}

impl fmt::Display for OutputKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.name)?;
        self.iteration.map_or(Ok(()), |iteration| write!(f, ", iteration {iteration}"))
    }
}

/// Refuses a `name` that is not one plain file name on every system.
pub(super) fn check_name(what: &'static str, name: &str) -> Result<(), StoreError> {
    let plain = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if plain && !name.is_empty() && !name.starts_with('.') && !name.ends_with('.') && name.len() <= 128 {
        Ok(())
    } else {
        Err(StoreError::Name { what, name: name.to_string() })
    }
}
