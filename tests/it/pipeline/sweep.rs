//! Sweeps: a file with a matrix is a run for each point of it. The runs share their common outputs.

use std::collections::{BTreeMap, BTreeSet};

use optune::pipeline::{PipelineError, Sweep};

use crate::fixtures::workspace::{PIPELINE, Workspace};

/// The workspace's pipeline with a matrix.
fn with_matrix(matrix: &str) -> String {
    PIPELINE.replace("inputs:", &format!("matrix:\n{matrix}inputs:"))
}

fn names(matrix: &str, sets: &[(&str, &str)]) -> Result<Vec<String>, PipelineError> {
    let sets: Vec<(String, String)> = sets.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let sweep = Sweep::read("pipeline.yaml", &with_matrix(matrix), &sets)?;
    Ok(sweep.runs.iter().map(|run| run.spec.name.value.clone()).collect())
}

#[test]
fn a_matrix_is_every_combination_less_the_excluded_and_the_included() {
    let all = names("  ratio: [0.5, 1.0]\n  seed: [1, 2]\n", &[]).unwrap();
    assert_eq!(all, ["small-0.5-1", "small-0.5-2", "small-1.0-1", "small-1.0-2"]);
    let some = names("  ratio: [0.5, 1.0]\n  seed: [1, 2]\n  exclude: [{ ratio: 1.0, seed: 2 }]\n", &[]).unwrap();
    assert_eq!(some, ["small-0.5-1", "small-0.5-2", "small-1.0-1"]);
    // An included combination has the params' values for all unnamed axes. A combination given
    // twice is there once.
    let more = names("  ratio: [0.5, 1.0]\n  seed: [1]\n  include: [{ seed: [1, 3] }, { learning_rate: 0.1 }]\n", &[]).unwrap();
    assert_eq!(more, ["small-0.5-1", "small-1.0-1", "small-0.5-3", "small-0.5-5-0.1"]);
    let included = names("  include: [{ ratio: 0.5 }, { ratio: 0.7 }]\n", &[]).unwrap();
    assert_eq!(included, ["small-0.5", "small-0.7"]);
    // `--set` of an axis chooses.
    let matrix = "  ratio: [0.5, 1.0]\n  seed: [1, 2]\n";
    assert_eq!(names(matrix, &[("ratio", "1.0")]).unwrap(), ["small-1.0-1", "small-1.0-2"]);
    assert_eq!(names(matrix, &[("seed", "2"), ("ratio", "0.5"), ("learning_rate", "0.2")]).unwrap(), ["small-0.5-2"]);
    let unknown = names(matrix, &[("ratio", "0.7")]).unwrap_err().to_string();
    assert!(unknown.contains("--set ratio=0.7: no run of the matrix has it; expected 0.5 or 1.0"), "{unknown}");
}

#[test]
fn each_run_has_the_values_of_its_point() {
    let text = with_matrix("  ratio: [0.5, 0.25]\n  seed: [7, 8]\n");
    for run in Sweep::read("pipeline.yaml", &text, &[]).unwrap().runs {
        let point = (run.spec.params["ratio"].to_string(), run.spec.seed);
        assert_eq!(run.spec.name.value, format!("small-{}-{}", point.0, point.1));
        assert_eq!(run.spec.matrix, None);
    }
    // A fault in some points names the first of them.
    let fault = Sweep::read("pipeline.yaml", &with_matrix("  ratio: [0.5, 1.5]\n"), &[]).unwrap_err().to_string();
    assert!(fault.contains("with ratio 1.5: expected a number above 0 and at most 1, found 1.5"), "{fault}");
    let two = with_matrix("  ratio: [0.5, 1.0]\n");
    let several = optune::pipeline::Pipeline::read("pipeline.yaml", &two, &[]).unwrap_err().to_string();
    assert!(several.contains("expected a file of one run, found a matrix of 2; choose one with --set for each of its axes"), "{several}");
}

#[test]
fn a_sweep_runs_all_its_points_and_does_nothing_the_second_time() {
    let workspace = Workspace::new();
    workspace.write("sweep.yaml", &with_matrix("  ratio: [0.5, 1.0]\n  seed: [5, 6]\n  exclude: [{ ratio: 1.0, seed: 6 }]\n"));
    let plan = workspace.succeed(&["plan", "sweep.yaml"]);
    assert_eq!(plan.lines().count(), 3, "{plan}");
    assert!(plan.contains("small-1.0-5") && !plan.contains("small-1.0-6"), "{plan}");
    let said = workspace.succeed(&["run", "sweep.yaml"]);
    assert!(said.contains("small: 3 runs are finished, 3 of them worked on now"), "{said}");
    // Common outputs are made once: the base, and the first iteration of the two runs of one seed.
    let events = |name: &str| std::fs::read_to_string(workspace.path("runs").join(name).join("journal.jsonl")).unwrap();
    let started = |name: &str| events(name).lines().filter(|line| line.contains("\"started\"")).count();
    assert!(started("small-1.0-5") < started("small-0.5-5"), "{}", events("small-1.0-5"));
    // Each run equals the same run alone.
    let alone = Workspace::new();
    for (name, ratio, seed) in [("small-0.5-5", "0.5", "5"), ("small-0.5-6", "0.5", "6"), ("small-1.0-5", "1.0", "5")] {
        let text = PIPELINE.replace("seed: 5", &format!("seed: {seed}")).replace("ratio: 0.5", &format!("ratio: {ratio}"));
        alone.write("one.yaml", &text);
        alone.succeed(&["run", "one.yaml", "--name", name]);
        assert_eq!(workspace.result(name), alone.result(name), "{name}");
    }
    let before: BTreeMap<&str, String> = ["small-0.5-5", "small-0.5-6", "small-1.0-5"].map(|name| (name, events(name))).into();
    let again = workspace.succeed(&["run", "sweep.yaml"]);
    assert!(again.contains("small: 3 runs are finished, 0 of them worked on now"), "{again}");
    for (name, events_before) in before {
        assert_eq!(events(name), events_before, "{name}");
    }
    // The grid.
    let status = workspace.succeed(&["status", "small"]);
    let first: Vec<&str> = status.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(first, ["run", "ratio", "seed", "state", "held-out", "reward", "win", "score"]);
    assert_eq!(status.lines().filter(|line| line.contains("done")).count(), 3, "{status}");
    let json = workspace.succeed(&["status", "small", "--json"]);
    let axes: BTreeSet<String> =
        json.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["axes"].to_string()).collect();
    let expected = [("0.5", "5"), ("0.5", "6"), ("1.0", "5")].map(|(ratio, seed)| format!("{{\"ratio\":\"{ratio}\",\"seed\":\"{seed}\"}}"));
    assert_eq!(axes, BTreeSet::from(expected));
    // Outputs without a node in a shorter pipeline are taken out of finished runs too.
    workspace.edit("sweep.yaml", "iterations: 2", "iterations: 1");
    let shorter = workspace.succeed(&["run", "sweep.yaml"]);
    assert!(shorter.contains("3 runs are finished, 3 of them worked on now"), "{shorter}");
    assert_eq!(workspace.query("small-0.5-5", "SELECT max(iteration) FROM responses"), "1");
    workspace.edit("sweep.yaml", "iterations: 1", "iterations: 2");
    workspace.succeed(&["run", "sweep.yaml"]);
    // A killed run goes on, and only that one.
    std::fs::remove_dir_all(workspace.path("runs/small-0.5-6/models/policy")).unwrap();
    std::fs::remove_dir_all(workspace.path("runs/.cache")).unwrap();
    let third = workspace.succeed(&["run", "sweep.yaml"]);
    assert!(third.contains("3 runs are finished, 1 of them worked on now"), "{third}");
    assert_eq!(workspace.result("small-0.5-6"), alone.result("small-0.5-6"));
}

#[test]
fn runs_of_a_sweep_that_fail_leave_the_others_finished() {
    let workspace = Workspace::new();
    // The weights of one of them become infinite.
    workspace.write("sweep.yaml", &with_matrix("  learning_rate: [1.0e+30, 1.0e-3]\n"));
    let said = workspace.fail(&["run", "sweep.yaml"], 1);
    assert!(said.contains("run small-1e30: sweep.yaml:") && said.contains("1 of 2 runs are not finished"), "{said}");
    let status = workspace.succeed(&["status", "small"]);
    let states: Vec<bool> = status.lines().skip(1).map(|line| line.contains(" done ")).collect();
    // In the order of their names.
    assert_eq!(states, [true, false], "{status}");
}
