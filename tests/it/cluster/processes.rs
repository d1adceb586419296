//! A scheduler, executors and a run as processes, killed with their test.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use crate::fixtures::workspace::Workspace;

/// The longest time of any run here.
const LONGEST: Duration = Duration::from_secs(600);

/// A port that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A process that is killed with its test.
pub struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    pub fn start(workspace: &Workspace, arguments: &[&str]) -> Self {
        let mut command = workspace.command(arguments);
        command.env("RAYON_NUM_THREADS", "1").stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let output = BufReader::new(child.stderr.take().unwrap());
        let kept = lines.clone();
        spawn(move || output.lines().map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line)));
        Self { child, lines }
    }

    /// SIGKILL on unix.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Ctrl-C.
    #[cfg(unix)]
    pub fn interrupt(&self) {
        assert!(Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap().success());
    }

    /// What it has written to standard error.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The parts that an executor has computed: `responses[1] part-00000 of 5: 0.1 s`, without the
    /// time.
    pub fn parts(&self) -> Vec<String> {
        let part = |line: &String| line.strip_suffix(" s")?.rsplit_once(": ").map(|(name, _)| name.to_string());
        self.lines().iter().filter(|line| !line.starts_with("failed")).filter_map(part).collect()
    }

    /// The status of a process that has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// The status at its end, within `limit`.
    pub fn end_within(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(start.elapsed() < limit, "no end within {limit:?}: {:#?}", self.lines());
            sleep(Duration::from_millis(20));
        }
    }

    /// Waits for its end, which must be a good one.
    pub fn succeed(&mut self) {
        let status = self.end_within(LONGEST);
        assert!(status.success(), "{status}: {:#?}", self.lines());
    }

    /// Waits for a line with this text.
    pub fn say_within(&self, text: &str, limit: Duration) {
        let start = Instant::now();
        while !self.lines().iter().any(|line| line.contains(text)) {
            assert!(start.elapsed() < limit, "nothing of {text:?} within {limit:?}: {:#?}", self.lines());
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A scheduler and executors.
pub struct Cluster<'w> {
    workspace: &'w Workspace,
    pub address: String,
    pub scheduler: Process,
    pub executors: Vec<Process>,
}

impl<'w> Cluster<'w> {
    pub fn start(workspace: &'w Workspace, executors: usize) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let scheduler = Process::start(workspace, &["scheduler", "--listen", &address]);
        let mut cluster = Self { workspace, address, scheduler, executors: Vec::new() };
        (0..executors).for_each(|_| cluster.join());
        cluster
    }

    /// A new executor joins.
    pub fn join(&mut self) {
        self.executors.push(self.executor());
    }

    pub fn executor(&self) -> Process {
        Process::start(self.workspace, &["executor", "--scheduler", &self.address, "--device", "cpu"])
    }

    /// Kills the scheduler, and starts another one at the same address after a while.
    pub fn restart_scheduler(&mut self, after: Duration) {
        self.scheduler.kill();
        sleep(after);
        self.scheduler = Process::start(self.workspace, &["scheduler", "--listen", &self.address]);
    }

    /// A run of the workspace's pipeline on this cluster.
    pub fn run(&self) -> Process {
        Process::start(self.workspace, &["run", "pipeline.yaml", "--cluster", &self.address])
    }

    /// All parts that executors have computed, dead ones too.
    pub fn parts(&self) -> Vec<String> {
        self.executors.iter().flat_map(Process::parts).collect()
    }

    /// Waits until so many parts are computed, while `run` goes on.
    pub fn compute(&self, count: usize, run: &mut Process) {
        let start = Instant::now();
        while self.parts().len() < count {
            assert!(run.ended().is_none(), "the run ended before {count} parts: {:#?}", run.lines());
            assert!(start.elapsed() < LONGEST, "no {count} parts: {:#?}", self.parts());
            sleep(Duration::from_millis(5));
        }
    }
}
