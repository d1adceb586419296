//! A model of a task: where it comes from, opened once, and at work on each replica that needs it.
//!
//! Knows neither the work nor the parts of a table.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Device;

use super::memory_budget::Budget;
use super::model_folders::ModelFolders;
use super::model_work::WorkingModel;
use super::{Context, OperatorError};
use crate::model::Checkpoint;
use crate::pipeline::slot::Slot;

/// A model of a task, shared by its replicas.
pub struct TaskModel {
    origin: Origin,
    checkpoint: Mutex<Option<Arc<Checkpoint>>>,
    /// The model at work by the number of its replica, unless that computes with it.
    working: Mutex<HashMap<usize, WorkingModel>>,
}

/// Where a model of a task comes from.
enum Origin {
    Slot(Slot),
    Folder(PathBuf),
}

impl TaskModel {
    /// The model in a slot of the task.
    pub fn from_slot(slot: Slot) -> Self {
        Self::new(Origin::Slot(slot))
    }

    /// The model in a folder.
    pub fn from_folder(folder: &Path) -> Self {
        Self::new(Origin::Folder(folder.to_path_buf()))
    }

    fn new(origin: Origin) -> Self {
        Self { origin, checkpoint: Mutex::default(), working: Mutex::default() }
    }

    /// The model, opened but not loaded. Its chat template has the pipeline's settings.
    ///
    /// # Errors
    /// A file that is missing or wrong.
    pub fn checkpoint(&self, context: &Context) -> Result<Arc<Checkpoint>, OperatorError> {
        // A replica that waits here needs the same model.
        let mut opened = self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(checkpoint) = &*opened {
            return Ok(checkpoint.clone());
        }
        let checkpoint = match &self.origin {
            Origin::Slot(slot) => context.checkpoint(*slot)?,
            Origin::Folder(folder) => Checkpoint::open(folder)?.with_template_settings(context.task.template_settings()),
        };
        Ok(opened.insert(Arc::new(checkpoint)).clone())
    }

    /// The folders of the model for another process.
    ///
    /// # Errors
    /// An unfinished model, or a missing base.
    pub fn folders(&self, context: &Context) -> Result<ModelFolders, OperatorError> {
        match &self.origin {
            Origin::Slot(slot) => context.model_folders(*slot),
            Origin::Folder(folder) => ModelFolders::new(folder),
        }
    }

    /// Takes out the model of a replica, to compute with it. It comes back by [`Self::put_back`].
    ///
    /// # Errors
    /// As [`Self::checkpoint`].
    pub fn take(&self, context: &Context, replica: usize, device: &Device, budget: Option<Budget>) -> Result<WorkingModel, OperatorError> {
        let known = self.working.lock().unwrap_or_else(PoisonError::into_inner).remove(&replica);
        match known {
            Some(working) => Ok(working),
            None => Ok(WorkingModel::new(self.checkpoint(context)?, device.clone(), context.precision(), budget)),
        }
    }

    /// Keeps the model of a replica for its next part.
    pub fn put_back(&self, replica: usize, working: WorkingModel) {
        self.working.lock().unwrap_or_else(PoisonError::into_inner).insert(replica, working);
    }
}
