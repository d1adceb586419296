//! Reading commands without the right to write: the run of another user, on a read-only disk, or
//! without locks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::SystemTime;

use crate::fixtures::files::files_under;
use crate::fixtures::workspace::Workspace;

/// A command as a user without any right to write in the workspace. None, with a word about it,
/// where root cannot become another user.
fn as_reader(workspace: &Workspace, arguments: &[&str]) -> Option<Output> {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    let mut command = if is_root {
        if Command::new("setpriv").arg("--version").output().is_err() {
            eprintln!("skipped: root needs setpriv of util-linux to become another user");
            return None;
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_optune")]);
        command
    } else {
        Command::new(env!("CARGO_BIN_EXE_optune"))
    };
    command.args(arguments).current_dir(workspace.path("")).env("HOME", "/nonexistent");
    Some(command.output().unwrap())
}

/// Every file and folder with the time of its last change.
fn state(workspace: &Workspace) -> Vec<(PathBuf, SystemTime)> {
    let changed = |path: PathBuf| (path.clone(), fs::metadata(&path).unwrap().modified().unwrap());
    files_under(&workspace.path("runs")).into_iter().map(changed).collect()
}

fn permit(workspace: &Workspace, folder_mode: u32, file_mode: u32) {
    for path in files_under(&workspace.path("")) {
        fs::set_permissions(&path, fs::Permissions::from_mode(file_mode)).unwrap();
        let above = path.ancestors().skip(1).take_while(|folder| folder.starts_with(workspace.path("")));
        above.for_each(|folder| fs::set_permissions(folder, fs::Permissions::from_mode(folder_mode)).unwrap());
    }
}

#[test]
fn status_sql_and_report_need_the_right_to_read_and_no_more() {
    let workspace = Workspace::finished();
    permit(&workspace, 0o555, 0o444);
    let before = state(&workspace);
    for (arguments, expected) in [
        (&["status", "small"][..], "not running"),
        (&["status", "small", "--verify"], " 0 damaged"),
        (&["status", "small", "--json"], "\"complete\":true"),
        (&["sql", "small", "SELECT count(*) AS n FROM responses", "--format", "csv"], "60"),
        (&["sql", "runs/small", "SELECT count(*) AS n FROM journal WHERE event = 'node_done'"], "n"),
        (&["report", "small", "--output", "-"], "<html"),
        (&["plan", "pipeline.yaml"], "done"),
        (&["export", "policy", "small", "/dev/null/out"], ""),
    ] {
        let Some(output) = as_reader(&workspace, arguments) else { break };
        let said = String::from_utf8(output.stdout).unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        if expected.is_empty() {
            // There is nowhere to write to, and that is what it says.
            assert!(!output.status.success() && error.contains("/dev/null/out"), "{error}");
        } else {
            assert!(output.status.success() && said.contains(expected), "{arguments:?}: {said}{error}");
        }
    }
    // A run that another user works on says so.
    let lock = fs::File::open(workspace.path("runs/small/lock")).unwrap();
    lock.lock().unwrap();
    if let Some(output) = as_reader(&workspace, &["status", "small"]) {
        assert!(String::from_utf8(output.stdout).unwrap().ends_with("\nrunning\n"));
    }
    assert_eq!(state(&workspace), before);
    permit(&workspace, 0o755, 0o644);
}

#[test]
fn without_a_lock_to_ask_status_says_so_and_reads() {
    let workspace = Workspace::finished();
    permit(&workspace, 0o755, 0o644);
    fs::set_permissions(workspace.path("runs/small/lock"), fs::Permissions::from_mode(0o000)).unwrap();
    let Some(output) = as_reader(&workspace, &["status", "small"]) else { return };
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success()
            && said.ends_with("unknown whether it is running: no locks on this file system, or no right to read its lock\n"),
        "{said}"
    );
    let output = as_reader(&workspace, &["sql", "small", "SELECT count(*) FROM responses", "--format", "csv"]).unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().ends_with("\n60\n"));
    assert!(as_reader(&workspace, &["report", "small", "--output", "-"]).unwrap().status.success());
}
