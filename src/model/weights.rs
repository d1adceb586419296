//! Safetensors files: an 8-byte little-endian header length, a JSON header, then the values. Knows
//! nothing of models.
//!
//! The header alone lists the tensors: a wrong checkpoint is refused before anything is loaded.
//! Reading only. Format: <https://github.com/huggingface/safetensors>.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::experts::{ExpertsConfig, FusedExperts};
use super::parameters::{LM_HEAD, Parameter};
use super::{Dtype, ModelError, files};

/// The file with all weights.
pub(super) const SINGLE: &str = "model.safetensors";
/// The file with the shard of each tensor.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// The format's own limit on headers.
const LARGEST_HEADER_BYTES: u64 = 100_000_000;

/// How the names of a whole model's parameters begin, all but the head's.
const PREFIX: &str = "model.";
/// How the names of a language model begin within a model with images.
const IN_IMAGE_MODEL: &str = "language_model.";
/// The entry of a header for texts, beside the tensors.
const METADATA: &str = "__metadata__";
/// Above the length of a Git LFS pointer's beginning.
const LFS_BEGINNING_BYTES: u64 = 64;
/// How many numbers of two tensors are compared at a time.
const COMPARED_NUMBERS: usize = 1 << 18;

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
    format: Format,
    shape: Vec<usize>,
    start: u64,
    bytes: usize,
}

/// A number format that can be read.
#[derive(Clone, Copy, Debug)]
enum Format {
    Dtype(Dtype),
    /// IEEE double precision, 8 bytes; rounded to the nearest f32.
    F64,
}

impl Format {
    /// The one with this name in a header, if it can be read.
    fn from_name(name: &str) -> Option<Self> {
        if name == "F64" { Some(Self::F64) } else { Dtype::from_safetensors(name).map(Self::Dtype) }
    }

    /// Bytes a number.
    fn width(self) -> usize {
        match self {
            Self::Dtype(dtype) => dtype.width(),
            Self::F64 => size_of::<f64>(),
        }
    }

    /// The next `count` numbers.
    fn read(self, reader: &mut impl Read, count: usize) -> io::Result<Vec<f32>> {
        let mut bytes = vec![0; count * self.width()];
        reader.read_exact(&mut bytes)?;
        Ok(match self {
            Self::Dtype(dtype) => dtype.decode(&bytes),
            Self::F64 => bytes.as_chunks().0.iter().map(|word| f64::from_le_bytes(*word) as f32).collect(),
        })
    }
}

/// The header of a safetensors file.
struct Header {
    /// The entries by name.
    entries: BTreeMap<String, serde_json::Value>,
    /// Its own length.
    header_bytes: u64,
    /// The length of the file.
    file_bytes: u64,
}

impl Header {
    fn read(path: &Path) -> Result<Self, ModelError> {
        let invalid = |problem: String| ModelError::invalid(path, problem);
        let failed = |source: io::Error| ModelError::Read { path: path.to_path_buf(), source };
        let mut file = File::open(path).map_err(failed)?;
        let file_bytes = file.metadata().map_err(failed)?.len();
        let mut length = [0; 8];
        if file_bytes < 8 {
            return Err(invalid(format!("expected a safetensors file, found {file_bytes} bytes")));
        }
        if let Some(problem) = lfs_problem(&mut file).map_err(failed)? {
            return Err(invalid(format!("expected a safetensors file, {problem}")));
        }
        file.read_exact(&mut length).map_err(failed)?;
        let header_bytes = u64::from_le_bytes(length);
        if header_bytes > LARGEST_HEADER_BYTES.min(file_bytes - 8) {
            return Err(invalid(format!("expected a safetensors file; its header would be {header_bytes} bytes of {file_bytes}")));
        }
        let mut header = vec![0; header_bytes as usize];
        file.read_exact(&mut header).map_err(failed)?;
        let entries = serde_json::from_slice(&header).map_err(|error| invalid(format!("the safetensors header is not JSON: {error}")))?;
        Ok(Self { entries, header_bytes, file_bytes })
    }
}

/// The problem of a file that is a pointer of Git LFS. The next byte read is the first.
fn lfs_problem(file: &mut File) -> io::Result<Option<&'static str>> {
    let mut beginning = Vec::new();
    file.take(LFS_BEGINNING_BYTES).read_to_end(&mut beginning)?;
    file.rewind()?;
    Ok(files::lfs_problem(&beginning))
}

/// Whether a safetensors file has exactly the length given by its header: 8 bytes, the header, and
/// the end of the last tensor. Used for downloads; the tensors themselves are not checked.
///
/// # Errors
/// The file cannot be read, or has no such header.
pub fn has_whole_length(path: &Path) -> Result<bool, ModelError> {
    let Header { entries, header_bytes, file_bytes } = Header::read(path)?;
    let ends = entries.values().filter_map(|tensor| tensor.get("data_offsets")?.get(1)?.as_u64());
    Ok(ends.max().unwrap_or(0).checked_add(8 + header_bytes) == Some(file_bytes))
}

/// One entry of the header.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl Weights {
    /// Reads the headers of the safetensors files in `folder`: one file, or the shards named by an
    /// index.
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
            weights.read_shards(&index)?;
        } else {
            let other = ["pytorch_model.bin", "pytorch_model.bin.index.json"].into_iter().find(|name| folder.join(name).is_file());
            let found = other.map(|name| format!(", found {name}: convert it to safetensors")).unwrap_or_default();
            return Err(ModelError::invalid(folder, format!("no weights: expected {SINGLE} or {INDEX}{found}")));
        }
        Ok(weights)
    }

    /// Reads the header of one safetensors file.
    ///
    /// # Errors
    /// When it cannot be read or is not a whole safetensors file.
    pub(super) fn open_file(path: &Path) -> Result<Self, ModelError> {
        let mut weights = Self { folder: path.to_path_buf(), tensors: BTreeMap::new() };
        weights.read_header(path)?;
        Ok(weights)
    }

    /// Reads the headers of the shards of an index. As in transformers, the index only lists the
    /// files: their headers say which tensors they have.
    fn read_shards(&mut self, index: &Path) -> Result<(), ModelError> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let text = files::read_text(index).map_err(|source| ModelError::Read { path: index.to_path_buf(), source })?;
        let Index { weight_map } = serde_json::from_str(&text).map_err(|error| ModelError::invalid(index, error))?;
        let shards: BTreeSet<&String> = weight_map.values().collect();
        for shard in shards {
            // A checkpoint is one folder: files elsewhere do not belong to it.
            if !is_plain(shard) {
                return Err(ModelError::invalid(index, format!("names {shard:?}, expected a file in the same folder")));
            }
            let path = self.folder.join(shard);
            if !path.is_file() {
                return Err(ModelError::invalid(index, format!("names {shard}, which is not there; download the checkpoint in full")));
            }
            self.read_header(&path)?;
        }
        Ok(())
    }

    fn read_header(&mut self, path: &Path) -> Result<(), ModelError> {
        let invalid = |problem: String| ModelError::invalid(path, problem);
        let Header { entries, header_bytes, file_bytes } = Header::read(path)?;
        let mut spans = Vec::with_capacity(entries.len());
        for (name, entry) in entries.into_iter().filter(|(name, _)| name != METADATA) {
            let entry: Entry = serde_json::from_value(entry).map_err(|error| invalid(format!("tensor {name}: {error}")))?;
            spans.push((entry.data_offsets, name.clone()));
            if is_ignored(&name) {
                continue;
            }
            let stored =
                entry.locate(path, 8 + header_bytes, file_bytes).map_err(|problem| invalid(format!("tensor {name}: {problem}")))?;
            self.insert(name, stored)?;
        }
        lie_end_to_end(spans, file_bytes - 8 - header_bytes).map_err(invalid)
    }

    /// Gives the tensors of routed experts one form: those of a layer may be one tensor, and have
    /// transformers 5's own names then.
    ///
    /// # Errors
    /// When such a tensor has another shape than `config` (a file's name) asks for, or a parameter
    /// is there twice.
    pub(super) fn name_experts(&mut self, experts: &ExpertsConfig, hidden_size: usize, config: &str) -> Result<(), ModelError> {
        for (name, stored) in std::mem::take(&mut self.tensors) {
            match experts.fused(&name, hidden_size) {
                Some(fused) => self.divide(&name, &stored, &fused, experts, config)?,
                None => self.insert(experts.names.stored(&name), stored)?,
            }
        }
        Ok(())
    }

    /// Takes a tensor of all experts apart.
    fn divide(
        &mut self,
        name: &str,
        all: &Stored,
        fused: &FusedExperts<'_>,
        experts: &ExpertsConfig,
        config: &str,
    ) -> Result<(), ModelError> {
        let expected = fused.shape(experts);
        if all.shape != expected {
            let problem = format!("{name} has shape {:?}, {config} asks for {expected:?}", all.shape);
            return Err(ModelError::invalid(&all.file, problem));
        }
        let mut start = all.start;
        for expert in 0..experts.num_experts {
            for (projection, shape) in &fused.projections {
                // A part of what is in the file.
                let bytes = all.format.width() * shape[0] * shape[1];
                let part = Stored { file: all.file.clone(), format: all.format, shape: shape.to_vec(), start, bytes };
                self.insert(experts.names.stored(&format!("{}.{expert}.{projection}.weight", fused.experts)), part)?;
                start += bytes as u64;
            }
        }
        Ok(())
    }

    fn insert(&mut self, name: String, stored: Stored) -> Result<(), ModelError> {
        if let Some(other) = self.tensors.get(&name) {
            return Err(ModelError::invalid(&stored.file, format!("tensor {name} is in {} too", other.file.display())));
        }
        self.tensors.insert(name, stored);
        Ok(())
    }

    /// Checks the tensors against exactly these `parameters` of `config` (a file's name). Unused
    /// tensors of other software are ignored.
    ///
    /// # Errors
    /// A list of missing, unexpected and mis-shaped tensors.
    pub(super) fn check(&self, parameters: &[Parameter], config: &str) -> Result<(), ModelError> {
        let mut problems = Vec::new();
        for Parameter { name, shape, .. } in parameters {
            match self.tensors.get(name) {
                None => problems.push(format!("{name} is missing")),
                Some(stored) if stored.shape != *shape => {
                    problems.push(format!("{name} has shape {:?}, {config} asks for {shape:?}", stored.shape));
                }
                Some(_) => {}
            }
        }
        let expected: BTreeSet<&str> = parameters.iter().map(|parameter| parameter.name.as_str()).collect();
        let unexpected = self.tensors.keys().filter(|name| !expected.contains(name.as_str()) && *name != LM_HEAD);
        problems.extend(unexpected.map(|name| format!("{name} is not part of the model that {config} describes")));
        if problems.is_empty() {
            return Ok(());
        }
        let more = problems.len().saturating_sub(5);
        problems.truncate(5);
        let tail = if more > 0 { format!("; and {more} more") } else { String::new() };
        Err(ModelError::invalid(&self.folder, format!("weights do not fit {config}: {}{tail}", problems.join("; "))))
    }

    /// Of a model with images, leaves the language model alone, under its names by itself:
    /// `language_model.model.norm.weight` of the hub, and `model.language_model.norm.weight` in
    /// transformers 5, are `model.norm.weight`.
    ///
    /// # Errors
    /// When a tensor is there under both names.
    pub(super) fn take_language_model(&mut self) -> Result<(), ModelError> {
        let images = ["vision_tower.", "multi_modal_projector."];
        for (name, stored) in std::mem::take(&mut self.tensors) {
            let bare = name.strip_prefix(PREFIX).unwrap_or(&name);
            if images.iter().any(|part| bare.starts_with(part)) {
                continue;
            }
            let own = match (name.strip_prefix(IN_IMAGE_MODEL), bare.strip_prefix(IN_IMAGE_MODEL)) {
                (Some(whole), _) => whole.to_string(),
                (None, Some(inner)) => format!("{PREFIX}{inner}"),
                (None, None) => name,
            };
            self.insert(own, stored)?;
        }
        Ok(())
    }

    /// Gives tensors the names of `parameters` where they lack the prefix of the whole model, as in
    /// a file of the transformer without its head. transformers does the same.
    pub(super) fn rename(&mut self, parameters: &[Parameter]) {
        for Parameter { name, .. } in parameters {
            if !self.tensors.contains_key(name)
                && let Some(stored) = name.strip_prefix(PREFIX).and_then(|bare| self.tensors.remove(bare))
            {
                self.tensors.insert(name.clone(), stored);
            }
        }
    }

    /// Ties the weights of the logits to the embedding: where both are stored they must be copies
    /// of each other, where one is stored it is both.
    ///
    /// # Errors
    /// When they differ, because the intended ones are unknown then; or a file cannot be read.
    pub(super) fn tie(&mut self, embedding: &str) -> Result<(), ModelError> {
        if !self.tensors.contains_key(embedding)
            && let Some(stored) = self.tensors.remove(LM_HEAD)
        {
            self.tensors.insert(embedding.to_string(), stored);
        }
        let (Some(tied), Some(source)) = (self.tensors.get(LM_HEAD), self.tensors.get(embedding)) else { return Ok(()) };
        let failed = |stored: &Stored| {
            let path = stored.file.clone();
            move |source: io::Error| ModelError::Read { path, source }
        };
        let mut equal = tied.shape == source.shape;
        let mut readers = (tied.open().map_err(failed(tied))?, source.open().map_err(failed(source))?);
        let mut left = tied.bytes / tied.format.width();
        while equal && left > 0 {
            let count = COMPARED_NUMBERS.min(left);
            let numbers = tied.format.read(&mut readers.0, count).map_err(failed(tied))?;
            let others = source.format.read(&mut readers.1, count).map_err(failed(source))?;
            // By bits: NaN is equal to itself.
            equal = numbers.iter().zip(&others).all(|(number, other)| number.to_bits() == other.to_bits());
            left -= count;
        }
        if equal {
            Ok(())
        } else {
            Err(ModelError::invalid(
                &tied.file,
                format!("{LM_HEAD} differs from {embedding}, but config.json ties them; set tie_word_embeddings to false if it is meant"),
            ))
        }
    }

    /// Whether there is a tensor of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The values of one tensor, as f32.
    ///
    /// # Errors
    /// When it does not exist or its file cannot be read.
    pub(super) fn read(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let stored = self.tensors.get(name).ok_or_else(|| ModelError::invalid(&self.folder, format!("{name} is missing")))?;
        let numbers = stored.open().and_then(|mut reader| stored.format.read(&mut reader, stored.bytes / stored.format.width()));
        numbers.map_err(|source| ModelError::Read { path: stored.file.clone(), source })
    }
}

/// Checks the tensors' bytes: they follow each other from the first byte to the last, as the format
/// demands. None overlaps another, none is cut off.
fn lie_end_to_end(mut spans: Vec<((u64, u64), String)>, bytes: u64) -> Result<(), String> {
    spans.sort();
    let mut before = (0, "the header".to_string());
    for ((start, end), name) in spans {
        if start != before.0 || end < start {
            return Err(format!(
                "tensor {name}: expected its bytes to follow those of {} at {}, found {start} to {end}",
                before.1, before.0
            ));
        }
        before = (end, name);
    }
    if before.0 == bytes {
        Ok(())
    } else {
        Err(format!("expected {bytes} bytes of values behind the header, found tensors of {}; the file is cut short or is none", before.0))
    }
}

/// Whether it is the name of a file, and not a way to another folder.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\\', ':', '\0']) && name != "." && name != ".."
}

/// Whether a tensor is unused: the rotary frequencies and positions of old checkpoints.
fn is_ignored(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq") || name == "position_ids" || name.ends_with(".position_ids")
}

impl Stored {
    /// A reader at the first value.
    fn open(&self) -> io::Result<BufReader<File>> {
        let mut file = File::open(&self.file)?;
        file.seek(SeekFrom::Start(self.start))?;
        Ok(BufReader::new(file))
    }
}

impl Entry {
    /// The tensor's place in the file. The file's values begin at byte `data`.
    fn locate(self, path: &Path, data: u64, file_bytes: u64) -> Result<Stored, String> {
        let format = Format::from_name(&self.dtype);
        let format = format.ok_or_else(|| format!("dtype is {}; supported: F64, F32, F16, BF16", self.dtype))?;
        let bytes = self.shape.iter().try_fold(format.width(), |product: usize, size| product.checked_mul(*size));
        let (start, end) = self.data_offsets;
        let fits = end.checked_sub(start).zip(bytes).is_some_and(|(span, bytes)| span == bytes as u64)
            && data.checked_add(end).is_some_and(|end| end <= file_bytes);
        match bytes {
            Some(bytes) if fits => Ok(Stored { file: path.to_path_buf(), format, shape: self.shape, start: data + start, bytes }),
            _ => Err(format!("bytes {start} to {end} do not hold shape {:?} of {}, or the file is cut short", self.shape, self.dtype)),
        }
    }
}
