//! An executor of a cluster: Ballista's, with our function and times of ours.

use std::net::{IpAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};

use super::error::ClusterError;
use super::function::{NAME, Work, function};
use super::limits::{CONNECT_SECONDS, LOOK_FOR_LOST_RESULTS_SECONDS, LOST_RESULTS_SECONDS, MESSAGE_BYTES};

/// The time between two words about a scheduler that does not answer.
const TELL_AGAIN: Duration = Duration::from_secs(30);

/// The settings of an executor.
pub struct Executor {
    /// The scheduler, as `HOST:PORT`.
    pub scheduler: String,
    /// The address of this machine where clients fetch answers; by default the one towards the
    /// scheduler.
    pub host: Option<IpAddr>,
    /// The port there; 0 for any that is free.
    pub port: u16,
    /// The folder of answers until they are fetched.
    pub folder: PathBuf,
    /// The answer to a task.
    pub work: Work,
}

/// Works for the scheduler until the process is asked to end. It waits for a scheduler.
/// `listening` hears of the address for answers, and `waiting` of failed looks for the scheduler.
///
/// # Errors
/// An address that cannot be used, or an end of Ballista's.
pub fn execute(executor: Executor, waiting: impl Fn(&str), listening: impl FnOnce(&str)) -> Result<(), ClusterError> {
    let (scheduler_host, scheduler_port) = split(&executor.scheduler)?;
    let towards = local_address(&executor.scheduler, &waiting);
    let host = executor.host.unwrap_or(towards);
    let refused = |problem: String| ClusterError::Address { address: format!("{}:{}", in_address(host), executor.port), problem };
    // Ballista tells others the port that it is given, so it cannot be 0.
    let free = TcpListener::bind((host, executor.port)).map_err(|error| refused(error.to_string()))?;
    let port = free.local_addr().map_err(|error| refused(error.to_string()))?.port();
    drop(free);
    let mut functions = BallistaFunctionRegistry::default();
    functions.scalar_functions.insert(NAME.to_string(), function(Some(executor.work)));
    let config = ExecutorProcessConfig {
        bind_host: in_address(host),
        external_host: Some(in_address(host)),
        port,
        scheduler_host,
        scheduler_port,
        // One part at a time: a model has the device for itself.
        vcores: 1,
        task_scheduling_policy: TaskSchedulingPolicy::PullStaged,
        work_dir: Some(executor.folder.display().to_string()),
        job_data_ttl_seconds: LOST_RESULTS_SECONDS,
        job_data_clean_up_interval_seconds: LOOK_FOR_LOST_RESULTS_SECONDS,
        grpc_max_decoding_message_size: MESSAGE_BYTES,
        grpc_max_encoding_message_size: MESSAGE_BYTES,
        override_function_registry: Some(Arc::new(functions)),
        ..ExecutorProcessConfig::default()
    };
    let runtime = tokio::runtime::Runtime::new().map_err(|error| ClusterError::Ended(error.to_string()))?;
    listening(&format!("{}:{port}", in_address(host)));
    runtime.block_on(start_executor_process(Arc::new(config))).map_err(|error| ClusterError::Ended(error.to_string()))
}

fn split(address: &str) -> Result<(String, u16), ClusterError> {
    let refused = || ClusterError::Address { address: address.to_string(), problem: "expected HOST:PORT".to_string() };
    let (host, port) = address.rsplit_once(':').ok_or_else(refused)?;
    Ok((host.to_string(), port.parse().map_err(|_| refused())?))
}

/// A host in front of a port.
fn in_address(host: IpAddr) -> String {
    match host {
        IpAddr::V4(host) => host.to_string(),
        IpAddr::V6(host) => format!("[{host}]"),
    }
}

/// The address of this machine on the way to the scheduler, once that answers. `waiting` hears of
/// the first failed look, and then now and then.
fn local_address(scheduler: &str, waiting: &impl Fn(&str)) -> IpAddr {
    let mut told: Option<Instant> = None;
    loop {
        match own_address(scheduler) {
            Ok(own) => return own,
            Err(error) if told.is_none_or(|told| told.elapsed() > TELL_AGAIN) => {
                told = Some(Instant::now());
                waiting(&error.to_string());
            }
            Err(_) => {}
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn own_address(scheduler: &str) -> std::io::Result<IpAddr> {
    let mut last = std::io::Error::other("no address of that name");
    for address in scheduler.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, Duration::from_secs(CONNECT_SECONDS)).and_then(|stream| stream.local_addr()) {
            Ok(own) => return Ok(own.ip()),
            Err(error) => last = error,
        }
    }
    Err(last)
}
