//! Losses and weights of a pipeline file, in the training of a run.

use crate::fixtures::workspace::Workspace;

/// The run of a pipeline whose first step has all pairs, with the base as policy and reference.
fn run(train: &str, weight: &str) -> Workspace {
    let workspace = Workspace::new();
    workspace.edit("pipeline.yaml", "iterations: 2", "iterations: 1");
    workspace.edit("pipeline.yaml", "batch_size: 4, epochs: 2", &format!("batch_size: 64, epochs: 3{train}"));
    workspace.edit("pipeline.yaml", "weight: { kind: linear, normalize: mean }", weight);
    workspace.succeed(&["run", "pipeline.yaml"]);
    workspace
}

/// A number of the run.
fn number(workspace: &Workspace, sql: &str) -> f64 {
    workspace.query("small", sql).parse().unwrap()
}

const FIRST: &str = "SELECT loss FROM policy_training WHERE step = 1";
const LINEAR: &str = "weight: { kind: linear, normalize: mean }";

/// At the start the margin is 0, and the loss of a pair is the divergence of σ(η·gap) from 1/2.
#[test]
fn rpo_begins_with_the_divergence_of_the_rewards_from_a_coin() {
    let workspace = run(", loss: { rpo: { gap_scale: 2.5 } }", LINEAR);
    let expected = "SELECT avg(weight * (p * ln(p) + (1 - p) * ln(1 - p) + ln(2.0)))
       FROM (SELECT weight, 1 / (1 + exp(-2.5 * reward_gap)) AS p FROM pairs)";
    let (found, expected) = (number(&workspace, FIRST), number(&workspace, expected));
    assert!(expected > 1e-4 && (found - expected).abs() < 1e-9, "{found}, expected {expected}");
    // The margins move towards the gaps.
    let last = number(&workspace, "SELECT loss FROM policy_training ORDER BY step DESC LIMIT 1");
    assert!(last < found, "{last} after {found}");
}

#[test]
fn optimism_lowers_the_logprobs_of_both_responses() {
    let after = |train: &str| {
        let workspace = run(train, LINEAR);
        assert_eq!(format!("{:.6}", number(&workspace, FIRST)), "0.693147", "a log ratio is 0 at the start");
        number(&workspace, "SELECT logprob_chosen + logprob_rejected FROM policy_training WHERE step = 3")
    };
    let (plain, optimistic) = (after(""), after(", optimism: 20.0"));
    assert!(optimistic < plain - 0.01, "{optimistic} with optimism, {plain} without");
}

#[test]
fn exponential_weights_grow_with_the_gap() {
    let workspace = run("", "weight: { kind: exponential, gap_scale: 3.0, normalize: mean }");
    let off = "SELECT max(abs(weight - raw / mean)) FROM (SELECT weight, exp(3.0 * reward_gap) AS raw FROM pairs),
       (SELECT avg(exp(3.0 * reward_gap)) AS mean FROM pairs)";
    assert!(number(&workspace, off) < 1e-12);
    assert!(number(&workspace, "SELECT max(weight) - min(weight) FROM pairs") > 0.1);
    // A gap too large for a number is an error, not a weight of NaN.
    workspace.edit("pipeline.yaml", "gap_scale: 3.0", "gap_scale: 1.0e+6");
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(error.contains("expected a finite mean weight of the pairs, found inf"), "{error}");
    assert!(error.contains("lower gap_scale"), "{error}");
}
