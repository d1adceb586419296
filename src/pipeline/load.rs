//! From a file to [`Spec`]: YAML, version, params, types.
//!
//! Knows what may be written, not whether it makes sense together.

use std::path::Path;

use serde::Deserialize;

use super::error::{Fault, PipelineError};
use super::files;
use super::graph::Graph;
use super::params;
use super::spec::Spec;
use super::tree::{LARGEST_FILE_BYTES, Tree, Value};
use super::unroll::unroll;

/// A pipeline file that was read: all its keys and settings are known and in range; its names are not checked yet.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// The file as types, params filled in.
    pub spec: Spec,
    file: String,
    text: String,
}

impl Pipeline {
    /// Reads a file, with params replaced by `sets`.
    ///
    /// # Errors
    /// A file that cannot be read or is not valid YAML, an unknown version, key, param or value, a setting out of its range.
    pub fn load(path: &Path, sets: &[(String, String)]) -> Result<Self, PipelineError> {
        let file = path.display().to_string();
        match files::text(path, LARGEST_FILE_BYTES) {
            Ok(text) => Self::read(&file, &text, sets),
            Err(error) => Err(Fault::nowhere(format!("cannot read the pipeline file: {error}")).in_file(&file, "")),
        }
    }

    /// Reads a text, with params replaced by `sets`; `file` is its name in errors.
    ///
    /// # Errors
    /// As [`Pipeline::load`].
    pub fn read(file: &str, text: &str, sets: &[(String, String)]) -> Result<Self, PipelineError> {
        match spec(text, sets) {
            Ok(spec) => Ok(Self { spec, file: file.to_string(), text: text.to_string() }),
            Err(fault) => Err(fault.in_file(file, text)),
        }
    }

    /// Checks names, slots, files and cycles, and unrolls the iterations. Paths are taken from `folder`, usually the working directory (an
    /// empty path).
    ///
    /// # Errors
    /// A name that leads nowhere or to something else than the slot takes, a cycle, a missing file, a query that cannot be parsed or reads
    /// an unknown table.
    pub fn graph(&self, folder: &Path) -> Result<Graph, PipelineError> {
        unroll(self.spec.clone(), folder).map_err(|fault| fault.in_file(&self.file, &self.text))
    }
}

fn spec(text: &str, sets: &[(String, String)]) -> Result<Spec, Fault> {
    let mut tree = Tree::read(text)?;
    version(&tree)?;
    params::fill_in(&mut tree, sets)?;
    Spec::deserialize(&tree)
}

/// The first key must be `optune: 1`, so that files of other versions are told before anything else is wrong with them.
fn version(root: &Tree) -> Result<(), Fault> {
    let Value::Mapping(entries) = &root.value else {
        return Err(Fault::at(root.span, "expected a mapping that begins with \"optune: 1\""));
    };
    match entries.first() {
        Some((key, version)) if key.text() == Some("optune") => match version.value {
            Value::Integer(1) => {}
            Value::Integer(other) => {
                return Err(Fault::at(version.span, format!("version {other} of the pipeline file is unknown here; expected 1")));
            }
            _ => return Err(Fault::at(version.span, "expected the version of the pipeline file: 1")),
        },
        Some((key, _)) => {
            let found = key.text().unwrap_or_default();
            return Err(Fault::at(key.span, format!("expected \"optune: 1\" as the first key, found \"{found}\"")));
        }
        None => return Err(Fault::at(root.span, "expected a mapping that begins with \"optune: 1\", found an empty one")),
    }
    match entries.iter().find(|(key, _)| key.text() == Some("matrix")) {
        Some((key, _)) => Err(Fault::at(key.span, "\"matrix\" is not supported yet; run the file once for each value with --set")),
        None => Ok(()),
    }
}
