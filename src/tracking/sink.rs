//! The receiver of series: one for each program to draw them.

use super::error::TrackingError;
use super::series::Series;

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

/// A receiver of series.
pub(super) trait Sink: Send {
    /// Its name, for warnings.
    fn name(&self) -> &'static str;
    /// Shows the new points.
    fn show(&mut self, series: &Series) -> Result<(), TrackingError>;
    /// Shows the end of the run. All points were shown before.
    fn end(&mut self, ended: Ended) -> Result<(), TrackingError>;
}
