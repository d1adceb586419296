//! `optune doctor`: the abilities of this program and this machine.

use std::path::Path;

use clap::Args;

use super::error::CliError;
use super::format::print;
use crate::compute::cpu::kernels;
use crate::compute::gpu_problem;
use crate::{disk, memory};

#[derive(Args)]
pub(super) struct Doctor {}

impl Doctor {
    pub(super) fn execute(self, runs: &Path) -> Result<(), CliError> {
        let gpu = gpu_problem().map_or("usable".to_string(), |problem| format!("not usable: {problem}"));
        let threads = std::thread::available_parallelism().map_or("an unknown number of".to_string(), |threads| threads.to_string());
        let memory = memory::available().map_or("unknown".to_string(), |bytes| format!("{:.1} GB free", bytes as f64 / 1e9));
        // The first run makes the folder.
        let there = runs.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
        let room = disk::room(there).map_or_else(|error| format!("unknown: {error}"), |bytes| format!("{:.1} GB free", bytes as f64 / 1e9));
        let hub = std::env::var_os("HF_TOKEN").map_or("no HF_TOKEN", |_| "HF_TOKEN is set");
        let lines = [
            format!("version    {}{}", env!("CARGO_PKG_VERSION"), if cfg!(feature = "cuda") { ", with cuda" } else { ", without cuda" }),
            format!("CPU        {threads} threads, {}; bf16 products: {}", kernels::vectors(), kernels::bf16_unit()),
            format!("memory     {memory}"),
            format!("disk       {}: {room}", runs.display()),
            format!("NVIDIA GPU {gpu}"),
            format!("hub        {hub}"),
        ];
        print(&lines.join("\n"))
    }
}
