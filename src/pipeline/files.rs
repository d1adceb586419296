//! The outside files of a pipeline: that they are there, and the text of its SQL files.
//!
//! Knows paths, not what the files hold; only SQL is read.

use std::path::{Path, PathBuf};

use super::error::Fault;
use super::graph::{Source, SourceKind};
use super::position::Name;
use super::spec::Spec;
use super::spec::input::{Input, Reward, TableFile};
use super::spec::operator::Operator;
use super::spec::query::Query;

/// The sources of a pipeline, in order, each with its file found; SQL files take the place of their paths in `spec`.
pub(super) fn find(spec: &mut Spec, folder: &Path) -> Result<Vec<Source>, Fault> {
    let inner = spec.iterate.iter_mut().flat_map(|iterate| iterate.nodes.values_mut());
    for node in spec.nodes.values_mut().chain(inner) {
        if let Operator::Sql(sql) = &mut node.operator {
            read(&mut sql.query, folder)?;
        }
    }
    let mut sources = Vec::new();
    for (name, input) in &mut spec.inputs {
        let kind = match input {
            Input::Table(table) => file(table, folder)?,
            Input::Model { model } => SourceKind::Model { path: directory(model, folder)? },
            Input::Reward { reward: Reward::Sql(query) } => {
                read(query, folder)?;
                SourceKind::Reward { sql: query.text.clone() }
            }
        };
        sources.push(Source { name: name.value.clone(), kind, line: name.span.line });
    }
    Ok(sources)
}

fn file(table: &TableFile, folder: &Path) -> Result<SourceKind, Fault> {
    let path = folder.join(&table.table.value);
    if !path.is_file() {
        let found = if path.is_dir() { "is a directory" } else { "is not there" };
        return Err(Fault::at(table.table.span, format!("expected a file, but \"{}\" {found}", table.table.value)));
    }
    Ok(SourceKind::Table { path, format: table.format, delimiter: table.delimiter, header: table.header, columns: table.columns.clone() })
}

/// A model's directory, or `hf://ORG/NAME@REVISION` for one that is to be fetched.
fn directory(model: &Name, folder: &Path) -> Result<PathBuf, Fault> {
    let written = &model.value;
    if let Some(named) = written.strip_prefix("hf://") {
        let expected = || {
            Fault::at(model.span, format!("expected a model of the hub as hf://ORG/NAME or hf://ORG/NAME@REVISION, found \"{written}\""))
        };
        return hub(named).ok_or_else(expected);
    }
    let path = folder.join(written);
    if !path.is_dir() {
        let found = if path.exists() { "is a file" } else { "is not there" };
        return Err(Fault::at(model.span, format!("expected a model directory, but \"{written}\" {found}")));
    }
    if !path.join("config.json").is_file() {
        return Err(Fault::at(model.span, format!("expected a Hugging Face model directory, but \"{written}\" has no config.json")));
    }
    Ok(path)
}

/// `ORG/NAME` or `ORG/NAME@REVISION` with its revision, `main` unless it is given; nothing that could lead out of a folder.
fn hub(named: &str) -> Option<PathBuf> {
    let (repo, revision) = named.split_once('@').unwrap_or((named, "main"));
    let plain = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && word.chars().all(|c| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c))
    };
    let valid = repo.split('/').count() == 2 && repo.split('/').chain(revision.split('/')).all(plain);
    valid.then(|| PathBuf::from(format!("hf://{repo}@{revision}")))
}

/// Puts the text of the file that a query names in the place of its path.
fn read(query: &mut Query, folder: &Path) -> Result<(), Fault> {
    let Some(path) = query.path() else { return Ok(()) };
    let text = std::fs::read_to_string(folder.join(path));
    query.text = text.map_err(|error| Fault::at(query.span, format!("cannot read the query \"{}\": {error}", path.display())))?;
    Ok(())
}
