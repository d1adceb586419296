//! The wheel: built by maturin, installed into an empty environment, and run there.
//!
//! Needs `maturin` and `python3`. Without them it says so. The build compiles what has changed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

/// The largest wheel, in bytes.
const LARGEST: u64 = 60_000_000;

/// The longest time from an empty environment to the table of the quickstart, in seconds.
const LONGEST: f64 = 60.0;

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The wheel of `OPTUNE_WHEEL`, or one built now.
fn wheel(folder: &Path) -> Option<PathBuf> {
    if let Some(built) = std::env::var_os("OPTUNE_WHEEL") {
        return Some(PathBuf::from(built));
    }
    if !Command::new("maturin").arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: there is no maturin to build the wheel: pip install maturin");
        return None;
    }
    let mut maturin = Command::new("maturin");
    maturin.args(["build", "--release", "--locked", "--out"]).arg(folder).current_dir(env!("CARGO_MANIFEST_DIR"));
    succeed(&mut maturin);
    let wheels: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(wheels.len(), 1, "{wheels:?}");
    wheels.into_iter().next()
}

#[test]
fn a_wheel_installs_into_an_empty_environment_and_runs_the_quickstart() {
    let folder = tempfile::tempdir().unwrap();
    let Some(wheel) = wheel(&folder.path().join("wheels")) else { return };
    let name = wheel.file_name().unwrap().to_string_lossy().into_owned();
    let bytes = wheel.metadata().unwrap().len();
    assert!(name.starts_with(&format!("optune-{}-py3-none-", env!("CARGO_PKG_VERSION"))), "{name}");
    assert!(bytes <= LARGEST, "{name} has {bytes} bytes");
    let start = Instant::now();
    let environment = folder.path().join("environment");
    succeed(Command::new("python3").args(["-m", "venv"]).arg(&environment));
    let python = environment.join("bin/python");
    succeed(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--no-index"]).arg(&wheel));
    let program = environment.join("bin/optune");
    // Nothing of this machine's but the system's own folders.
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).current_dir(folder.path()).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", folder.path());
        String::from_utf8(succeed(&mut command).stdout).unwrap()
    };
    assert_eq!(run(&["--version"]), format!("optune {}\n", env!("CARGO_PKG_VERSION")));
    let said = run(&["quickstart", "first"]);
    let seconds = start.elapsed().as_secs_f64();
    assert!(said.contains("held-out reward") && said.contains("optune --runs first/runs sql quickstart"), "{said}");
    eprintln!("{name}: {bytes} bytes, {seconds:.1} s from an empty environment to the table");
    if cfg!(debug_assertions) {
        return;
    }
    assert!(seconds < LONGEST, "{seconds} s");
}
