//! `optune executor`: computes parts for the scheduler of a cluster.

use std::net::IpAddr;

use clap::Args;

use super::error::CliError;
use crate::compute::DeviceChoice;
use crate::pipeline::spec::address::check_host_and_port;

#[derive(Args)]
pub(super) struct Executor {
    /// The scheduler of the cluster.
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    scheduler: String,
    /// The device for models. `auto` takes what a part asks for. One executor computes one part at
    /// a time: start one for each device, with CUDA_VISIBLE_DEVICES.
    #[arg(long, value_name = "auto|cpu|cuda", default_value = "auto")]
    device: DeviceChoice,
    /// The address of this machine where answers are fetched. By default the one towards the
    /// scheduler.
    #[arg(long, value_name = "ADDRESS")]
    host: Option<IpAddr>,
    /// The port there; 0 for any that is free.
    #[arg(long, value_name = "N", default_value_t = 0)]
    port: u16,
}

fn address(text: &str) -> Result<String, String> {
    check_host_and_port(text).map(|()| text.to_string())
}

impl Executor {
    #[cfg(feature = "cluster")]
    pub(super) fn execute(self) -> Result<(), CliError> {
        use super::terminal::tell;
        use crate::cluster::ResultsFolder;
        use crate::operators::PartServer;

        self.device.resolve().map_err(CliError::from)?;
        let host = sysinfo::System::host_name().unwrap_or_else(|| "unknown".to_string());
        let name = format!("{host}:{}", std::process::id());
        let server = PartServer::new(name.clone(), self.device, Box::new(|part| tell(part)));
        let folder = ResultsFolder::create(&std::env::temp_dir())?;
        let executor = crate::cluster::Executor {
            scheduler: self.scheduler.clone(),
            host: self.host,
            port: self.port,
            folder: folder.path().to_path_buf(),
            work: std::sync::Arc::new(move |task| server.answer(task)),
        };
        let waiting = |problem: &str| tell(format!("waiting for the scheduler {}: {problem}", self.scheduler));
        let listening = |address: &str| tell(format!("executor {name} of the scheduler {}, answers at {address}", self.scheduler));
        crate::cluster::execute(executor, waiting, listening)?;
        tell(format!("executor {name} ended"));
        Ok(())
    }

    #[cfg(not(feature = "cluster"))]
    pub(super) fn execute(self) -> Result<(), CliError> {
        let Self { scheduler, device: _, host: _, port: _ } = self;
        crate::cluster::check().map_err(|problem| CliError::Input(format!("executor of {scheduler}: {problem}")))
    }
}
