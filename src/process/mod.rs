//! Child processes of the user's: none outlives this program, however it ends.
//!
//! Knows starting, ending and the end of standard error, not the words of a process.

mod group;
mod program;
mod tail;

use std::io;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub use group::Group;
pub use program::{Program, find};
pub use tail::Tail;

/// The interval between two looks at a process.
pub const LOOK: Duration = Duration::from_millis(10);

/// The wait for the rest of a dead process's standard error.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A command in a working directory; an empty path is that of this program.
pub fn command(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    if !directory.as_os_str().is_empty() {
        command.current_dir(directory);
    }
    command
}

/// A running process with pipes for its standard input and output. Dropping it ends it and all its
/// own children.
#[derive(Debug)]
pub struct Process {
    child: std::process::Child,
    group: Group,
    said: Tail,
}

impl Process {
    /// Starts a command in a group of its own. Its standard error is kept up to its last lines.
    ///
    /// # Errors
    /// The system's.
    pub fn start(mut command: Command) -> io::Result<(Self, ChildStdin, ChildStdout)> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut group = Group::new()?;
        let mut child = group.start(&mut command)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(errors)) = pipes else { return Err(io::Error::other("a started process has no pipes")) };
        let said = Tail::of(errors)?;
        Ok((Self { child, group, said }, input, output))
    }

    /// The exit status of a process that has ended by itself.
    ///
    /// # Errors
    /// The system's.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits at most `limit` for the end of the process, then ends it. Returns its own exit status.
    pub fn end_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        let mut ended = self.ended().ok().flatten();
        while ended.is_none() && start.elapsed() < limit {
            std::thread::sleep(LOOK);
            ended = self.ended().ok().flatten();
        }
        self.end();
        ended
    }

    /// Ends the process and all of its group at once. Does nothing the second time.
    pub fn end(&mut self) {
        self.group.end();
        // Where there are no groups. A dead process cannot be killed, and this is no fault.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The last lines of the standard error of an ended process.
    pub fn last_words(&self) -> String {
        self.said.last_words(LAST_WORDS)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
