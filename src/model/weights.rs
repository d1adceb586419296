//! Safetensors files: an 8-byte little-endian header length, a JSON header, then the values. Knows nothing of models.
//!
//! The header alone says which tensors there are, so that a wrong checkpoint is refused before anything is loaded. Written files
//! are a function of names, shapes and values only. Format: <https://github.com/huggingface/safetensors>.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use burn::tensor::{bf16, f16};
use serde::Deserialize;

use super::ModelError;
use super::parameters::{Parameter, Sink};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// The format's own limit on headers.
const LARGEST_HEADER_BYTES: u64 = 100_000_000;

/// The tensors of a checkpoint, by name, still on disk.
#[derive(Debug)]
pub(super) struct Weights {
    folder: PathBuf,
    tensors: BTreeMap<String, Stored>,
}

/// Where one tensor's values are.
#[derive(Debug)]
struct Stored {
    file: PathBuf,
    kind: Kind,
    shape: Vec<usize>,
    start: u64,
    bytes: usize,
}

/// The number formats that can be read; all become f32.
#[derive(Clone, Copy, Debug)]
enum Kind {
    F32,
    F16,
    Bf16,
}

/// One entry of the header.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl Weights {
    /// Reads the headers of the safetensors files in `folder`: one file, or the shards named by an index.
    ///
    /// # Errors
    /// When there are no weights, or a file is not a whole safetensors file.
    pub(super) fn open(folder: &Path) -> Result<Self, ModelError> {
        let mut weights = Self { folder: folder.to_path_buf(), tensors: BTreeMap::new() };
        let single = folder.join(SINGLE);
        let index = folder.join(INDEX);
        if single.is_file() {
            weights.read_header(&single)?;
        } else if index.is_file() {
            for shard in shards(&index)? {
                weights.read_header(&folder.join(shard))?;
            }
        } else {
            return Err(ModelError::invalid(folder, format!("no weights: expected {SINGLE} or {INDEX}")));
        }
        Ok(weights)
    }

    fn read_header(&mut self, path: &Path) -> Result<(), ModelError> {
        let invalid = |problem: String| ModelError::invalid(path, problem);
        let failed = |source: io::Error| ModelError::Read { path: path.to_path_buf(), source };
        let mut file = File::open(path).map_err(failed)?;
        let file_bytes = file.metadata().map_err(failed)?.len();
        let mut length = [0; 8];
        if file_bytes < 8 {
            return Err(invalid(format!("expected a safetensors file, found {file_bytes} bytes")));
        }
        file.read_exact(&mut length).map_err(failed)?;
        let header_bytes = u64::from_le_bytes(length);
        if header_bytes > LARGEST_HEADER_BYTES.min(file_bytes - 8) {
            return Err(invalid(format!("expected a safetensors file; its header would be {header_bytes} bytes of {file_bytes}")));
        }
        let mut header = vec![0; header_bytes as usize];
        file.read_exact(&mut header).map_err(failed)?;
        let entries: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&header).map_err(|error| invalid(format!("the safetensors header is not JSON: {error}")))?;
        for (name, entry) in entries.into_iter().filter(|(name, _)| name != "__metadata__") {
            let entry: Entry = serde_json::from_value(entry).map_err(|error| invalid(format!("tensor {name}: {error}")))?;
            let stored =
                entry.locate(path, 8 + header_bytes, file_bytes).map_err(|problem| invalid(format!("tensor {name}: {problem}")))?;
            self.tensors.insert(name, stored);
        }
        Ok(())
    }

    /// Checks that the tensors are exactly these `parameters`, apart from what other software writes and nobody reads.
    ///
    /// # Errors
    /// Lists what is missing, unexpected or of another shape.
    pub(super) fn check(&self, parameters: &[Parameter]) -> Result<(), ModelError> {
        let mut problems = Vec::new();
        for Parameter { name, shape, .. } in parameters {
            match self.tensors.get(name) {
                None => problems.push(format!("{name} is missing")),
                Some(stored) if stored.shape != *shape => {
                    problems.push(format!("{name} has shape {:?}, config.json asks for {shape:?}", stored.shape));
                }
                Some(_) => {}
            }
        }
        let expected = |name: &str| parameters.iter().any(|parameter| parameter.name == name);
        // A copy of tied weights, or the head that a reward model has left behind; the rotary frequencies of old checkpoints.
        let ignored = |name: &str| name == "lm_head.weight" || name.ends_with(".rotary_emb.inv_freq");
        let unexpected = self.tensors.keys().filter(|name| !expected(name) && !ignored(name));
        problems.extend(unexpected.map(|name| format!("{name} is not part of the model that config.json describes")));
        if problems.is_empty() {
            return Ok(());
        }
        let more = problems.len().saturating_sub(5);
        problems.truncate(5);
        let tail = if more > 0 { format!("; and {more} more") } else { String::new() };
        Err(ModelError::invalid(&self.folder, format!("weights do not fit config.json: {}{tail}", problems.join("; "))))
    }

    /// The values of one tensor, as f32.
    ///
    /// # Errors
    /// When it does not exist or its file cannot be read.
    pub(super) fn read(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let stored = self.tensors.get(name).ok_or_else(|| ModelError::invalid(&self.folder, format!("{name} is missing")))?;
        let mut bytes = vec![0; stored.bytes];
        let outcome = File::open(&stored.file).and_then(|mut file| {
            file.seek(SeekFrom::Start(stored.start))?;
            file.read_exact(&mut bytes)
        });
        outcome.map_err(|source| ModelError::Read { path: stored.file.clone(), source })?;
        Ok(stored.kind.decode(&bytes))
    }
}

impl Entry {
    /// The tensor's place in the file, whose values begin at byte `data`.
    fn locate(self, path: &Path, data: u64, file_bytes: u64) -> Result<Stored, String> {
        let (kind, width) = match self.dtype.as_str() {
            "F32" => (Kind::F32, 4),
            "F16" => (Kind::F16, 2),
            "BF16" => (Kind::Bf16, 2),
            other => return Err(format!("dtype is {other}; supported: F32, F16, BF16")),
        };
        let bytes = self.shape.iter().try_fold(width, |product: usize, size| product.checked_mul(*size));
        let (start, end) = self.data_offsets;
        let fits = end.checked_sub(start).zip(bytes).is_some_and(|(span, bytes)| span == bytes as u64)
            && data.checked_add(end).is_some_and(|end| end <= file_bytes);
        match bytes {
            Some(bytes) if fits => Ok(Stored { file: path.to_path_buf(), kind, shape: self.shape, start: data + start, bytes }),
            _ => Err(format!("bytes {start} to {end} do not hold shape {:?} of {}, or the file is cut short", self.shape, self.dtype)),
        }
    }
}

impl Kind {
    fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect(),
            Self::F16 => bytes.as_chunks().0.iter().map(|word| f16::from_le_bytes(*word).to_f32()).collect(),
            Self::Bf16 => bytes.as_chunks().0.iter().map(|word| bf16::from_le_bytes(*word).to_f32()).collect(),
        }
    }
}

/// The shards an index names, each once.
fn shards(index: &Path) -> Result<Vec<String>, ModelError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read_to_string(index).map_err(|source| ModelError::Read { path: index.to_path_buf(), source })?;
    let index: Index = serde_json::from_str(&text).map_err(|error| ModelError::invalid(index, error))?;
    let mut shards: Vec<String> = index.weight_map.into_values().collect();
    shards.sort();
    shards.dedup();
    Ok(shards)
}

/// Writes a safetensors file of f32 `parameters` into `folder`; `write_values` then hands over the values of each, in the same order.
///
/// # Errors
/// When the file cannot be written, and the errors of `write_values`.
pub(super) fn write(
    folder: &Path,
    parameters: &[Parameter],
    write_values: impl FnOnce(&mut Sink<'_>) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let path = folder.join(SINGLE);
    let failed = |source: io::Error| ModelError::Write { path: path.clone(), source };
    let mut file = BufWriter::new(File::create(&path).map_err(failed)?);
    file.write_all(&header(parameters)).map_err(failed)?;
    write_values(&mut |values| {
        for value in values {
            file.write_all(&value.to_le_bytes()).map_err(failed)?;
        }
        Ok(())
    })?;
    file.flush().map_err(failed)
}

/// The length and the JSON, padded with spaces so that the values are aligned to 8 bytes.
fn header(parameters: &[Parameter]) -> Vec<u8> {
    let mut start = 0;
    let mut entries = vec![r#""__metadata__":{"format":"pt"}"#.to_string()];
    for Parameter { name, shape, .. } in parameters {
        let end = start + 4 * shape.iter().product::<usize>();
        entries.push(format!(r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{end}]}}"#));
        start = end;
    }
    let mut json = format!("{{{}}}", entries.join(","));
    json.extend(std::iter::repeat_n(' ', json.len().next_multiple_of(8) - json.len()));
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json.into_bytes());
    header
}
