//! `every`: evaluations and benchmarks of some of the iterations.

use optune::pipeline::{Graph, Operator, Pipeline};

use crate::fixtures::pipeline_folder::folder;
use crate::fixtures::workspace::{PIPELINE, Workspace};

/// The pipeline of a workspace, with other words in its evaluation.
fn graph(iterations: u32, evaluation: &str) -> Graph {
    let folder = folder();
    let text = PIPELINE.replace("policy: policy, baseline: base", evaluation);
    let text = text.replace("prompts.jsonl", "datasets/tasks/train.parquet").replace("held_out.jsonl", "datasets/tasks/held_out.parquet");
    let text = text.replace("{ model: shape }", "{ model: models/base }").replace("sql: reward.sql", "sql: datasets/tasks/reward.sql");
    let sets = [("iterations".to_string(), iterations.to_string())];
    let graph = Pipeline::read("test.yaml", &text, &sets).and_then(|pipeline| pipeline.graph(folder.path()));
    graph.unwrap_or_else(|error| panic!("{error}"))
}

/// The iterations with a task of this name.
fn of(graph: &Graph, name: &str) -> Vec<u32> {
    graph.tasks.iter().filter(|task| task.name == name).filter_map(|task| task.iteration).collect()
}

#[test]
fn evaluations_are_of_every_kth_iteration_and_of_the_last() {
    for (iterations, every, expected) in
        [(5, 1, vec![1, 2, 3, 4, 5]), (5, 2, vec![2, 4, 5]), (4, 2, vec![2, 4]), (5, 5, vec![5]), (5, 99, vec![5]), (1, 2, vec![1])]
    {
        let graph = graph(iterations, &format!("policy: policy, baseline: base, every: {every}"));
        for name in ["evaluation", "evaluation_responses", "evaluation_rewards"] {
            assert_eq!(of(&graph, name), expected, "{name}, every {every} of {iterations}");
        }
        assert_eq!(of(&graph, "policy"), (1..=iterations).collect::<Vec<_>>());
        assert_eq!(graph.tasks.iter().filter(|task| task.name == "evaluation_baseline_responses").count(), 1);
    }
}

/// The number of an evaluation's iterations is no part of it: its fingerprint does not change.
#[test]
fn an_evaluation_is_the_same_whatever_its_neighbours() {
    let [all, some] = ["", ", every: 2"].map(|every| graph(4, &format!("policy: policy, baseline: base{every}")));
    let settings = |graph: &Graph| {
        let last = graph.tasks.iter().find(|task| task.name == "evaluation" && task.iteration == Some(4)).unwrap();
        assert!(matches!(last.operator, Operator::Evaluate(_)));
        last.settings.clone()
    };
    assert_eq!(settings(&all), settings(&some));
}

/// The policy before is sampled where no evaluation has sampled it.
#[test]
fn the_policy_before_is_a_baseline_without_its_own_evaluation() {
    let graph = graph(4, "policy: policy, baseline: \"policy[t-1]\", every: 2");
    assert_eq!(of(&graph, "evaluation"), [2, 4]);
    assert_eq!(of(&graph, "evaluation_baseline_responses"), [2, 4]);
    let by_all = self::graph(4, "policy: policy, baseline: \"policy[t-1]\"");
    assert_eq!(of(&by_all, "evaluation_baseline_responses"), [1]);
}

#[test]
fn a_run_with_fewer_evaluations_has_the_same_ones_and_makes_nothing_again() {
    let workspace = Workspace::new();
    workspace.edit("pipeline.yaml", "iterations: 2", "iterations: 3");
    workspace.succeed(&["run", "pipeline.yaml", "--name", "all"]);
    workspace.edit("pipeline.yaml", "baseline: base", "every: 2, baseline: base");
    workspace.succeed(&["run", "pipeline.yaml", "--name", "some"]);
    assert_eq!(workspace.query("some", "SELECT DISTINCT iteration FROM evaluation ORDER BY 1"), "2\n3");
    assert_eq!(workspace.query("some", "SELECT count(*) FROM cost_by_stage WHERE NOT reused"), "0");
    let rows = |run: &str| workspace.query(run, "SELECT * FROM evaluation WHERE iteration > 1 ORDER BY iteration, prompt_id");
    assert_eq!(rows("some"), rows("all"));
    workspace.succeed(&["report", "some", "--output", "some.html"]);
    let page = std::fs::read_to_string(workspace.path("some.html")).unwrap();
    assert!(page.contains("<span class=\"state finished\">") && !page.contains("Not there yet"));
}
