//! The trait of programs with curves of a run.

use super::{Series, TrackingError};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything is there.
    Finished,
    /// A node failed.
    Failed,
    /// It was stopped.
    Interrupted,
}

/// Something that is told of series.
pub(super) trait Sink: Send {
    /// Its name, for warnings.
    fn name(&self) -> &'static str;
    /// Shows what it was not told yet.
    fn show(&mut self, series: &Series) -> Result<(), TrackingError>;
    /// Says that the run ended. All was shown before.
    fn end(&mut self, ended: Ended) -> Result<(), TrackingError>;
}
