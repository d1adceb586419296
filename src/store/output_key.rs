//! The key of an output within its run: kind, node and iteration.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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

    /// The folder for this kind within a run.
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
    /// Table or model.
    pub kind: OutputKind,
    /// The node's name.
    pub name: String,
    /// The iteration, from 1; `None` for a node outside the loop.
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

    /// `tables/<name>` or `models/<name>`, with `/iteration=N` for an output of the loop. N is
    /// unpadded: other readers parse it as a number.
    pub fn relative_path(&self) -> PathBuf {
        let path = PathBuf::from(self.kind.folder()).join(&self.name);
        match self.iteration {
            Some(iteration) => path.join(format!("iteration={iteration}")),
            None => path,
        }
    }

    /// The iteration in a folder's name `iteration=N`.
    pub(super) fn iteration_of(folder: &str) -> Option<u32> {
        let number = folder.strip_prefix("iteration=")?;
        number.parse().ok().filter(|iteration: &u32| iteration.to_string() == number)
    }

    /// The key as one word for file names.
    pub(super) fn word(&self) -> String {
        match self.iteration {
            Some(iteration) => format!("{}-{}", self.name, iteration),
            None => self.name.clone(),
        }
    }
}

impl fmt::Display for OutputKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.name)?;
        self.iteration.map_or(Ok(()), |iteration| write!(f, ", iteration {iteration}"))
    }
}
