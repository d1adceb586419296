//! Loading a model in a server: runs the user's command, then waits until the server answers with
//! the model.
//!
//! Knows a path and a command; not the kind of server or the working of the command.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::client::Client;
use super::completions::{Completions, ServerKind};
use super::error::RemoteError;
use super::stop::Stopped;

/// The interval between two checks for the command's end and for a stop.
const LOOK: Duration = Duration::from_millis(25);
/// The wait between two questions to a starting server.
const ASK: Duration = Duration::from_millis(500);
/// The shown length of the command's output in an error, from its end.
const SHOWN_BYTES: usize = 2000;

/// The shell command: every `{model}` in `written` is the path, quoted.
pub fn command(written: &str, model: &Path) -> String {
    let quoted = format!("'{}'", model.display().to_string().replace('\'', "'\\''"));
    written.replace("{model}", &quoted)
}

/// Waits until the server of `client` serves `name`.
///
/// # Errors
/// The server does not answer with the model in time.
pub fn served(
    client: &Client,
    name: &str,
    kind: Option<ServerKind>,
    limit: Duration,
    stopped: Stopped,
) -> Result<Completions, RemoteError> {
    let start = Instant::now();
    let client = client.once();
    let ended = || stopped() || start.elapsed() >= limit;
    let mut last = "no answer".to_string();
    loop {
        let asked = Instant::now();
        match Completions::find(client.clone(), name, kind, &ended) {
            Ok(found) => return Ok(found),
            Err(RemoteError::Stopped) => {}
            Err(error) => last = error.to_string(),
        }
        while asked.elapsed() < ASK && !ended() {
            std::thread::sleep(LOOK);
        }
        if stopped() {
            return Err(RemoteError::Stopped);
        }
        if ended() {
            let seconds = limit.as_secs_f64();
            return Err(RemoteError::Serve(format!(
                "the command ended well, but the server did not serve the model within {seconds} seconds: {last}"
            )));
        }
    }
}

/// Runs the user's command in `folder` with the model's absolute path, to its end. An empty folder
/// is the working directory.
///
/// # Errors
/// The command cannot be run, fails or takes too long.
pub fn serve(written: &str, folder: &Path, model: &Path, limit: Duration, stopped: Stopped) -> Result<(), RemoteError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let failed = |problem: String| RemoteError::Serve(format!("`{written}` {problem}"));
    // A file, not a pipe: a server left running in the background would hold a pipe open for ever.
    let said = std::env::temp_dir().join(format!("optune-serve-{}-{}.log", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    let log = File::create(&said).map_err(|error| failed(format!("cannot keep what it says in {}: {error}", said.display())))?;
    let mut shell = Command::new("sh");
    if !folder.as_os_str().is_empty() {
        shell.current_dir(folder);
    }
    shell.arg("-c").arg(command(written, model)).env("OPTUNE_MODEL", model);
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    // A separate process group: Ctrl-C at the terminal does not end the started server.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    let ended = shell.spawn().map_err(|error| failed(format!("cannot be run: {error}"))).and_then(|mut child| {
        let ended = wait(&mut child, limit, stopped);
        if !matches!(ended, Ok(Some(_))) {
            // It may have ended this very moment.
            let _ = child.kill();
            let _ = child.wait();
        }
        ended?.ok_or_else(|| {
            failed(format!("did not end within {} seconds (a server goes on in the background with `… &`)", limit.as_secs_f64()))
        })
    });
    let words = std::fs::read(&said).unwrap_or_default();
    // Left over at worst: a file of the system's temporary folder.
    let _ = std::fs::remove_file(&said);
    match ended? {
        status if status.success() => Ok(()),
        status => {
            let words =
                String::from_utf8_lossy(words.get(words.len().saturating_sub(SHOWN_BYTES)..).unwrap_or_default()).trim().to_string();
            let words = if words.is_empty() { "nothing on standard error".to_string() } else { words };
            Err(failed(format!("ended with {status}: {words}")))
        }
    }
}

/// The child's exit status; `None` if it did not end within `limit`.
fn wait(child: &mut Child, limit: Duration, stopped: Stopped) -> Result<Option<ExitStatus>, RemoteError> {
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(Some(status)),
            Ok(None) if stopped() => return Err(RemoteError::Stopped),
            Ok(None) if start.elapsed() >= limit => return Ok(None),
            Ok(None) => std::thread::sleep(LOOK),
            Err(error) => return Err(RemoteError::Serve(format!("cannot wait for the command: {error}"))),
        }
    }
}
