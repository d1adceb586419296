//! Writing safetensors files, one or several, tensor by tensor as they come. Knows nothing of
//! models or of where values come from.
//!
//! The bytes are a function of names, shapes, values, dtype and the largest size of a file alone.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::parameters::{Parameter, Sink};
use super::weights::{INDEX, SINGLE};
use super::{Dtype, ModelError};
use crate::disk::{self, File};

/// Writes `parameters` into `folder`: as one file if their values have no more than
/// `max_shard_bytes`, else as shards with an index. `write_values` then hands over the values of
/// each, in the same order.
///
/// A parameter is never divided: one larger than `max_shard_bytes` has a shard of its own.
///
/// # Errors
/// When a file cannot be written, `dtype` cannot hold a value, and the errors of `write_values`.
pub(crate) fn write(
    folder: &Path,
    parameters: &[Parameter],
    dtype: Dtype,
    max_shard_bytes: u64,
    write_values: impl FnOnce(&mut Sink<'_>) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let shards = divide(parameters, dtype, max_shard_bytes);
    let names: Vec<String> = match shards.len() {
        0 | 1 => vec![SINGLE.to_string()],
        count => (1..=count).map(|shard| format!("model-{shard:05}-of-{count:05}.safetensors")).collect(),
    };
    let to_come = names.iter().map(|name| folder.join(name)).zip(shards.iter().copied());
    let mut writer = Writer { folder, dtype, to_come, current: None };
    write_values(&mut |values| writer.push(&values))?;
    writer.close()?;
    if shards.len() > 1 { write_index(folder, &names, &shards, dtype) } else { Ok(()) }
}

/// Writes `parameters` to the file `path`, as [`write`] does.
///
/// # Errors
/// As [`write`].
pub(crate) fn write_file(
    path: &Path,
    parameters: &[Parameter],
    dtype: Dtype,
    write_values: impl FnOnce(&mut Sink<'_>) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let to_come = std::iter::once((path.to_path_buf(), parameters));
    let mut writer = Writer { folder: path, dtype, to_come, current: None };
    write_values(&mut |values| writer.push(&values))?;
    writer.close()
}

/// The parameters of each shard: as many as fit, in their order.
fn divide(parameters: &[Parameter], dtype: Dtype, max_shard_bytes: u64) -> Vec<&[Parameter]> {
    let mut shards = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for (at, parameter) in parameters.iter().enumerate() {
        let added = bytes_of(parameter, dtype) as u64;
        if at > first && bytes + added > max_shard_bytes {
            shards.push(&parameters[first..at]);
            (first, bytes) = (at, 0);
        }
        bytes += added;
    }
    shards.push(&parameters[first..]);
    shards
}

fn bytes_of(parameter: &Parameter, dtype: Dtype) -> usize {
    dtype.width() * parameter.shape.iter().product::<usize>()
}

/// The files in the making, one after the other.
struct Writer<'a, I: Iterator<Item = (PathBuf, &'a [Parameter])>> {
    folder: &'a Path,
    dtype: Dtype,
    to_come: I,
    current: Option<Shard<'a>>,
}

/// The file in hand.
struct Shard<'a> {
    path: PathBuf,
    file: BufWriter<File>,
    left: std::slice::Iter<'a, Parameter>,
}

impl<'a, I: Iterator<Item = (PathBuf, &'a [Parameter])>> Writer<'a, I> {
    /// Writes the values of the next parameter.
    fn push(&mut self, values: &[f32]) -> Result<(), ModelError> {
        loop {
            if let Some(shard) = &mut self.current
                && let Some(parameter) = shard.left.next()
            {
                return shard.write(parameter, values, self.dtype);
            }
            self.close()?;
            let Some((path, parameters)) = self.to_come.next() else {
                return Err(ModelError::invalid(self.folder, "the model has more parameters than were announced"));
            };
            self.current = Some(Shard::create(path, parameters, self.dtype)?);
        }
    }

    fn close(&mut self) -> Result<(), ModelError> {
        match self.current.take() {
            Some(mut shard) => shard.file.flush().map_err(|source| ModelError::Write { path: shard.path, source }),
            None => Ok(()),
        }
    }
}

impl<'a> Shard<'a> {
    fn create(path: PathBuf, parameters: &'a [Parameter], dtype: Dtype) -> Result<Self, ModelError> {
        let begun = File::create(&path).map(BufWriter::new).and_then(|mut file| {
            file.write_all(&header(parameters, dtype))?;
            Ok(file)
        });
        match begun {
            Ok(file) => Ok(Self { path, file, left: parameters.iter() }),
            Err(source) => Err(ModelError::Write { path, source }),
        }
    }

    fn write(&mut self, parameter: &Parameter, values: &[f32], dtype: Dtype) -> Result<(), ModelError> {
        let bytes = dtype.encode(values).map_err(|value| {
            let problem = format!("{} has the value {value}, which {dtype} cannot hold; use a wider dtype", parameter.name);
            ModelError::invalid(&self.path, problem)
        })?;
        self.file.write_all(&bytes).map_err(|source: io::Error| ModelError::Write { path: self.path.clone(), source })
    }
}

/// The length and the JSON, padded with spaces to align the values to 8 bytes.
fn header(parameters: &[Parameter], dtype: Dtype) -> Vec<u8> {
    let mut start = 0;
    let mut entries = vec![r#""__metadata__":{"format":"pt"}"#.to_string()];
    for parameter in parameters {
        let end = start + bytes_of(parameter, dtype);
        let Parameter { name, shape, .. } = parameter;
        entries.push(format!(r#""{name}":{{"dtype":"{}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#, dtype.in_safetensors()));
        start = end;
    }
    let mut json = format!("{{{}}}", entries.join(","));
    json.extend(std::iter::repeat_n(' ', json.len().next_multiple_of(8) - json.len()));
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json.into_bytes());
    header
}

/// The index of tensors and shards, as transformers writes it.
fn write_index(folder: &Path, names: &[String], shards: &[&[Parameter]], dtype: Dtype) -> Result<(), ModelError> {
    let places = names.iter().zip(shards).flat_map(|(file, shard)| shard.iter().map(move |parameter| (&parameter.name, file)));
    let weight_map: BTreeMap<&String, &String> = places.collect();
    let total_size: usize = shards.iter().copied().flatten().map(|parameter| bytes_of(parameter, dtype)).sum();
    let path = folder.join(INDEX);
    let text = format!("{:#}\n", json!({"metadata": {"total_size": total_size}, "weight_map": weight_map}));
    disk::write(&path, text).map_err(|source| ModelError::Write { path, source })
}
