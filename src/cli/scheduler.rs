//! `optune scheduler`: the scheduler of a cluster.

use clap::Args;

use super::error::CliError;

#[derive(Args)]
pub(super) struct Scheduler {
    /// The address to listen at. Whoever reaches it can use the cluster: it is for trusted networks
    /// only.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:50050")]
    listen: String,
}

impl Scheduler {
    #[cfg(feature = "cluster")]
    pub(super) fn execute(self) -> Result<(), CliError> {
        let listening = |address: std::net::SocketAddr| {
            // A closed standard output is no reason to refuse service.
            let _ = super::format::print(&format!("scheduler at {address}; executors: optune executor --scheduler {address}; end: Ctrl-C"));
        };
        Ok(crate::cluster::serve(&self.listen, listening)?)
    }

    #[cfg(not(feature = "cluster"))]
    pub(super) fn execute(self) -> Result<(), CliError> {
        let Self { listen } = self;
        crate::cluster::check().map_err(|problem| CliError::Input(format!("scheduler at {listen}: {problem}")))
    }
}

#[cfg(feature = "cluster")]
impl From<crate::cluster::ClusterError> for CliError {
    fn from(error: crate::cluster::ClusterError) -> Self {
        match error {
            crate::cluster::ClusterError::Address { .. } => Self::Input(error.to_string()),
            crate::cluster::ClusterError::Ended(_) => Self::Failed(error.to_string()),
        }
    }
}
