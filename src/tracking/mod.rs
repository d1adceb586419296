//! Output for other programs while a run goes on: event files for TensorBoard, and an MLflow
//! server.
//!
//! ```text
//! committed tables, checkpoints, journal ─▶ series ─▶ tensorboard/<node>/events.out.tfevents.*
//!                                                 └▶ MLflow, over HTTP
//! ```
//!
//! Series are read from committed data, never from work in progress: a run that was killed and goes
//! on has the same curves as an uninterrupted one, each step once. A separate thread looks every
//! second for new commits. A failure there is a warning and is tried again; it never ends the run.
//! Knows neither operators nor tensors.

mod error;
mod event_file;
mod mlflow;
mod series;
mod sink;
mod tensorboard;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::dag::fingerprint::Fingerprint;
use crate::pipeline::spec::tracking::Tracking;
use crate::store::{OutputKey, Run};
pub use error::TrackingError;
use mlflow::Mlflow;
pub use series::{Point, Reader, Series, SeriesName};
pub use sink::Ended;
use sink::Sink;
use tensorboard::TensorBoard;

/// The time between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// The longest wait after a failure: an outage is not made worse by asking.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The number of attempts to show the rest at the end of a run, a second apart.
const LAST_TRIES: u32 = 3;

/// Shows a run.
pub struct Tracker<'w> {
    reader: Reader,
    sinks: Vec<ShownSink>,
    warn: &'w (dyn Fn(&str) + Sync),
}

/// A sink, and its current state.
struct ShownSink {
    sink: Box<dyn Sink>,
    /// Looks to leave out, and how many to leave out after the next failure.
    wait: u32,
    next_wait: u32,
    /// Whether a warning was given; one an outage.
    warned: bool,
}

impl<'w> Tracker<'w> {
    /// Shows the outputs in `wanted`, by their recipes, as `settings` say. `params` are the
    /// pipeline's; programs compare runs by them. `warn` receives the failures.
    ///
    /// # Errors
    /// The address of a server is invalid, or its token cannot be sent.
    pub fn new(
        run: &Run,
        settings: &Tracking,
        wanted: HashMap<OutputKey, Fingerprint>,
        params: Vec<(String, String)>,
        warn: &'w (dyn Fn(&str) + Sync),
    ) -> Result<Self, TrackingError> {
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        if settings.tensorboard {
            sinks.push(Box::new(TensorBoard::new(run.folder().join("tensorboard"))));
        }
        if let Some(server) = &settings.mlflow {
            sinks.push(Box::new(Mlflow::new(run, server, &wanted, params)?));
        }
        let told = |sink| ShownSink { sink, wait: 0, next_wait: 1, warned: false };
        Ok(Self { reader: Reader::new(run.clone(), wanted), sinks: sinks.into_iter().map(told).collect(), warn })
    }

    /// Does `work`, and shows its commits meanwhile. `how` converts its result to the kind of end.
    pub fn beside<T>(mut self, work: impl FnOnce() -> T, how: impl FnOnce(&T) -> Ended) -> T {
        if self.sinks.is_empty() {
            return work();
        }
        let over = (Mutex::new(false), Condvar::new());
        let done = std::thread::scope(|scope| {
            scope.spawn(|| self.follow(&over));
            let end = Over(&over);
            let done = work();
            drop(end);
            done
        });
        let ended = how(&done);
        for attempt in 0..LAST_TRIES {
            if attempt > 0 {
                std::thread::sleep(EVERY);
            }
            self.sinks.iter_mut().for_each(|told| told.wait = 0);
            if self.look(Some(ended)) {
                break;
            }
        }
        done
    }

    /// Looks again and again, until it is over.
    fn follow(&mut self, (over, changed): &(Mutex<bool>, Condvar)) {
        loop {
            self.look(None);
            let waiting = over.lock().unwrap_or_else(PoisonError::into_inner);
            let (over, _) = changed.wait_timeout_while(waiting, EVERY, |over| !*over).unwrap_or_else(PoisonError::into_inner);
            if *over {
                return;
            }
        }
    }

    /// One look; returns whether everything committed is shown.
    fn look(&mut self, ended: Option<Ended>) -> bool {
        let reader = &mut self.reader;
        let series = match catch_panic(|| reader.read()) {
            Ok(series) => series,
            Err(error) => {
                // While the run goes on, a file may have been replaced just now; the next look
                // finds it.
                if ended.is_some() {
                    (self.warn)(&format!("what is tracked cannot be read: {error}"));
                }
                return false;
            }
        };
        let warn = self.warn;
        let mut all = true;
        for told in &mut self.sinks {
            all &= told.show(series, ended, warn);
        }
        all
    }
}

impl ShownSink {
    /// Whether everything was shown.
    fn show(&mut self, series: &Series, ended: Option<Ended>, warn: &(dyn Fn(&str) + Sync)) -> bool {
        if self.wait > 0 {
            self.wait -= 1;
            return false;
        }
        let sink = &mut self.sink;
        match catch_panic(|| sink.show(series).and_then(|()| ended.map_or(Ok(()), |ended| sink.end(ended)))) {
            Ok(()) => {
                (self.next_wait, self.warned) = (1, false);
                true
            }
            Err(error) => {
                if !self.warned {
                    warn(&format!(
                        "{}: {error}; the run goes on, and what is missing there is shown later, or by the same command",
                        sink.name()
                    ));
                }
                self.warned = true;
                self.wait = self.next_wait;
                self.next_wait = (self.next_wait * 2).min((LONGEST_WAIT.as_secs() / EVERY.as_secs()) as u32);
                false
            }
        }
    }
}

/// Says that the work is over, however it ended.
struct Over<'a>(&'a (Mutex<bool>, Condvar));

impl Drop for Over<'_> {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}

/// A panic as an error: nothing here is worth a run.
fn catch_panic<T>(work: impl FnOnce() -> Result<T, TrackingError>) -> Result<T, TrackingError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(TrackingError::Internal("looking at the tables broke down".to_string())))
}
