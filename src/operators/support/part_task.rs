//! The work of one part as bytes for an executor, and its answer as bytes.
//!
//! Both are a header in JSON and one Arrow stream for each work, behind a hash of all. Knows
//! neither operators nor the way of the bytes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Float64Array, ListArray, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{Float32Type, Float64Type, UInt32Type};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::model_folders::ModelFolders;
use super::model_work::{Found, Job, Logprobs, Numbers, Rewards, Samples, Work};
use super::tensors::{list_array, token_lists};
use super::{Context, OperatorError};
use crate::catch_panic::catch_panic;
use crate::compute::Precision;
use crate::generation::{FinishReason, Generated, Sampling};
use crate::token_lists::TokenLists;

/// Raised when the bytes change.
const FORMAT: u32 = 1;
/// Bytes of the hash in front.
const HASH_BYTES: usize = 32;
/// Bytes of one seed.
const SEED_BYTES: usize = 32;

/// This module in internal errors.
const PLACE: &str = "operators::support::part_task";

/// A model of a task: its folders, and the hash of their files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// The folders, absolute.
    pub folders: ModelFolders,
    /// The hash of their files.
    pub hash: String,
}

impl Model {
    /// The model in these folders as it is now.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn new(folders: &ModelFolders) -> Result<Self, OperatorError> {
        let folders = folders.absolute()?;
        Ok(Self { hash: folders.hash()?, folders })
    }
}

/// The settings of a task's models.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Whether the CPU computes, and not a GPU.
    pub on_cpu: bool,
    /// The precision.
    pub precision: Precision,
    /// The memory for a model, if the node states it.
    pub memory_gb: Option<f64>,
}

impl Settings {
    /// Those of the context's task.
    ///
    /// # Errors
    /// The device is not there.
    pub fn from_context(context: &Context) -> Result<Self, OperatorError> {
        Ok(Self { on_cpu: context.on_cpu()?, precision: context.precision(), memory_gb: context.task.resources.memory_gb })
    }
}

/// What an executor has to know besides the arrays.
#[derive(Debug, Serialize, Deserialize)]
pub struct TaskHeader {
    format: u32,
    /// The version of the program, which must be the executor's.
    version: String,
    /// The part for people: `responses[2] part-00002 of 5`.
    pub name: String,
    /// Whether the CPU computes, and not a GPU.
    pub on_cpu: bool,
    /// The precision of the models.
    precision: String,
    /// The memory for a model, if the node states it.
    pub memory_gb: Option<f64>,
    /// The models.
    pub models: Vec<Model>,
    works: Vec<WorkHeader>,
}

impl TaskHeader {
    /// The precision of the models.
    ///
    /// # Errors
    /// An unknown one.
    pub fn precision(&self) -> Result<Precision, OperatorError> {
        Ok(self.precision.parse()?)
    }
}

/// A work without its arrays.
#[derive(Debug, Serialize, Deserialize)]
struct WorkHeader {
    model: usize,
    job: JobHeader,
}

/// A job without its arrays.
#[derive(Debug, Serialize, Deserialize)]
enum JobHeader {
    Samples { sampling: Sampling, stop: Vec<String>, stop_after_tokens: usize, batch_size: Option<usize> },
    Logprobs { batch_size: usize },
    Rewards { batch_size: usize },
}

/// The header of an answer.
#[derive(Debug, Serialize, Deserialize)]
struct AnswerHeader {
    format: u32,
    /// The name of the executor.
    executor: String,
    /// The hash of the task.
    task: String,
    /// The time of the models' computations in nanoseconds.
    spent: u64,
    found: Vec<FoundHeader>,
    failure: Option<Failure>,
}

/// A result without its arrays.
#[derive(Debug, Serialize, Deserialize)]
enum FoundHeader {
    Samples,
    Numbers { broken: Option<String>, folder: PathBuf },
}

/// Why an executor has no result.
#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    message: String,
    is_input: bool,
}

/// A part as a task for an executor.
pub struct PartTask {
    /// The bytes to send.
    pub bytes: Vec<u8>,
    hash: String,
    works: usize,
}

impl PartTask {
    /// The works of the part called `name`.
    ///
    /// # Errors
    /// Arrow refuses the arrays.
    pub fn new(name: &str, settings: Settings, models: &[Model], works: Vec<Work>) -> Result<Self, OperatorError> {
        let count = works.len();
        let mut headers = Vec::with_capacity(count);
        let mut arrays = Vec::with_capacity(count);
        for Work { model, job, .. } in works {
            let (job, batch) = job_parts(job)?;
            headers.push(WorkHeader { model, job });
            arrays.push(batch);
        }
        let header = TaskHeader {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_string(),
            name: name.to_string(),
            on_cpu: settings.on_cpu,
            precision: settings.precision.name().to_string(),
            memory_gb: settings.memory_gb,
            models: models.to_vec(),
            works: headers,
        };
        let bytes = pack(&header, &arrays)?;
        Ok(Self { hash: blake3::hash(&bytes).to_hex().to_string(), bytes, works: count })
    }

    /// Any bytes as a task.
    #[cfg(test)]
    pub fn of_bytes(bytes: Vec<u8>) -> Self {
        Self { hash: blake3::hash(&bytes).to_hex().to_string(), bytes, works: 1 }
    }
}

/// A task as an executor reads it.
///
/// # Errors
/// Damaged bytes, or a task of another version of the program.
pub fn read_task(bytes: &[u8]) -> Result<(TaskHeader, Vec<Work>), OperatorError> {
    let (header, batches): (TaskHeader, _) = unpack(bytes)?;
    let own = env!("CARGO_PKG_VERSION");
    if header.version != own || header.format != FORMAT {
        let problem = format!("expected a task of optune {own}, found one of {}; run the same version everywhere", header.version);
        return Err(OperatorError::Input(problem));
    }
    if header.works.len() != batches.len() {
        return Err(OperatorError::internal(PLACE, format!("{} works with {} arrays", header.works.len(), batches.len())));
    }
    let work = |(header, batch): (&WorkHeader, &RecordBatch)| Ok(Work { model: header.model, of: None, job: job(&header.job, batch)? });
    let works = header.works.iter().zip(&batches).map(work).collect::<Result<_, OperatorError>>()?;
    Ok((header, works))
}

/// The answer of an executor called `executor` to the task in `bytes`.
pub fn write_answer(executor: &str, task: &[u8], spent: Duration, result: Result<Vec<Found>, OperatorError>) -> Vec<u8> {
    let pack_found = |found: Vec<Found>| {
        let parts = found.into_iter().map(found_parts).collect::<Result<Vec<_>, OperatorError>>()?;
        let (found, batches): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        pack(&answer_header(executor, task, spent, found, None), &batches)
    };
    let failed = |error: OperatorError| {
        let failure = Failure { message: error.to_string(), is_input: error.is_input() };
        // A header without arrays has a form in JSON; empty bytes are refused by their reader.
        pack(&answer_header(executor, task, spent, Vec::new(), Some(failure)), &[]).unwrap_or_default()
    };
    result.and_then(pack_found).unwrap_or_else(failed)
}

fn answer_header(executor: &str, task: &[u8], spent: Duration, found: Vec<FoundHeader>, failure: Option<Failure>) -> AnswerHeader {
    let task = blake3::hash(task).to_hex().to_string();
    // 584 years fit.
    let spent = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
    AnswerHeader { format: FORMAT, executor: executor.to_string(), task, spent, found, failure }
}

/// What an executor found.
pub struct PartAnswer {
    /// The name of the executor.
    pub executor: String,
    /// The time of the models' computations.
    pub spent: Duration,
    /// The results, in the order of the works.
    pub found: Vec<Found>,
}

/// The answer to a task.
///
/// # Errors
/// The executor's failure, damaged bytes, or the answer to another task.
pub fn answer(bytes: &[u8], task: &PartTask) -> Result<PartAnswer, OperatorError> {
    let (header, batches): (AnswerHeader, Vec<RecordBatch>) = unpack(bytes)?;
    let of = format!("executor {}", header.executor);
    match header.failure {
        Some(Failure { message, is_input: true }) => return Err(OperatorError::Input(message).of(&of)),
        Some(Failure { message, is_input: false }) => return Err(OperatorError::Failed(message).of(&of)),
        None => {}
    }
    if header.task != task.hash || header.found.len() != task.works || batches.len() != task.works {
        return Err(OperatorError::internal(PLACE, "the answer is one to another task").of(&of));
    }
    let found = header.found.into_iter().zip(&batches).map(|(header, batch)| found(header, batch));
    let found = found.collect::<Result<_, OperatorError>>().map_err(|error| error.of(&of))?;
    Ok(PartAnswer { executor: header.executor, spent: Duration::from_nanos(header.spent), found })
}

fn job_parts(job: Job) -> Result<(JobHeader, RecordBatch), OperatorError> {
    Ok(match job {
        Job::Samples(Samples { prompts, seeds, sampling, stop, stop_after_tokens, batch_size }) => {
            let seeds: Vec<Vec<u8>> = seeds.iter().map(|seeds| seeds.concat()).collect();
            let seeds: ArrayRef = Arc::new(BinaryArray::from_iter_values(seeds));
            let batch = RecordBatch::try_from_iter([("token_ids", token_ids(prompts)?), ("seeds", seeds)])?;
            (JobHeader::Samples { sampling, stop, stop_after_tokens, batch_size }, batch)
        }
        Job::Logprobs(Logprobs { sequences, prompt_token_counts, batch_size }) => {
            let counts = counts(&prompt_token_counts)?;
            let batch = RecordBatch::try_from_iter([("token_ids", token_ids(sequences)?), ("prompt_token_count", counts)])?;
            (JobHeader::Logprobs { batch_size }, batch)
        }
        Job::Rewards(Rewards { sequences, batch_size }) => {
            (JobHeader::Rewards { batch_size }, RecordBatch::try_from_iter([("token_ids", token_ids(sequences)?)])?)
        }
    })
}

fn job(header: &JobHeader, batch: &RecordBatch) -> Result<Job, OperatorError> {
    let sequences = read_token_ids(batch)?;
    Ok(match header {
        JobHeader::Samples { sampling, stop, stop_after_tokens, batch_size } => Job::Samples(Samples {
            prompts: sequences,
            seeds: read_seeds(batch)?,
            sampling: sampling.clone(),
            stop: stop.clone(),
            stop_after_tokens: *stop_after_tokens,
            batch_size: *batch_size,
        }),
        JobHeader::Logprobs { batch_size } => {
            Job::Logprobs(Logprobs { sequences, prompt_token_counts: read_counts(batch)?, batch_size: *batch_size })
        }
        JobHeader::Rewards { batch_size } => Job::Rewards(Rewards { sequences, batch_size: *batch_size }),
    })
}

fn found_parts(found: Found) -> Result<(FoundHeader, RecordBatch), OperatorError> {
    let floats = |values: Vec<f64>| Arc::new(Float64Array::from(values)) as ArrayRef;
    Ok(match found {
        Found::Samples(Generated { sequences, prompt_token_counts, finish_reasons, logprobs, token_logprobs, cuts }) => {
            let reasons: Vec<&str> = finish_reasons.iter().map(|reason| reason.name()).collect();
            let of_tokens = token_logprobs.into_iter().map(|logprobs| Some(logprobs.into_iter().map(Some)));
            let columns: [(&str, ArrayRef); 6] = [
                ("token_ids", token_ids(sequences)?),
                ("prompt_token_count", counts(&prompt_token_counts)?),
                ("finish_reason", Arc::new(StringArray::from(reasons))),
                ("logprob", floats(logprobs)),
                ("token_logprobs", Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(of_tokens))),
                ("cut", Arc::new(StringArray::from(cuts))),
            ];
            (FoundHeader::Samples, RecordBatch::try_from_iter(columns)?)
        }
        Found::Numbers(Numbers { values, broken, folder }) => {
            (FoundHeader::Numbers { broken, folder }, RecordBatch::try_from_iter([("value", floats(values))])?)
        }
    })
}

fn found(header: FoundHeader, batch: &RecordBatch) -> Result<Found, OperatorError> {
    Ok(match header {
        FoundHeader::Samples => {
            let reasons = strings(batch, "finish_reason")?;
            let reason = |text: String| match text.as_str() {
                "stop" => Ok(FinishReason::Stop),
                "length" => Ok(FinishReason::Length),
                other => Err(OperatorError::internal(PLACE, format!("an unknown reason of ending, {other}"))),
            };
            Found::Samples(Generated {
                sequences: read_token_ids(batch)?,
                prompt_token_counts: read_counts(batch)?,
                finish_reasons: reasons.into_iter().map(reason).collect::<Result<_, _>>()?,
                logprobs: floats(batch, "logprob")?,
                token_logprobs: float_lists(batch, "token_logprobs")?,
                cuts: strings(batch, "cut")?,
            })
        }
        FoundHeader::Numbers { broken, folder } => Found::Numbers(Numbers { values: floats(batch, "value")?, broken, folder }),
    })
}

fn token_ids(lists: TokenLists) -> Result<ArrayRef, OperatorError> {
    let (values, lengths) = lists.into_parts();
    list_array(values, lengths)
}

fn counts(counts: &[usize]) -> Result<ArrayRef, OperatorError> {
    let count = |count: &usize| u32::try_from(*count).map_err(|_| OperatorError::internal(PLACE, format!("a count of {count} tokens")));
    Ok(Arc::new(UInt32Array::from(counts.iter().map(count).collect::<Result<Vec<_>, _>>()?)))
}

fn column<'b>(batch: &'b RecordBatch, name: &'static str) -> Result<&'b ArrayRef, OperatorError> {
    let missing = || OperatorError::internal(PLACE, format!("no column {name} without nulls in a task or an answer"));
    batch.column_by_name(name).filter(|column| column.null_count() == 0).ok_or_else(missing)
}

fn wrong_type(name: &'static str) -> OperatorError {
    OperatorError::internal(PLACE, format!("a column {name} of another type in a task or an answer"))
}

fn read_token_ids(batch: &RecordBatch) -> Result<TokenLists, OperatorError> {
    let lists = column(batch, "token_ids")?.as_list_opt::<i32>().ok_or_else(|| wrong_type("token_ids"))?;
    token_lists(lists)
}

fn read_counts(batch: &RecordBatch) -> Result<Vec<usize>, OperatorError> {
    let name = "prompt_token_count";
    let counts = column(batch, name)?.as_primitive_opt::<UInt32Type>().ok_or_else(|| wrong_type(name))?;
    Ok(counts.values().iter().map(|count| *count as usize).collect())
}

fn read_seeds(batch: &RecordBatch) -> Result<Vec<Vec<[u8; SEED_BYTES]>>, OperatorError> {
    let seeds = column(batch, "seeds")?.as_binary_opt::<i32>().ok_or_else(|| wrong_type("seeds"))?;
    // The values of a column without nulls are all there.
    Ok(seeds.iter().flatten().map(|bytes| bytes.as_chunks::<SEED_BYTES>().0.to_vec()).collect())
}

fn floats(batch: &RecordBatch, name: &'static str) -> Result<Vec<f64>, OperatorError> {
    let values = column(batch, name)?.as_primitive_opt::<Float64Type>().ok_or_else(|| wrong_type(name))?;
    Ok(values.values().to_vec())
}

fn float_lists(batch: &RecordBatch, name: &'static str) -> Result<Vec<Vec<f32>>, OperatorError> {
    let lists = column(batch, name)?.as_list_opt::<i32>().ok_or_else(|| wrong_type(name))?;
    // The lists of a column without nulls are all there.
    let values = |list: ArrayRef| Ok(list.as_primitive_opt::<Float32Type>().ok_or_else(|| wrong_type(name))?.values().to_vec());
    lists.iter().flatten().map(values).collect()
}

fn strings(batch: &RecordBatch, name: &'static str) -> Result<Vec<String>, OperatorError> {
    let values = column(batch, name)?.as_string_opt::<i32>().ok_or_else(|| wrong_type(name))?;
    Ok(values.iter().flatten().map(str::to_string).collect())
}

/// Hash, length of the header, header, and every batch behind its length.
fn pack(header: &impl Serialize, batches: &[RecordBatch]) -> Result<Vec<u8>, OperatorError> {
    let header = serde_json::to_vec(header).map_err(|error| OperatorError::internal(PLACE, error.to_string()))?;
    let mut bytes = vec![0; HASH_BYTES];
    append(&mut bytes, &header);
    for batch in batches {
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
        writer.write(batch)?;
        append(&mut bytes, &writer.into_inner()?);
    }
    let hash = blake3::hash(&bytes[HASH_BYTES..]);
    bytes[..HASH_BYTES].copy_from_slice(hash.as_bytes());
    Ok(bytes)
}

fn append(bytes: &mut Vec<u8>, block: &[u8]) {
    bytes.extend((block.len() as u64).to_le_bytes());
    bytes.extend(block);
}

/// The header and the batches of packed bytes.
fn unpack<H: DeserializeOwned>(bytes: &[u8]) -> Result<(H, Vec<RecordBatch>), OperatorError> {
    let damaged = |problem: &str| OperatorError::Failed(format!("expected a task or an answer as it was sent, found {problem}"));
    let (hash, mut rest) = bytes.split_at_checked(HASH_BYTES).ok_or_else(|| damaged("too few bytes"))?;
    if blake3::hash(rest).as_bytes() != hash {
        return Err(damaged("other bytes"));
    }
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        let (length, behind) = rest.split_first_chunk().ok_or_else(|| damaged("half a length"))?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| damaged("a length beyond memory"))?;
        let (block, behind) = behind.split_at_checked(length).ok_or_else(|| damaged("a length beyond its end"))?;
        blocks.push(block);
        rest = behind;
    }
    let (header, arrays) = blocks.split_first().ok_or_else(|| damaged("nothing"))?;
    let header = serde_json::from_slice(header).map_err(|error| damaged(&error.to_string()))?;
    let batch = |block: &&[u8]| {
        let read = || StreamReader::try_new(*block, None)?.next().transpose();
        catch_panic(read).map_err(|panic| damaged(&panic))??.ok_or_else(|| damaged("no arrays"))
    };
    Ok((header, arrays.iter().map(batch).collect::<Result<_, OperatorError>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_back_bit_by_bit_and_damage_is_found() {
        let generated = Generated {
            sequences: TokenLists::from_rows(&[vec![1, 2, 3], vec![4, 5]]).unwrap(),
            prompt_token_counts: vec![1, 2],
            finish_reasons: vec![FinishReason::Stop, FinishReason::Length],
            logprobs: vec![-0.1 - 0.2, f64::NEG_INFINITY],
            token_logprobs: vec![vec![-0.1, -0.2], vec![f32::NEG_INFINITY]],
            cuts: vec![String::new(), "\n\nQ".to_string()],
        };
        let numbers = Numbers { values: vec![f64::MIN_POSITIVE, f64::NAN], broken: Some("layer".to_string()), folder: PathBuf::from("m") };
        let found = vec![Found::Samples(generated.clone()), Found::Numbers(numbers.clone())];
        let task = PartTask { works: 2, ..PartTask::of_bytes(b"task".to_vec()) };
        let bytes = write_answer("host", b"task", Duration::from_millis(3), Ok(found));
        let back = answer(&bytes, &task).unwrap();
        assert_eq!((back.executor.as_str(), back.spent), ("host", Duration::from_millis(3)));
        let [samples, numbers_back] = back.found.try_into().unwrap();
        let samples = samples.samples().unwrap();
        assert_eq!(samples.sequences.row(1).unwrap(), [4, 5]);
        assert_eq!((samples.prompt_token_counts, samples.finish_reasons), (generated.prompt_token_counts, generated.finish_reasons));
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&samples.logprobs), bits(&generated.logprobs));
        let bits_of_tokens =
            |lists: &[Vec<f32>]| lists.iter().map(|list| list.iter().map(|value| value.to_bits()).collect()).collect::<Vec<Vec<_>>>();
        assert_eq!(bits_of_tokens(&samples.token_logprobs), bits_of_tokens(&generated.token_logprobs));
        assert_eq!(samples.cuts, generated.cuts);
        let numbers_back = numbers_back.numbers(2).unwrap();
        assert_eq!(bits(&numbers_back.values), bits(&numbers.values));
        assert_eq!((numbers_back.broken, numbers_back.folder), (numbers.broken, numbers.folder));

        for place in [0, HASH_BYTES, bytes.len() / 2, bytes.len() - 1] {
            let mut flipped = bytes.clone();
            flipped[place] ^= 1;
            assert!(answer(&flipped, &task).err().unwrap().to_string().contains("found other bytes"), "byte {place}");
        }
        assert!(answer(&bytes[..bytes.len() - 1], &task).is_err());
        assert!(answer(&[], &task).is_err());
        let other = PartTask::of_bytes(b"other".to_vec());
        assert!(answer(&bytes, &other).err().unwrap().to_string().contains("another task"));
        let failed = write_answer("host", b"other", Duration::ZERO, Err(OperatorError::Input("too long".to_string())));
        let error = answer(&failed, &other).err().unwrap();
        assert_eq!((error.to_string().as_str(), error.is_input()), ("executor host: too long", true));
    }
}
