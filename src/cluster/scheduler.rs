//! The scheduler of a cluster: Ballista's, with the name of our function and times of ours.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::utils::{default_config_producer, default_session_builder};
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::start_server;
use ballista_scheduler::scheduler_server::SessionBuilder;
use datafusion::execution::FunctionRegistry;

use super::error::ClusterError;
use super::function::function;
use super::limits::{EXECUTOR_LOST_SECONDS, JOBS_SECONDS, LOOK_FOR_LOST_SECONDS, MESSAGE_BYTES, RESULTS_SECONDS};

/// Schedules parts at `address` until the process ends. `listening` hears of the address in the
/// moment before.
///
/// # Errors
/// An address that cannot be used, or an end of Ballista's.
pub fn serve(address: &str, listening: impl FnOnce(SocketAddr)) -> Result<(), ClusterError> {
    let refused = |problem: String| ClusterError::Address { address: address.to_string(), problem };
    let socket = address.to_socket_addrs().map_err(|error| refused(error.to_string()))?.next();
    let socket = socket.ok_or_else(|| refused("expected an address of this machine, found none of that name".to_string()))?;
    // Ballista says late and in other words that the address is taken.
    drop(std::net::TcpListener::bind(socket).map_err(|error| refused(error.to_string()))?);
    let runtime = tokio::runtime::Runtime::new().map_err(|error| ClusterError::Ended(error.to_string()))?;
    listening(socket);
    runtime.block_on(run(socket)).map_err(|error| ClusterError::Ended(error.to_string()))
}

async fn run(socket: SocketAddr) -> ballista_core::error::Result<()> {
    let sessions: SessionBuilder = Arc::new(|config| {
        let mut state = default_session_builder(config)?;
        state.register_udf(function(None))?;
        Ok(state)
    });
    let config = SchedulerConfig {
        bind_host: socket.ip().to_string(),
        bind_port: socket.port(),
        external_host: socket.ip().to_string(),
        // Executors ask for work: a new scheduler at the same address needs to know none of them.
        scheduling_policy: TaskSchedulingPolicy::PullStaged,
        executor_timeout_seconds: EXECUTOR_LOST_SECONDS,
        expire_dead_executor_interval_seconds: LOOK_FOR_LOST_SECONDS,
        finished_job_data_clean_up_interval_seconds: RESULTS_SECONDS,
        finished_job_state_clean_up_interval_seconds: JOBS_SECONDS,
        grpc_server_max_decoding_message_size: MESSAGE_BYTES,
        grpc_server_max_encoding_message_size: MESSAGE_BYTES,
        override_session_builder: Some(sessions.clone()),
        ..SchedulerConfig::default()
    };
    let cluster = BallistaCluster::new_memory(config.scheduler_id.clone(), sessions, Arc::new(default_config_producer));
    start_server(cluster, socket, Arc::new(config)).await
}
