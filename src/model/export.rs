//! A checkpoint as other software wants it: its weights in another number format and in files of a
//! limited size.
//!
//! Values go from file to file, one tensor in memory at a time; no model is loaded.

use std::fs;
use std::path::Path;

use super::checkpoint::Checkpoint;
use super::{Dtype, ModelError, weights_writer};

impl Checkpoint {
    /// Writes this checkpoint into `folder`, which must be empty or not be there: weights in
    /// `dtype`, rounded to the nearest, in one file or, where their bytes exceed `max_shard_bytes`,
    /// in shards; configuration, tokenizer and chat template as in [`Checkpoint::save`]. The bytes
    /// of the files depend on the arguments and this checkpoint alone. `config.json` is written
    /// last.
    ///
    /// # Errors
    /// When there is something in `folder`, a value is beyond the range of `dtype` (the tensor is
    /// named), the checkpoint was opened blank, or a file cannot be read or written.
    pub fn export(&self, folder: &Path, dtype: Dtype, max_shard_bytes: u64) -> Result<(), ModelError> {
        if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(ModelError::invalid(folder, "expected an empty folder or none, found files in it"));
        }
        fs::create_dir_all(folder).map_err(|source| ModelError::Write { path: folder.to_path_buf(), source })?;
        weights_writer::write(folder, &self.parameters, dtype, max_shard_bytes, |sink| {
            self.parameters.iter().try_for_each(|parameter| sink(self.parameter(&parameter.name)?))
        })?;
        self.write_settings(folder, dtype)
    }
}
