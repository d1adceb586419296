//! What a terminal gets, and commands whose output has nowhere to go.
//!
//! `script` of util-linux makes the terminal.

use std::process::{Command, Output, Stdio};

use crate::fixtures::workspace::Workspace;

/// A command line for `sh`, with the program as `optune`.
fn shell(workspace: &Workspace, line: &str) -> Output {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_optune")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(workspace.path("")).env("PATH", path);
    shell.output().unwrap()
}

fn is_finished(workspace: &Workspace) -> bool {
    let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
    plan.lines().all(|line| line.ends_with("done"))
}

#[test]
fn a_run_goes_on_when_nobody_reads_what_it_says() {
    for line in [
        "optune run pipeline.yaml 2>&1 | head -1",
        "optune run pipeline.yaml 2>&1 | true",
        "optune run pipeline.yaml --json 2>&1 | head -c 1",
        "optune run pipeline.yaml 2> /dev/full",
        "optune run pipeline.yaml > /dev/full 2> /dev/full",
        "optune run pipeline.yaml >&- 2>&-",
        "optune run pipeline.yaml --json >&- 2>&-",
    ] {
        let workspace = Workspace::new();
        shell(&workspace, line);
        assert!(is_finished(&workspace), "{line}");
    }
    // A run that is done says that its table was not written.
    let workspace = Workspace::new();
    let output = shell(&workspace, "optune run pipeline.yaml > /dev/full");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("standard output: cannot write: ") && !error.contains("panicked"), "{error}");
}

#[test]
fn a_sweep_goes_on_and_an_interruption_is_heard_without_a_reader() {
    let workspace = Workspace::new();
    workspace.edit("pipeline.yaml", "iterations: 2, ", "iterations: 1, ");
    workspace.edit("pipeline.yaml", "inputs:", "matrix: { ratio: [0.5, 1.0] }\ninputs:");
    shell(&workspace, "optune run pipeline.yaml 2>&1 | true");
    let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
    assert!(plan.lines().count() == 2 && plan.lines().all(|line| line.ends_with("   0 to run")), "{plan}");
    // The words about the interruption have nowhere to go.
    let workspace = Workspace::new();
    let line = "optune run pipeline.yaml 2> /dev/full & pid=$!; sleep 0.2; kill -TERM $pid; wait $pid; echo $?";
    let code = String::from_utf8(shell(&workspace, line).stdout).unwrap();
    let code = code.lines().last().unwrap_or_default().to_string();
    assert!(["130", "0"].contains(&code.as_str()), "{code}");
    workspace.succeed(&["run", "pipeline.yaml"]);
}

/// The output of a command in a terminal of so many columns; none without `script`.
fn in_terminal(workspace: &Workspace, variables: &[(&str, &str)], columns: u32, line: &str) -> Option<String> {
    if !Command::new("script").arg("--version").output().is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("util-linux"))
    {
        eprintln!("skipped: there is no script of util-linux to make a terminal");
        return None;
    }
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_optune")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut script = Command::new("script");
    script.args(["-qec", &format!("stty cols {columns} rows 30; {line}"), "/dev/null"]).current_dir(workspace.path(""));
    for name in ["NO_COLOR", "CLICOLOR_FORCE", "LC_ALL", "LC_CTYPE", "LANG"] {
        script.env_remove(name);
    }
    script.env("PATH", path).env("TERM", "xterm-256color").env("LANG", "C.UTF-8").stdin(Stdio::null());
    script.envs(variables.iter().copied());
    let output = script.output().unwrap();
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The text without the movements of the cursor, in its lines.
fn lines(text: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' && rest.peek() == Some(&'[') {
            rest.next();
            for c in rest.by_ref() {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
            plain.push('\n');
        } else {
            plain.push(c);
        }
    }
    plain.split(['\n', '\r']).map(str::to_string).filter(|line| !line.is_empty()).collect()
}

#[test]
fn progress_fits_into_a_narrow_terminal_without_colours() {
    let workspace = Workspace::new();
    let Some(wide) = in_terminal(&workspace, &[("NO_COLOR", "1")], 160, "optune run pipeline.yaml --name wide") else { return };
    assert!(lines(&wide).iter().any(|line| line.contains("base") && line.contains('/')), "{wide:?}");
    let has_colour = |text: &str| {
        text.split("\u{1b}[").skip(1).any(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m'))
    };
    assert!(!has_colour(&wide), "{wide:?}");
    let narrow = in_terminal(&workspace, &[], 40, "optune run pipeline.yaml --set ratio=0.7 --name narrow").unwrap();
    for line in lines(&narrow)
        .iter()
        .filter(|line| line.contains('/') && !line.contains(" s  ") && !line.contains("optune") && !line.contains("is finished"))
    {
        assert!(line.chars().count() <= 40, "{line:?}");
    }
    assert!(!narrow.contains(" 0 s left") && !wide.contains(" 0 s left") && !wide.contains(" 0s left"), "{wide}");
    let errors = in_terminal(&workspace, &[("NO_COLOR", "1")], 80, "optune nonsense").unwrap();
    assert!(errors.contains("nonsense") && !errors.contains('\u{1b}'), "{errors:?}");
}

#[test]
fn a_terminal_without_utf_8_gets_ascii() {
    let workspace = Workspace::new();
    for variables in [[("LC_ALL", "C"), ("LANG", "C.UTF-8")], [("LC_ALL", ""), ("LANG", "C")]] {
        let Some(text) = in_terminal(&workspace, &variables, 160, "optune run pipeline.yaml --set ratio=0.6") else { return };
        assert!(text.is_ascii(), "{text:?}");
    }
    // A terminal that cannot move its cursor gets lines.
    let text = in_terminal(&workspace, &[("TERM", "dumb")], 160, "optune run pipeline.yaml --set ratio=0.8").unwrap();
    assert!(!text.contains('\u{1b}') && text.contains("evaluation"), "{text:?}");
}

#[test]
fn escape_sequences_in_data_are_shown_and_not_sent() {
    let workspace = Workspace::finished();
    let evil = "SELECT 'a' || chr(27) || '[31mred' || chr(27) || ']0;title' || chr(7) || chr(155) || '2J' || chr(8238) AS x";
    // People's format, wherever it goes.
    let table = workspace.succeed(&["sql", "small", evil]);
    assert!(table.contains("a\\u001b[31mred\\u001b]0;title\\u0007\\u009b2J\\u202e") && !table.contains(['\u{1b}', '\u{9b}']), "{table:?}");
    // A program gets the bytes as they are.
    let csv = workspace.succeed(&["sql", "small", evil, "--format", "csv"]);
    assert!(csv.contains("a\u{1b}[31mred\u{1b}]0;title\u{7}\u{9b}2J\u{202e}"), "{csv:?}");
    let error = workspace.fail(&["sql", "small", "SELECT \"\u{1b}[31m\" FROM responses"], 2);
    assert!(error.contains("\\u001b[31m") && !error.contains('\u{1b}'), "{error:?}");
    for format in ["csv", "json", "table"] {
        let line = format!("optune sql small \"{evil}\" --format {format}");
        let Some(shown) = in_terminal(&workspace, &[], 160, &line) else { return };
        assert!(shown.contains("\\u001b[31mred") && !shown.contains(['\u{1b}', '\u{9b}', '\u{7}', '\u{202e}']), "{format}: {shown:?}");
    }
}

#[test]
fn errors_about_rows_show_their_escape_sequences() {
    let workspace = Workspace::new();
    workspace
        .write("prompts.jsonl", "{\"prompt_id\": \"\u{9b}31m\", \"prompt\": \"a\"}\n{\"prompt_id\": \"\u{9b}31m\", \"prompt\": \"b\"}\n");
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(!error.contains('\u{9b}'), "{error:?}");
}

#[test]
fn doctor_speaks_of_devices_as_they_are() {
    let workspace = Workspace::new();
    let said = workspace.succeed(&["doctor"]);
    assert!(!said.contains("asked for"), "{said}");
    assert!(said.contains("NVIDIA GPU usable") || said.contains("NVIDIA GPU not usable: "), "{said}");
    if cfg!(not(feature = "cuda")) {
        assert!(said.contains("not usable: this build is without it; build with --features cuda\n"), "{said}");
        let error = workspace.fail(&["run", "pipeline.yaml", "--device", "cuda"], 2);
        assert!(error.contains("cuda was asked for, but this build is without it; build with --features cuda, or use cpu"), "{error}");
    }
}
