//! Paths of all kinds: relative to the pipeline file, with `..`, spaces, Unicode, signs of shells
//! and of patterns, and through symbolic links.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::fixtures::files::copy_folder;
use crate::fixtures::workspace::{Workspace, result};

/// A name with what shells, patterns, addresses and old programs take apart.
const NAME: &str = "a b/ü 漢 [x] 'q' %20 #1 & {y} $HOME !";

/// The files of a workspace in a folder of it.
fn move_into(workspace: &Workspace, folder: &str) {
    fs::create_dir_all(workspace.path(folder)).unwrap();
    for name in ["prompts.jsonl", "held_out.jsonl", "reward.sql", "pipeline.yaml", "shape"] {
        fs::rename(workspace.path(name), workspace.path(folder).join(name)).unwrap();
    }
}

/// The result of the pipeline in its usual place.
fn expected() -> BTreeMap<String, String> {
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml"]);
    workspace.result("small")
}

fn all_done(plan: &str) -> bool {
    !plan.is_empty() && plan.lines().all(|line| line.ends_with("done"))
}

#[test]
fn a_pipeline_file_finds_its_files_from_every_working_directory() {
    let expected = expected();
    let workspace = Workspace::new();
    move_into(&workspace, NAME);
    let file = format!("{NAME}/pipeline.yaml");
    workspace.succeed(&["run", &file]);
    assert_eq!(workspace.result("small"), expected);
    // The same file from other places and by other names.
    fs::create_dir(workspace.path("elsewhere")).unwrap();
    symlink(workspace.path(NAME), workspace.path("link")).unwrap();
    let there = workspace.path("runs").display().to_string();
    for (folder, file) in [
        ("", format!("a b/../{file}")),
        ("", "link/pipeline.yaml".to_string()),
        ("", workspace.path(&file).display().to_string()),
        ("elsewhere", format!("../{file}")),
        (NAME, "pipeline.yaml".to_string()),
        (NAME, "./pipeline.yaml".to_string()),
        ("a b", format!("../{file}")),
    ] {
        let mut command = workspace.command(&["--runs", &there, "plan", &file]);
        let output = command.current_dir(workspace.path(folder)).output().unwrap();
        let plan = String::from_utf8(output.stdout).unwrap();
        assert!(all_done(&plan), "{folder}: {file}: {plan}{}", String::from_utf8_lossy(&output.stderr));
    }
    // The run's own file too.
    assert!(all_done(&workspace.succeed(&["plan", "runs/small/pipeline.yaml"])));
    let elsewhere =
        workspace.command(&["--runs", &there, "plan", "../runs/small/pipeline.yaml"]).current_dir(workspace.path("elsewhere")).output();
    assert!(all_done(&String::from_utf8(elsewhere.unwrap().stdout).unwrap()));
}

#[test]
fn the_key_folder_moves_the_start_of_all_paths() {
    let expected = expected();
    let workspace = Workspace::new();
    fs::create_dir_all(workspace.path("files/of mine")).unwrap();
    fs::rename(workspace.path("pipeline.yaml"), workspace.path("files/of mine/pipeline.yaml")).unwrap();
    workspace.edit("files/of mine/pipeline.yaml", "seed: 5\n", "seed: 5\nfolder: ../..\n");
    workspace.succeed(&["run", "files/of mine/pipeline.yaml"]);
    assert_eq!(workspace.result("small"), expected);
    let absolute = format!("folder: '{}'", workspace.path("").display());
    workspace.edit("files/of mine/pipeline.yaml", "folder: ../..", &absolute);
    assert!(all_done(&workspace.succeed(&["plan", "files/of mine/pipeline.yaml"])));
    workspace.edit("files/of mine/pipeline.yaml", &absolute, "folder: ../nowhere");
    let error = workspace.fail(&["plan", "files/of mine/pipeline.yaml"], 2);
    assert!(error.contains("pipeline.yaml:4:9: expected a folder, but \"../nowhere\" is not there"), "{error}");
}

#[test]
fn a_path_from_the_working_directory_is_told_how_to_be_written() {
    let workspace = Workspace::new();
    fs::create_dir(workspace.path("files")).unwrap();
    fs::rename(workspace.path("pipeline.yaml"), workspace.path("files/pipeline.yaml")).unwrap();
    let error = workspace.fail(&["plan", "files/pipeline.yaml"], 2);
    let advice = "paths start from files, not from the working directory: write \"../prompts.jsonl\"";
    assert!(error.contains("\"prompts.jsonl\" is not there; ") && error.contains(advice), "{error}");
    workspace.edit("files/pipeline.yaml", "table: prompts.jsonl", "table: ../prompts.jsonl");
    workspace.edit("files/pipeline.yaml", "table: held_out.jsonl", "table: ../held_out.jsonl");
    assert!(workspace.fail(&["plan", "files/pipeline.yaml"], 2).contains("write \"../shape\""));
    workspace.edit("files/pipeline.yaml", "model: shape", "model: ../shape");
    assert!(workspace.fail(&["plan", "files/pipeline.yaml"], 2).contains("write \"../reward.sql\""));
}

#[test]
fn parents_of_a_linked_folder_are_those_of_the_folder_itself() {
    // linked/ leads to deep/inner, whose parent holds the files; beside the link there are none.
    let workspace = Workspace::new();
    fs::create_dir_all(workspace.path("deep/inner")).unwrap();
    fs::create_dir(workspace.path("beside")).unwrap();
    for name in ["prompts.jsonl", "held_out.jsonl", "reward.sql", "shape"] {
        fs::rename(workspace.path(name), workspace.path("deep").join(name)).unwrap();
    }
    workspace.edit("pipeline.yaml", "seed: 5\n", "seed: 5\nfolder: ..\n");
    fs::rename(workspace.path("pipeline.yaml"), workspace.path("deep/inner/pipeline.yaml")).unwrap();
    symlink(workspace.path("deep/inner"), workspace.path("beside/linked")).unwrap();
    workspace.succeed(&["run", "beside/linked/pipeline.yaml"]);
    assert!(all_done(&workspace.succeed(&["plan", "deep/inner/pipeline.yaml"])));
    assert!(all_done(&workspace.succeed(&["plan", "runs/small/pipeline.yaml"])));
}

#[test]
fn programs_and_patterns_start_from_the_folder_of_the_file() {
    let workspace = Workspace::new();
    let folder = "my stage";
    copy_folder(&workspace.path("shape"), &workspace.path("my stage/shape"));
    workspace.write("my stage/one.jsonl", &fs::read_to_string(workspace.path("prompts.jsonl")).unwrap());
    workspace.write("my stage/make.sh", "#!/bin/sh\npwd > where\n");
    fs::set_permissions(workspace.path("my stage/make.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    workspace.write(
        "my stage/pipeline.yaml",
        "optune: 1\nname: own\ninputs:\n  prompts: { table: '*.jsonl' }\n  shape: { model: shape }\n\
         nodes:\n  copied: { sql: { query: query.sql } }\n",
    );
    workspace.write("my stage/query.sql", "SELECT prompt_id FROM prompts");
    workspace.succeed(&["run", "my stage/pipeline.yaml"]);
    assert_eq!(workspace.query("own", "SELECT count(*) FROM copied"), "20");
    let text = fs::read_to_string(workspace.path("my stage/pipeline.yaml")).unwrap();
    let stage = "  made: { command: { run: [./make.sh], files: ['*.sh'], output: table } }\n";
    workspace.write("my stage/pipeline.yaml", &(text + stage));
    // It makes no table: what matters is where it ran.
    let error = workspace.optune(&["run", "my stage/pipeline.yaml"]);
    assert!(!error.status.success());
    let place = fs::read_to_string(workspace.path("my stage/where")).unwrap();
    assert_eq!(Path::new(place.trim()).canonicalize().unwrap(), workspace.path(folder).canonicalize().unwrap());
}

#[test]
fn init_writes_paths_from_the_folder_of_its_file() {
    let workspace = Workspace::finished();
    fs::create_dir(workspace.path("my files")).unwrap();
    let arguments =
        ["init", "my files/mine.yaml", "--model", "runs/small/models/base", "--data", "prompts.jsonl", "--reward", "reward.sql"];
    let said = workspace.succeed(&arguments);
    assert!(said.contains("optune plan 'my files/mine.yaml', then: optune run 'my files/mine.yaml'"), "{said}");
    let text = fs::read_to_string(workspace.path("my files/mine.yaml")).unwrap();
    assert!(text.contains("\"../prompts.jsonl\"") && !text.contains("folder:"), "{text}");
    workspace.succeed(&["plan", "my files/mine.yaml"]);
}

#[test]
fn a_folder_of_runs_may_have_any_name_and_be_a_link() {
    let expected = expected();
    let workspace = Workspace::new();
    let folder = "my runs [1] %20 ü#?*";
    let said = workspace.succeed(&["--runs", folder, "run", "pipeline.yaml"]);
    assert_eq!(result(&workspace.path(folder).join("small")), expected);
    // The printed commands are those of a shell.
    let program = Path::new(env!("CARGO_BIN_EXE_optune")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let next: Vec<&str> = said.lines().filter(|line| line.starts_with("  optune ")).collect();
    assert!(next.len() >= 4, "{said}");
    for line in next {
        let mut shell = Command::new("sh");
        let output = shell
            .args(["-c", line])
            .current_dir(workspace.path(""))
            .env("PATH", &path)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
    symlink(workspace.path(folder), workspace.path("linked")).unwrap();
    let count = "SELECT count(*) FROM responses";
    for (runs, run) in [
        (folder, "small"),
        ("linked", "small"),
        ("shape/../linked", "small"),
        ("runs", &format!("{folder}/small")),
        ("runs", "linked/small"),
        ("runs", "./shape/../linked/small"),
        ("runs", "linked/../linked/small/"),
    ] {
        let rows = workspace.succeed(&["--runs", runs, "sql", run, count, "--format", "csv"]);
        assert_eq!(rows.lines().nth(1), Some("90"), "{runs} {run}");
        workspace.succeed(&["--runs", runs, "status", run, "--verify"]);
        workspace.succeed(&["--runs", runs, "report", run, "--output", "shape/../report [1].html"]);
    }
    assert!(workspace.path("report [1].html").is_file());
    // A link to a folder elsewhere: its parent is not that of the link.
    fs::create_dir_all(workspace.path("far/away")).unwrap();
    fs::rename(workspace.path(folder), workspace.path("far/away/runs")).unwrap();
    fs::remove_file(workspace.path("linked")).unwrap();
    symlink(workspace.path("far/away/runs"), workspace.path("linked")).unwrap();
    let rows = workspace.succeed(&["--runs", "linked/../runs", "sql", "small", count, "--format", "csv"]);
    assert_eq!(rows.lines().nth(1), Some("90"));
    workspace.succeed(&["--runs", "linked/../runs", "run", "pipeline.yaml"]);
    assert_eq!(result(&workspace.path("far/away/runs/small")), expected);
}

#[test]
fn tables_named_on_the_command_line_may_have_any_name() {
    let workspace = Workspace::finished();
    fs::create_dir_all(workspace.path(NAME)).unwrap();
    let file = format!("{NAME}/rows ü.parquet");
    workspace.succeed(&["sql", "small", "SELECT * FROM responses", "--format", "parquet", "--output", &file]);
    let table = format!("more=a b/../{file}");
    let rows = workspace.succeed(&["sql", "small", "SELECT count(*) FROM more", "--table", &table, "--format", "csv"]);
    assert_eq!(rows.lines().nth(1), Some("60"));
    let exported = format!("{NAME}/tuned");
    workspace.succeed(&["export", "policy", "small", &exported]);
    assert!(workspace.path(&exported).join("config.json").is_file());
}
