//! The cluster of a run, as the operators see it.

use super::RunError;
use crate::operators::Executors;
use crate::pipeline::graph::Graph;

/// The executors of the graph's cluster, if it has one.
///
/// # Errors
/// A build without clusters, or no runtime for the client.
#[cfg(feature = "cluster")]
pub(super) fn connect(graph: &Graph) -> Result<Option<Box<dyn Executors>>, RunError> {
    let Some(address) = &graph.cluster else { return Ok(None) };
    let client = crate::cluster::Client::new(address).map_err(|error| RunError::Cluster(error.to_string()))?;
    Ok(Some(Box::new(Cluster(client))))
}

/// The executors of the graph's cluster, if it has one.
///
/// # Errors
/// This build is without clusters.
#[cfg(not(feature = "cluster"))]
pub(super) fn connect(graph: &Graph) -> Result<Option<Box<dyn Executors>>, RunError> {
    match &graph.cluster {
        None => Ok(None),
        Some(_) => crate::cluster::check().map(|()| None).map_err(|problem| RunError::Cluster(problem.to_string())),
    }
}

/// A client as executors of parts.
#[cfg(feature = "cluster")]
struct Cluster(crate::cluster::Client);

#[cfg(feature = "cluster")]
impl Executors for Cluster {
    fn ask(&self, task: &[u8], given_up: &(dyn Fn() -> bool + Sync), tell: &(dyn Fn(&str) + Sync)) -> Result<Vec<u8>, String> {
        self.0.ask(task, given_up, tell)
    }

    fn state(&self) -> String {
        self.0.state()
    }
}
