//! A group of processes that ends with this program.
//!
//! The leader of the group is a shell. It reads a pipe, whose other end only this program holds. A
//! line asks the group to end; the end of the pipe kills it. So the group ends with this program
//! even if the system kills it, on Linux and macOS alike, and no process id is ever used after it
//! was given away.
//!
//! Knows nothing of the processes in the group.

use std::io::{self, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The wait for the leader to end its group, and the interval between two looks.
const LONGEST_END: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(1);

/// The leader. It ignores the signals of a terminal: this program decides.
#[cfg(unix)]
const LEADER: &str = "trap '' HUP INT TERM; while read -r _; do kill -s TERM 0; done; kill -s KILL 0";

/// A group of processes. Dropping it ends all of them.
#[derive(Debug)]
pub struct Group {
    /// None after the end of the group, and on systems without groups.
    leader: Option<Child>,
}

impl Group {
    /// A group without a process yet.
    ///
    /// # Errors
    /// The system's.
    #[cfg(unix)]
    pub fn new() -> io::Result<Self> {
        use std::os::unix::process::CommandExt;
        let mut leader = Command::new("sh");
        leader.args(["-c", LEADER]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Ok(Self { leader: Some(leader.spawn()?) })
    }

    /// A group without a process yet.
    ///
    /// # Errors
    /// None on this system.
    #[cfg(not(unix))]
    pub fn new() -> io::Result<Self> {
        Ok(Self { leader: None })
    }

    /// Starts a command in this group.
    ///
    /// # Errors
    /// The system's.
    pub fn start(&mut self, command: &mut Command) -> io::Result<Child> {
        #[cfg(unix)]
        {
            use std::os::unix::process::CommandExt;
            let leader = self.leader.as_ref().ok_or_else(|| io::Error::other("the group has ended"))?;
            let id = i32::try_from(leader.id()).map_err(io::Error::other)?;
            command.process_group(id);
        }
        command.spawn()
    }

    /// Asks all processes of the group to end, by SIGTERM. Does nothing after the end of the group,
    /// and on systems without groups.
    ///
    /// # Errors
    /// The leader is gone.
    pub fn ask_to_end(&mut self) -> io::Result<()> {
        self.leader.as_mut().and_then(|leader| leader.stdin.as_mut()).map_or(Ok(()), |pipe| pipe.write_all(b"\n"))
    }

    /// Ends all processes of the group at once. Does nothing the second time.
    pub fn end(&mut self) {
        let Some(mut leader) = self.leader.take() else { return };
        // The end of its input is the leader's cue.
        drop(leader.stdin.take());
        let start = Instant::now();
        while start.elapsed() < LONGEST_END && matches!(leader.try_wait(), Ok(None)) {
            std::thread::sleep(LOOK);
        }
        // On macOS a process started at the same moment may hold the other end of the pipe too.
        let _ = leader.kill();
        let _ = leader.wait();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::{self, Read};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, ChildStdout, Command, Stdio};

    use super::Group;

    #[test]
    fn a_group_ends_with_the_children_of_its_children() {
        let mut group = Group::new().unwrap();
        let (mut child, mut output) = started(&mut group, "sleep 600 & sleep 600 & echo started; wait").unwrap();
        group.end();
        // The pipe ends only when nobody holds its other end any more.
        assert_eq!(output.read_to_end(&mut Vec::new()).unwrap(), 0);
        assert!(!child.wait().unwrap().success());
        group.end();
    }

    /// Starts a script in the group, and returns it with its output after the line `started`.
    fn started(group: &mut Group, script: &str) -> io::Result<(Child, ChildStdout)> {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped());
        let mut child = group.start(&mut command)?;
        let mut output = child.stdout.take().ok_or_else(|| io::Error::other("expected a pipe, found none"))?;
        let mut begin = [0; 8];
        output.read_exact(&mut begin)?;
        assert_eq!(&begin, b"started\n");
        Ok((child, output))
    }

    #[test]
    fn a_group_that_is_asked_to_end_may_save_its_work_and_say_no() {
        let mut group = Group::new().unwrap();
        let (mut child, mut output) =
            started(&mut group, "trap 'echo saved; exit 7' TERM; echo started; while :; do sleep 0.01; done").unwrap();
        // This one does not listen.
        let (mut deaf, mut rest) = started(&mut group, "trap '' TERM; echo started; while :; do sleep 0.01; done").unwrap();
        group.ask_to_end().unwrap();
        let mut said = String::new();
        output.read_to_string(&mut said).unwrap();
        assert_eq!(said, "saved\n");
        assert_eq!(child.wait().unwrap().code(), Some(7));
        group.ask_to_end().unwrap();
        assert!(deaf.try_wait().unwrap().is_none());
        group.end();
        assert_eq!(rest.read_to_end(&mut Vec::new()).unwrap(), 0);
        assert_eq!(deaf.wait().unwrap().signal(), Some(9));
        group.ask_to_end().unwrap();
    }
}
