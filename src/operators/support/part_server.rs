//! The other side of a part: an executor computes the works of a task with its models.
//!
//! One part at a time, because a model has the device for itself. Models stay loaded for the next
//! part. Knows neither operators nor the way of the bytes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use burn::tensor::Device;

use super::memory_budget::Budget;
use super::model_work::{Found, Work, WorkingModel};
use super::part_task::{Model, TaskHeader, read_task, write_answer};
use super::{DeviceTime, OperatorError};
use crate::catch_panic::catch_panic;
use crate::compute::{DeviceChoice, Precision};
use crate::pipeline::spec::resources::Resources;

/// This module in internal errors.
const PLACE: &str = "operators::support::part_server";

/// The waits before the files of a model are looked at again: a shared file system may show new
/// ones late.
const LOOKS_AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// The part of an executor that knows models.
pub struct PartServer {
    name: String,
    device: DeviceChoice,
    looks_again: Vec<Duration>,
    /// The models of the last part.
    models: Mutex<Vec<LoadedModel>>,
    tell: Box<dyn Fn(&str) + Send + Sync>,
}

/// A loaded model, and what it was loaded for.
struct LoadedModel {
    key: Key,
    working: WorkingModel,
}

/// All that a loaded model depends on.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    model: Model,
    device: Device,
    precision: Precision,
    memory_gb: Option<f64>,
}

impl PartServer {
    /// The executor called `name`, with models on this device. `tell` hears of every part.
    pub fn new(name: String, device: DeviceChoice, tell: Box<dyn Fn(&str) + Send + Sync>) -> Self {
        Self { name, device, looks_again: LOOKS_AGAIN.to_vec(), models: Mutex::default(), tell }
    }

    /// The answer to a task. Failures are answers too.
    pub fn answer(&self, task: &[u8]) -> Vec<u8> {
        let begin = Instant::now();
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let time = DeviceTime::default();
        let result = catch_panic(|| self.compute(&mut models, task, &time)).unwrap_or_else(|panic| {
            // A model in the middle of a panic is not used again.
            models.clear();
            Err(OperatorError::internal(PLACE, panic))
        });
        let seconds = begin.elapsed().as_secs_f64();
        let (name, result) = match result {
            Ok((name, found)) => (format!("{name}: {seconds:.1} s"), Ok(found)),
            Err(error) => (format!("failed after {seconds:.1} s: {error}"), Err(error)),
        };
        (self.tell)(&name);
        write_answer(&self.name, task, time.seconds().map_or(Duration::ZERO, Duration::from_secs_f64), result)
    }

    fn compute(&self, models: &mut Vec<LoadedModel>, task: &[u8], time: &DeviceTime) -> Result<(String, Vec<Found>), OperatorError> {
        let (header, works) = read_task(task)?;
        let device = self.device(&header)?;
        let precision = header.precision()?;
        let key = |model: &Model| Key { model: model.clone(), device: device.clone(), precision, memory_gb: header.memory_gb };
        let keys: Vec<Key> = header.models.iter().map(key).collect();
        models.retain(|model| keys.contains(&model.key));
        let mut found = Vec::with_capacity(works.len());
        for Work { model, job, .. } in works {
            let key = keys.get(model).ok_or_else(|| OperatorError::internal(PLACE, format!("{} has no model {model}", header.name)))?;
            let loaded = match models.iter().position(|loaded| loaded.key == *key) {
                Some(index) => models.get_mut(index),
                None => {
                    models.push(LoadedModel { working: self.open(key)?, key: key.clone() });
                    models.last_mut()
                }
            };
            let loaded = loaded.ok_or_else(|| OperatorError::internal(PLACE, "a model went away"))?;
            found.push(loaded.working.compute(&job, time, &mut |_| {})?);
        }
        Ok((header.name, found))
    }

    /// The device for a task: of the kind that the coordinator counts with.
    fn device(&self, header: &TaskHeader) -> Result<Device, OperatorError> {
        let refused = |wanted: &str, own: &str| {
            let problem = format!("{}: expected an executor with {wanted}, found one started with --device {own}", header.name);
            Err(OperatorError::Input(problem))
        };
        match (&self.device, header.on_cpu) {
            (DeviceChoice::Cuda | DeviceChoice::Gpus(_), true) => refused("the CPU", "cuda"),
            (DeviceChoice::Cpu | DeviceChoice::Cpus(_), false) => refused("a GPU", "cpu"),
            (_, true) => Ok(DeviceChoice::Cpu.resolve()?),
            (_, false) => Ok(DeviceChoice::Cuda.resolve()?),
        }
    }

    /// Opens a model whose files are the coordinator's.
    fn open(&self, key: &Key) -> Result<WorkingModel, OperatorError> {
        let mut waits = self.looks_again.iter();
        while let Err(problem) = compare(&key.model) {
            std::thread::sleep(*waits.next().ok_or(problem)?);
        }
        let resources = Resources { memory_gb: key.memory_gb, ..Resources::default() };
        let budget = Budget::new(&resources, key.device == Device::flex());
        Ok(WorkingModel::new(Arc::new(key.model.folders.open()?), key.device.clone(), key.precision, budget))
    }
}

/// Compares all files of a model with the coordinator's.
fn compare(Model { folders, hash }: &Model) -> Result<(), OperatorError> {
    let folder = folders.folder.display();
    if !folders.folder.is_dir() {
        let problem = "expected the folder of a model on a file system shared with the coordinator, found none";
        return Err(OperatorError::Input(format!("{folder}: {problem}; mount it at the same path")));
    }
    let found = folders.hash()?;
    if found == *hash {
        return Ok(());
    }
    let short = |hash: &str| hash.chars().take(12).collect::<String>();
    let problem = format!("expected the coordinator's files ({}), found others ({})", short(hash), short(&found));
    Err(OperatorError::Input(format!("{folder}: {problem}; the two see different folders, or the model was changed")))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::super::model_folders::ModelFolders;
    use super::super::model_work::{Job, Logprobs};
    use super::super::part_task::{PartTask, Settings, answer};
    use super::*;
    use crate::token_lists::TokenLists;

    /// A copy of a small model.
    fn model(folder: &Path) -> PathBuf {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/benchmark/model");
        let to = folder.join("model");
        std::fs::create_dir(&to).unwrap();
        for file in std::fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
        to
    }

    fn job() -> Job {
        let sequences = TokenLists::from_rows(&[vec![1, 2, 3, 4], vec![5, 6, 7]]).unwrap();
        Job::Logprobs(Logprobs { sequences, prompt_token_counts: vec![1, 2], batch_size: 2 })
    }

    fn task(model: &Model, on_cpu: bool) -> PartTask {
        let settings = Settings { on_cpu, precision: Precision::F32, memory_gb: None };
        let works = vec![Work { model: 0, of: None, job: job() }];
        PartTask::new("a part", settings, std::slice::from_ref(model), works).unwrap()
    }

    fn server(device: DeviceChoice) -> PartServer {
        PartServer { looks_again: Vec::new(), ..PartServer::new("host".to_string(), device, Box::new(|_| {})) }
    }

    fn refusal(server: &PartServer, task: &PartTask) -> String {
        answer(&server.answer(&task.bytes), task).err().unwrap().to_string()
    }

    #[test]
    fn a_part_has_the_bits_of_this_process_and_other_models_devices_and_bytes_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let folders = ModelFolders::new(&model(folder.path())).unwrap();
        let whole = Model::new(&folders).unwrap();
        let mut here = WorkingModel::new(Arc::new(folders.open().unwrap()), Device::flex(), Precision::F32, None);
        let expected = here.compute(&job(), &DeviceTime::default(), &mut |_| {}).unwrap().numbers(2).unwrap();

        let server = server(DeviceChoice::Cpu);
        let asked = task(&whole, true);
        for _ in 0..2 {
            let mut answer = answer(&server.answer(&asked.bytes), &asked).unwrap();
            let found = answer.found.remove(0).numbers(2).unwrap();
            let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&found.values), bits(&expected.values));
            assert!(expected.values.iter().all(|value| *value < 0.0) && answer.spent > Duration::ZERO);
        }

        let error = refusal(&server, &task(&whole, false));
        assert!(error.contains("expected an executor with a GPU, found one started with --device cpu"), "{error}");
        let other = Model { hash: "0".repeat(64), ..whole.clone() };
        let error = refusal(&server, &task(&other, true));
        assert!(error.contains("expected the coordinator's files (000000000000), found others"), "{error}");
        std::fs::write(folder.path().join("model/config.json"), "{}").unwrap();
        // The model of the last part is forgotten, so its files are compared again.
        let error = refusal(&server, &asked);
        assert!(error.contains("the two see different folders, or the model was changed"), "{error}");
        std::fs::remove_dir_all(folder.path().join("model")).unwrap();
        let error = refusal(&server, &asked);
        assert!(error.contains("expected the folder of a model on a file system shared with the coordinator, found none"), "{error}");
        let error = refusal(&server, &PartTask::of_bytes(b"no task".to_vec()));
        assert!(error.contains("expected a task or an answer as it was sent, found too few bytes"), "{error}");
    }
}
