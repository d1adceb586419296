//! The outside files of a pipeline: checks that they exist, and reads its SQL files and templates.
//!
//! Knows paths, not the contents of files except SQL and templates.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::address::Address;
use super::error::Diagnostic;
use super::graph::{self, Source, SourceKind};
use super::paths::{advice, local_files};
use super::position::Name;
use super::process_files;
use super::programs;
use super::relations::LONGEST_QUERY_BYTES;
use super::spec::Spec;
use super::spec::engine::Engine;
use super::spec::input::{Component, Input, Reward, RewardSource, TableFile};
use super::spec::judge::{Judge, JudgeTemplate, Question};
use super::spec::operator::Operator;
use super::spec::query::Query;
use super::spec::update::{Update, UpdateProgram};
use crate::model::RowTemplate;

/// The longest template of a question, in bytes.
const LONGEST_TEMPLATE_BYTES: usize = 1 << 16;

/// The sources of a pipeline, in order, each with its files. In `spec`, the text of SQL files
/// replaces their paths.
pub(super) fn find(spec: &mut Spec, folder: &Path) -> Result<Vec<Source>, Diagnostic> {
    let programs = folder_of_programs(folder)?;
    let inner = spec.iterate.iter_mut().flat_map(|iterate| iterate.nodes.values_mut());
    for node in spec.nodes.values_mut().chain(inner) {
        match &mut node.operator {
            Operator::Sql(sql) => read(&mut sql.query, folder)?,
            Operator::Command(command) => command.place = programs::place(&command.run, &command.files, &programs)?,
            Operator::Generate(generate) => check_update(generate.engine.as_ref(), &programs)?,
            Operator::Train(train) => {
                if let Some(engine) = &mut train.engine {
                    engine.place = programs::place(&engine.command, &engine.files, &programs)?;
                }
            }
            Operator::Evaluate(evaluate) => {
                check_update(evaluate.engine.as_ref(), &programs)?;
                evaluate.judge.as_mut().map_or(Ok(()), |judge| read_template(judge, Question::Pair, folder))?;
            }
            _ => {}
        }
    }
    let mut sources = Vec::new();
    for (name, input) in &mut spec.inputs {
        let kind = match input {
            Input::Table(table) => file(table, folder)?,
            Input::Model { model } => SourceKind::Model { path: directory(model, folder)? },
            Input::Reward { reward: spelled } => {
                spelled.queries_mut().try_for_each(|query| read(query, folder))?;
                spelled.judges_mut().try_for_each(|judge| read_template(judge, Question::Score, folder))?;
                SourceKind::Reward { reward: reward(spelled, folder, &programs)? }
            }
        };
        sources.push(Source { name: name.value.clone(), kind, line: name.span.line });
    }
    Ok(sources)
}

/// Checks the program that loads a policy into servers.
fn check_update(engine: Option<&Engine>, programs: &Path) -> Result<(), Diagnostic> {
    match engine.and_then(|engine| engine.update.as_ref()).map(|update| &update.value) {
        Some(Update::Command(UpdateProgram(words))) => words.first().map_or(Ok(()), |program| {
            process_files::check_program(&Name { value: program.value.0.clone(), span: program.span }, programs, "a program")
        }),
        _ => Ok(()),
    }
}

/// The folder where programs run: absolute, because a program sees paths from there; empty for the
/// working directory.
fn folder_of_programs(folder: &Path) -> Result<PathBuf, Diagnostic> {
    if folder.as_os_str().is_empty() {
        return Ok(PathBuf::new());
    }
    std::path::absolute(folder).map_err(|error| Diagnostic::nowhere(format!("cannot find the working directory: {error}")))
}

fn file(table: &TableFile, folder: &Path) -> Result<SourceKind, Diagnostic> {
    let mut paths = Vec::new();
    for written in &table.table.0 {
        paths.extend(found(written, folder)?);
    }
    paths.sort();
    paths.dedup();
    Ok(SourceKind::Table {
        paths,
        format: table.format,
        delimiter: table.delimiter,
        header: table.header,
        columns: table.columns.clone(),
        dataset_format: table.dataset_format,
        map: table.map.clone(),
        malformed: table.malformed,
        split: table.split,
        max_bytes: table.max_bytes,
    })
}

/// The file of this path, or all files of this pattern; an address elsewhere for a later download.
fn found(written: &Name, folder: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    let diagnostic = |problem: String| Diagnostic::at(written.span, problem);
    if let Some(address) = Address::parse(&written.value) {
        let address = address.map_err(diagnostic)?;
        if matches!(address, Address::S3 { .. }) && cfg!(not(feature = "s3")) {
            return Err(diagnostic(
                "expected a program built with --features s3, found one without it; run cargo build --release --features s3".to_string(),
            ));
        }
        return Ok(vec![PathBuf::from(address.to_string())]);
    }
    local_files(written, folder)
}

/// A reward with the directories of its models. Its queries are loaded already.
fn reward(spelled: &Reward, folder: &Path, programs: &Path) -> Result<graph::Reward, Diagnostic> {
    let source = |source: &RewardSource| {
        Ok(match source {
            RewardSource::Sql(query) => graph::Reward::Sql(query.text.clone()),
            RewardSource::Model(model) => graph::Reward::Model(directory(model, folder)?),
            RewardSource::Http(server) => graph::Reward::Http(server.clone()),
            RewardSource::Process(process) => graph::Reward::Process(Box::new(process_files::find(process, programs)?)),
            RewardSource::Judge(judge) => graph::Reward::Judge(judge.clone()),
            RewardSource::Named(name) => graph::Reward::Named(name.value.clone()),
        })
    };
    match spelled {
        Reward::One(one) => source(one),
        Reward::Sum(components) => {
            let component = |c: &Component| Ok(graph::Component { weight: c.weight, name: c.name.clone(), reward: source(&c.source)? });
            components.iter().map(component).collect::<Result<_, Diagnostic>>().map(graph::Reward::Sum)
        }
    }
}

/// The directory of a model, or `hf://ORG/NAME@REVISION` for a later download.
fn directory(model: &Name, folder: &Path) -> Result<PathBuf, Diagnostic> {
    let written = &model.value;
    if let Some(named) = written.strip_prefix("hf://") {
        let expected = || {
            Diagnostic::at(
                model.span,
                format!("expected a model of the hub as hf://ORG/NAME or hf://ORG/NAME@REVISION, found \"{written}\""),
            )
        };
        return hub(named).ok_or_else(expected);
    }
    let path = folder.join(written);
    if !path.is_dir() {
        let found = if path.exists() { "is a file" } else { "is not there" };
        let advice = advice(written, folder);
        return Err(Diagnostic::at(model.span, format!("expected a model directory, but \"{written}\" {found}{advice}")));
    }
    if !["config.json", "adapter_config.json"].iter().any(|name| path.join(name).is_file()) {
        return Err(Diagnostic::at(model.span, format!("expected a Hugging Face model directory, but \"{written}\" has no config.json")));
    }
    Ok(path)
}

/// The `hf://` path of `ORG/NAME` or `ORG/NAME@REVISION`; the default revision is `main`. None for
/// a name with a path out of its folder.
fn hub(named: &str) -> Option<PathBuf> {
    let (repo, revision) = named.split_once('@').unwrap_or((named, "main"));
    let plain = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && word.chars().all(|c| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c))
    };
    let valid = repo.split('/').count() == 2 && repo.split('/').chain(revision.split('/')).all(plain);
    valid.then(|| PathBuf::from(format!("hf://{repo}@{revision}")))
}

/// Replaces the path of a query by the text of the file.
fn read(query: &mut Query, folder: &Path) -> Result<(), Diagnostic> {
    let Some(path) = query.path() else { return Ok(()) };
    let text = text(&folder.join(path), LONGEST_QUERY_BYTES);
    let failed = |error| {
        let advice = advice(&path.to_string_lossy(), folder);
        Diagnostic::at(query.span, format!("cannot read the query \"{}\": {error}{advice}", path.display()))
    };
    query.text = text.map_err(failed)?;
    Ok(())
}

/// Replaces the path of a judge's template by the text of the file, and checks the template.
fn read_template(judge: &mut Judge, question: Question, folder: &Path) -> Result<(), Diagnostic> {
    if let Some(template) = &mut judge.template
        && let Some(path) = template.path()
    {
        let read = text(&folder.join(path), LONGEST_TEMPLATE_BYTES);
        template.text =
            read.map_err(|error| Diagnostic::at(template.span, format!("cannot read the template \"{}\": {error}", path.display())))?;
    }
    let span = judge.template.as_ref().map_or(judge.openai.first().span, |template| template.span);
    let source = judge.template(question).to_string();
    let template = RowTemplate::new(&source).map_err(|error| Diagnostic::at(span, format!("expected Jinja; {error}")))?;
    let read = template.variables();
    if let Some(missing) = question.responses().iter().find(|name| !read.contains(**name)) {
        let found = read.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let found = if found.is_empty() { "none".to_string() } else { found };
        return Err(Diagnostic::at(span, format!("expected a template that reads the variable {missing}, found the variables: {found}")));
    }
    // The run keeps the text with which it began, also of our own.
    judge.template = Some(JudgeTemplate { written: source.clone(), text: source, span });
    Ok(())
}

/// The text of a file of at most `limit` bytes. A longer file, or an endless device, is read up to
/// this limit only.
pub(super) fn text(path: &Path, limit: usize) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::other(format!("expected at most {limit} bytes, found more")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "expected text in UTF-8, found other bytes"))
}
