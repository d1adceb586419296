//! The arguments of commands on a pipeline file: the file, values for its params, a name.

use std::path::PathBuf;

use clap::Args;

use super::error::CliError;
use crate::cluster;
use crate::pipeline::spec::address::check_host_and_port;
use crate::pipeline::{Graph, Pipeline, Sweep, folder_of};

/// A pipeline file with values for its params.
#[derive(Args)]
pub(super) struct PipelineArguments {
    /// The pipeline file.
    pub(super) file: PathBuf,
    /// A value for one of the file's params; may be given several times.
    #[arg(long = "set", value_name = "PARAM=VALUE", value_parser = param)]
    pub(super) set: Vec<(String, String)>,
    /// A name for the run instead of the file's.
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// The scheduler of a cluster for the parts of nodes with models, instead of the file's.
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub(super) cluster: Option<String>,
}

fn address(text: &str) -> Result<String, String> {
    check_host_and_port(text).map(|()| text.to_string())
}

fn param(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("expected PARAM=VALUE, found {text}"))?;
    Ok((name.trim().to_string(), value.trim().to_string()))
}

impl PipelineArguments {
    /// Loads the file and makes the graphs of its runs.
    pub(super) fn load(&self) -> Result<Graphs, CliError> {
        let sweep = Sweep::load(&self.file, &self.set)?;
        let name = self.name.clone().unwrap_or_else(|| sweep.name.clone());
        let graph = |pipeline: &Pipeline| {
            let mut graph = pipeline.graph(folder_of(&self.file))?;
            let of_point = graph.name.strip_prefix(&sweep.name).unwrap_or_default();
            graph.name = format!("{name}{of_point}");
            graph.cluster = self.cluster.clone().or(graph.cluster);
            if graph.cluster.is_some() {
                cluster::check().map_err(|problem| CliError::Input(problem.to_string()))?;
            }
            Ok(graph)
        };
        let graphs = sweep.runs.iter().map(graph).collect::<Result<_, CliError>>()?;
        Ok(Graphs { name, graphs, has_matrix: sweep.has_matrix })
    }
}

/// The graphs of all runs of a pipeline file.
pub(super) struct Graphs {
    pub(super) name: String,
    pub(super) graphs: Vec<Graph>,
    pub(super) has_matrix: bool,
}
