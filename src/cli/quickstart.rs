//! `optune quickstart`: the first run, without a clone of the repository. Its files are in the
//! program.

use std::path::{Path, PathBuf};

use clap::Args;

use super::error::CliError;
use super::run::Run;
use super::terminal::{tell, word};

/// The pipeline file, as below the folder.
const PIPELINE: &str = "pipelines/quickstart.yaml";

/// The files as below the root of the repository, so that the pages about it hold here too.
const FILES: [(&str, &[u8]); 9] = [
    (PIPELINE, include_bytes!("../../pipelines/quickstart.yaml")),
    ("datasets/tasks/demonstrations.parquet", include_bytes!("../../datasets/tasks/demonstrations.parquet")),
    ("datasets/tasks/train.parquet", include_bytes!("../../datasets/tasks/train.parquet")),
    ("datasets/tasks/held_out.parquet", include_bytes!("../../datasets/tasks/held_out.parquet")),
    ("datasets/tasks/reward.sql", include_bytes!("../../datasets/tasks/reward.sql")),
    ("datasets/tasks/model/config.json", include_bytes!("../../datasets/tasks/model/config.json")),
    ("datasets/tasks/model/generation_config.json", include_bytes!("../../datasets/tasks/model/generation_config.json")),
    ("datasets/tasks/model/tokenizer.json", include_bytes!("../../datasets/tasks/model/tokenizer.json")),
    ("datasets/tasks/model/tokenizer_config.json", include_bytes!("../../datasets/tasks/model/tokenizer_config.json")),
];

#[derive(Args)]
pub(super) struct Quickstart {
    /// The folder to write the files to, and the runs unless --runs names another folder.
    #[arg(default_value = "optune-quickstart")]
    folder: PathBuf,
    /// Write the files without running them.
    #[arg(long)]
    files_only: bool,
}

impl Quickstart {
    pub(super) fn execute(self, runs: &Path) -> Result<(), CliError> {
        let changed = FILES.iter().find(|(name, bytes)| std::fs::read(self.folder.join(name)).is_ok_and(|there| there != *bytes));
        if let Some((name, _)) = changed {
            let problem = "was changed since; name another folder, or run it as it is: optune run";
            let file = self.folder.join(name);
            return Err(CliError::Input(format!("{}: {problem} {}", file.display(), word(self.folder.join(PIPELINE).display()))));
        }
        FILES.iter().try_for_each(|(name, bytes)| write(&self.folder.join(name), bytes))?;
        tell(format!("{}: {} files written", self.folder.display(), FILES.len()));
        if self.files_only {
            return Ok(());
        }
        let own = self.folder.join("runs");
        Run::of(self.folder.join(PIPELINE)).execute(if runs == Path::new("runs") { &own } else { runs })
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(path, bytes));
    written.map_err(|error| CliError::Failed(format!("{}: cannot write: {error}", path.display())))
}
