//! A client of a cluster: one job a task, asked again after failures.
//!
//! Ballista gives the task of a lost executor to another one. What it does not do is done here: a
//! scheduler that went away is waited for, and an answer that never comes is asked for again.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ballista_core::config::{
    BALLISTA_CLIENT_GRPC_CONNECT_TIMEOUT_SECONDS, BALLISTA_CLIENT_GRPC_MAX_MESSAGE_SIZE, BALLISTA_CLIENT_GRPC_TIMEOUT_SECONDS,
    BALLISTA_CLIENT_PULL,
};
use ballista_core::execution_plans::DistributedQueryExec;
use ballista_core::extension::SessionConfigExt;
use ballista_core::serde::protobuf::CancelJobParams;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use datafusion::arrow::array::AsArray;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::physical_plan::{ExecutionPlan, common::collect};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_proto::protobuf::LogicalPlanNode;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use super::error::ClusterError;
use super::function::function;
use super::limits::{CONNECT_SECONDS, LONGER, LONGEST_PART, MESSAGE_BYTES, PATIENCE};
use crate::catch_panic::catch_panic;

/// How often a question looks whether it is given up.
const LOOK: Duration = Duration::from_millis(50);
/// The first wait after a failure, and the longest.
const WAITS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(8)];
/// The time between two words about failures.
const QUIET: Duration = Duration::from_secs(30);
/// The time for one call of the scheduler, in seconds. Calls answer at once.
const CALL_SECONDS: u64 = 20;
/// A part is given to a cluster so many times, each longer than [`QUIET`].
const TRIES: u32 = 5;
/// How often the scheduler is asked whether it has executors.
const LOOK_FOR_EXECUTORS: Duration = Duration::from_secs(15);
/// The begin of its answer if it has.
const READY: &str = "HTTP/1.1 200";
/// The answer to a question that is given up.
const NOBODY: &str = "nobody waits for the part any more";
/// The longest text of a problem of others.
const PROBLEM_CHARACTERS: usize = 300;

/// A client of the scheduler at one address.
pub struct Client {
    runtime: Runtime,
    address: String,
    /// One session for all tasks: a scheduler keeps sessions.
    session: String,
    /// The longest time from a task to its answer so far, in milliseconds.
    longest: AtomicU64,
    /// When the user was last told of a failure.
    told: Mutex<Option<Instant>>,
}

/// The end of one attempt.
enum Attempt {
    Answer(Vec<u8>),
    GivenUp,
    /// The scheduler had no executor for a long time.
    NoExecutor,
    Failed(String),
}

impl Client {
    /// A client of the scheduler at `HOST:PORT`, which need not be there yet.
    ///
    /// # Errors
    /// The system has no room for its threads.
    pub fn new(address: &str) -> Result<Self, ClusterError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Ok(Self {
            runtime: runtime.map_err(|error| ClusterError::Ended(error.to_string()))?,
            address: address.to_string(),
            session: SessionContext::new().session_id(),
            longest: AtomicU64::new(0),
            told: Mutex::new(None),
        })
    }

    /// The answer of some executor to a task. It waits for a scheduler, and asks again after
    /// failures, until the task is `given_up`. `tell` hears of failures now and then.
    ///
    /// # Errors
    /// A message: there was no cluster for a long time, it gave no answer several times, or nobody
    /// waits for the answer.
    pub fn ask(&self, task: &[u8], given_up: &(dyn Fn() -> bool + Sync), tell: &(dyn Fn(&str) + Sync)) -> Result<Vec<u8>, String> {
        let mut last_good = Instant::now();
        let mut wait = WAITS[0];
        let mut tries = 0;
        loop {
            let begin = Instant::now();
            // Ballista's client has assertions about the answers of others.
            let attempt = catch_panic(|| self.runtime.block_on(self.attempt(task, given_up))).unwrap_or_else(Attempt::Failed);
            match attempt {
                Attempt::Answer(answer) => {
                    // 584 million years fit.
                    let spent = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
                    self.longest.fetch_max(spent, Ordering::Relaxed);
                    return Ok(answer);
                }
                Attempt::GivenUp => return Err(NOBODY.to_string()),
                Attempt::NoExecutor => return Err(self.without_answer("no executor", "")),
                Attempt::Failed(problem) => {
                    // An attempt of some length had a cluster.
                    if begin.elapsed() > QUIET {
                        tries += 1;
                        last_good = Instant::now();
                        wait = WAITS[0];
                    }
                    if tries >= TRIES {
                        let problem = format!("a part was given to it {tries} times without an answer, the last time: {problem}");
                        return Err(format!("cluster {}: {problem}; {}", self.address, self.state()));
                    }
                    if last_good.elapsed() > PATIENCE {
                        return Err(self.without_answer("no answer", &format!(": {problem}")));
                    }
                    self.tell_of(&problem, tell);
                }
            }
            let waited = Instant::now();
            while waited.elapsed() < wait {
                if given_up() {
                    return Err(NOBODY.to_string());
                }
                std::thread::sleep(LOOK);
            }
            wait = (wait * 2).min(WAITS[1]);
        }
    }

    /// The message of a client that has waited long enough.
    fn without_answer(&self, what: &str, why: &str) -> String {
        let minutes = PATIENCE.as_secs() / 60;
        format!("cluster {}: {what} for {minutes} minutes{why}; {}; the same command goes on when it is back", self.address, self.state())
    }

    /// The state of the cluster, in words.
    pub fn state(&self) -> String {
        match readiness(&self.address) {
            Ok(answer) if answer.starts_with(READY) => format!("the scheduler {} has executors", self.address),
            Ok(_) => format!("the scheduler {} has no executor; start one with `optune executor`", self.address),
            Err(error) => format!("the scheduler {} does not answer: {error}", self.address),
        }
    }

    /// Tells of a failure, unless it did a moment ago for this or another task.
    fn tell_of(&self, problem: &str, tell: &(dyn Fn(&str) + Sync)) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() > QUIET) {
            *told = Some(Instant::now());
            drop(told);
            // The state of a silent scheduler says more than the client's problem with it.
            let problem = if readiness(&self.address).is_ok() { format!("{problem}; ") } else { String::new() };
            tell(&format!("cluster {}: {problem}{}; asking again", self.address, self.state()));
        }
    }

    async fn attempt(&self, task: &[u8], given_up: &(dyn Fn() -> bool + Sync)) -> Attempt {
        let failed = |error: DataFusionError| Attempt::Failed(in_short(&error.to_string()));
        let config = match config() {
            Ok(config) => config,
            Err(error) => return failed(error),
        };
        let plan = match plan(task) {
            Ok(plan) => plan,
            Err(error) => return failed(error),
        };
        let url = format!("http://{}", self.address);
        let query = DistributedQueryExec::<LogicalPlanNode>::with_extension(
            url,
            config.ballista_config(),
            plan,
            config.ballista_logical_extension_codec(),
            self.session.clone(),
        );
        let stream = match query.execute(0, SessionContext::new_with_config(config).task_ctx()) {
            Ok(stream) => stream,
            Err(error) => return failed(error),
        };
        let limit = LONGEST_PART.max(Duration::from_millis(self.longest.load(Ordering::Relaxed)) * LONGER);
        let end = tokio::select! {
            rows = collect(stream) => return match rows {
                Ok(rows) => match answer(&rows) {
                    Some(answer) => Attempt::Answer(answer),
                    None => Attempt::Failed("expected one row of bytes, found another answer".to_string()),
                },
                Err(error) => failed(error),
            },
            () = watch(given_up) => Attempt::GivenUp,
            () = no_executor(&self.address) => Attempt::NoExecutor,
            () = sleep(limit) => Attempt::Failed(format!("no answer to a part within {} minutes", limit.as_secs() / 60)),
        };
        if let Some(job) = query.job_id() {
            self.cancel(job.to_string()).await;
        }
        end
    }

    /// Takes a task back, so that no executor begins with it. A failure only costs the work.
    async fn cancel(&self, job_id: String) {
        let cancel = async {
            let mut scheduler = SchedulerGrpcClient::connect(format!("http://{}", self.address)).await.ok()?;
            scheduler.cancel_job(CancelJobParams { job_id }).await.ok()
        };
        let _ = timeout(Duration::from_secs(CONNECT_SECONDS), cancel).await;
    }
}

/// The settings of a session.
fn config() -> Result<SessionConfig> {
    let mut config = SessionConfig::new_with_ballista();
    let settings = [
        (BALLISTA_CLIENT_GRPC_MAX_MESSAGE_SIZE, MESSAGE_BYTES.to_string()),
        (BALLISTA_CLIENT_GRPC_CONNECT_TIMEOUT_SECONDS, CONNECT_SECONDS.to_string()),
        (BALLISTA_CLIENT_GRPC_TIMEOUT_SECONDS, CALL_SECONDS.to_string()),
        // Each look at a job is a call with a limit: a scheduler that hangs is found out.
        (BALLISTA_CLIENT_PULL, "true".to_string()),
    ];
    for (key, value) in settings {
        config.options_mut().set(key, &value)?;
    }
    Ok(config)
}

/// One call of the function.
fn plan(task: &[u8]) -> Result<LogicalPlan> {
    let call = function(None).call(vec![lit(ScalarValue::Binary(Some(task.to_vec())))]);
    LogicalPlanBuilder::empty(true).project(vec![call])?.build()
}

/// The one value of the result.
fn answer(rows: &[datafusion::arrow::array::RecordBatch]) -> Option<Vec<u8>> {
    let row = rows.iter().find(|batch| batch.num_rows() > 0)?;
    let values = row.columns().first()?.as_binary_opt::<i32>()?;
    values.iter().next().flatten().map(<[u8]>::to_vec)
}

/// The scheduler's own answer to the question whether it has executors.
fn readiness(address: &str) -> std::io::Result<String> {
    let limit = Duration::from_secs(CONNECT_SECONDS);
    let resolved = address.to_socket_addrs()?.next().ok_or_else(|| std::io::Error::other("no address of that name"))?;
    let mut stream = TcpStream::connect_timeout(&resolved, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = [0; READY.len()];
    stream.read_exact(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Ends when the scheduler has said for a long time that it has no executor.
async fn no_executor(address: &str) {
    let mut since: Option<Instant> = None;
    while since.is_none_or(|since| since.elapsed() < PATIENCE) {
        sleep(LOOK_FOR_EXECUTORS).await;
        let address = address.to_string();
        match tokio::task::spawn_blocking(move || readiness(&address)).await {
            Ok(Ok(answer)) if !answer.starts_with(READY) => {
                since.get_or_insert_with(Instant::now);
            }
            // Without a scheduler the attempt itself fails.
            _ => since = None,
        }
    }
}

async fn watch(given_up: &(dyn Fn() -> bool + Sync)) {
    while !given_up() {
        sleep(LOOK).await;
    }
}

/// The first line of a text, cut where it gets long.
fn in_short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut short: String = line.chars().take(PROBLEM_CHARACTERS).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    short
}
