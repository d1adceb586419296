//! From a file to [`Spec`]: YAML, version, params, types.
//!
//! Knows valid keys and values, not the relations between nodes.

use std::path::Path;

use serde::Deserialize;

use super::error::{Diagnostic, PipelineError};
use super::files;
use super::graph::Graph;
use super::matrix;
use super::params;
use super::spec::Spec;
use super::tree::{LARGEST_FILE_BYTES, Tree, Value};
use super::unroll::unroll;

/// A loaded pipeline file: all keys and settings are valid; names are not checked yet.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// The file as types, params filled in.
    pub spec: Spec,
    file: String,
    text: String,
}

impl Pipeline {
    /// Loads a file of one run, with params replaced by `sets`.
    ///
    /// # Errors
    /// An unreadable file or invalid YAML; an unknown version, key, param or value; a setting out
    /// of its range; several runs.
    pub fn load(path: &Path, sets: &[(String, String)]) -> Result<Self, PipelineError> {
        Self::one(Sweep::load(path, sets)?)
    }

    /// Parses the text of one run, with params replaced by `sets`; `file` is its name in errors.
    ///
    /// # Errors
    /// As [`Pipeline::load`].
    pub fn read(file: &str, text: &str, sets: &[(String, String)]) -> Result<Self, PipelineError> {
        Self::one(Sweep::read(file, text, sets)?)
    }

    fn one(sweep: Sweep) -> Result<Self, PipelineError> {
        let count = sweep.runs.len();
        let several = |pipeline: &Self| {
            let problem = format!("expected a file of one run, found a matrix of {count}; choose one with --set for each of its axes");
            Diagnostic::nowhere(problem).in_file(&pipeline.file, &pipeline.text)
        };
        let mut runs = sweep.runs.into_iter();
        match (runs.next(), runs.next()) {
            (Some(one), None) => Ok(one),
            (Some(one), Some(_)) => Err(several(&one)),
            // A sweep has a run at least.
            (None, _) => Err(Diagnostic::nowhere("expected a run, found none").in_file("", "")),
        }
    }

    /// Checks names, slots, files and cycles, and unrolls the iterations. `folder` is the folder of
    /// the file ([`super::folder_of`]), where its relative paths start; empty for the working
    /// directory.
    ///
    /// # Errors
    /// An unknown name or a name of the wrong kind, a cycle, a missing file, an invalid query or
    /// one with an unknown table.
    pub fn graph(&self, folder: &Path) -> Result<Graph, PipelineError> {
        unroll(self.spec.clone(), folder).map_err(|diagnostic| diagnostic.in_file(&self.file, &self.text))
    }
}

/// All runs of a pipeline file: one, or one for each point of its matrix.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The name in the file, the prefix of the names of all runs.
    pub name: String,
    /// The runs, in the order of the matrix; at least one. No two have the same name.
    pub runs: Vec<Pipeline>,
    /// Whether the file has a matrix.
    pub has_matrix: bool,
}

impl Sweep {
    /// Loads a file, with params replaced by `sets`. A set of an axis keeps the runs with this
    /// value.
    ///
    /// # Errors
    /// As [`Pipeline::load`], except for several runs; and an invalid matrix.
    pub fn load(path: &Path, sets: &[(String, String)]) -> Result<Self, PipelineError> {
        let file = path.display().to_string();
        match files::text(path, LARGEST_FILE_BYTES) {
            Ok(text) => Self::read(&file, &text, sets),
            Err(error) => Err(Diagnostic::nowhere(format!("cannot read the pipeline file: {error}")).in_file(&file, "")),
        }
    }

    /// Parses a text, with params replaced by `sets`; `file` is its name in errors.
    ///
    /// # Errors
    /// As [`Sweep::load`].
    pub fn read(file: &str, text: &str, sets: &[(String, String)]) -> Result<Self, PipelineError> {
        let pipeline = |spec| Pipeline { spec, file: file.to_string(), text: text.to_string() };
        let read = || {
            let mut tree = Tree::read(text)?;
            version(&tree)?;
            let mut sets = sets.to_vec();
            let name = name(&tree);
            let Some(points) = matrix::points(&mut tree, &mut sets)? else {
                return Ok(Self { name, runs: vec![pipeline(spec(tree, &sets)?)], has_matrix: false });
            };
            let mut runs: Vec<Pipeline> = Vec::with_capacity(points.len());
            for point in points {
                let values: Vec<String> = point.values().iter().map(|(axis, value)| format!("{axis} {value}")).collect();
                let run = point.apply(&tree).and_then(|tree| spec(tree, &sets));
                let run = run.map_err(|error| error.prefixed(&format!("with {}", values.join(", "))))?;
                if runs.iter().any(|other| other.spec.name.value == run.name.value) {
                    return Err(Diagnostic::at(
                        run.name.span,
                        format!("two runs of the matrix are called {}; let their values differ in letters and digits", run.name.value),
                    ));
                }
                runs.push(pipeline(run));
            }
            Ok(Self { name, runs, has_matrix: true })
        };
        read().map_err(|diagnostic: Diagnostic| diagnostic.in_file(file, text))
    }
}

/// The run's name, as the file has it.
fn name(file: &Tree) -> String {
    let Value::Mapping(entries) = &file.value else { return String::new() };
    let name = entries.iter().find(|(key, _)| key.text() == Some("name")).and_then(|(_, name)| name.text());
    name.unwrap_or_default().to_string()
}

fn spec(mut tree: Tree, sets: &[(String, String)]) -> Result<Spec, Diagnostic> {
    params::fill_in(&mut tree, sets)?;
    Spec::deserialize(&tree)
}

/// Checks the first key, `optune: 1`. Files of other versions get this error before any other.
fn version(root: &Tree) -> Result<(), Diagnostic> {
    let Value::Mapping(entries) = &root.value else {
        return Err(Diagnostic::at(root.span, "expected a mapping that begins with \"optune: 1\""));
    };
    match entries.first() {
        Some((key, version)) if key.text() == Some("optune") => match version.value {
            Value::Integer(1) => {}
            Value::Integer(other) => {
                return Err(Diagnostic::at(version.span, format!("version {other} of the pipeline file is unknown here; expected 1")));
            }
            _ => return Err(Diagnostic::at(version.span, "expected the version of the pipeline file: 1")),
        },
        Some((key, _)) => {
            let found = key.text().unwrap_or_default();
            return Err(Diagnostic::at(key.span, format!("expected \"optune: 1\" as the first key, found \"{found}\"")));
        }
        None => return Err(Diagnostic::at(root.span, "expected a mapping that begins with \"optune: 1\", found an empty one")),
    }
    Ok(())
}
