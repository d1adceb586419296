//! The views of every run. Each is compared with a query of its tables, under the names of any
//! pipeline.

use optune::sql::Session;
use optune::store::Runs;

use crate::fixtures::workspace::{PIPELINE, Workspace};

/// A finished run with other names for its nodes, by (from, to).
fn finished(renamed: &[(&str, &str)]) -> Workspace {
    let workspace = Workspace::new();
    workspace.write("pipeline.yaml", &renamed.iter().fold(PIPELINE.to_string(), |text, (from, to)| text.replace(from, to)));
    workspace.succeed(&["run", "pipeline.yaml"]);
    workspace
}

/// Both queries give the same rows, at least one; numbers are compared to 9 digits.
fn same(workspace: &Workspace, view: &str, by_hand: &str) {
    let rows = |sql: &str| -> Vec<Vec<String>> {
        let cell = |cell: &str| cell.parse::<f64>().map_or(cell.to_string(), |number| format!("{number:.9}"));
        workspace.query("small", sql).lines().map(|line| line.split(',').map(cell).collect()).collect()
    };
    let expected = rows(by_hand);
    assert!(!expected.is_empty() && expected[0] != [""], "{by_hand}");
    assert_eq!(rows(view), expected, "{view}");
}

#[test]
fn the_views_say_what_the_tables_say() {
    let workspace = finished(&[]);
    same(
        &workspace,
        "SELECT node, iteration, responses, reward_mean, reward_min, reward_max FROM reward_by_iteration WHERE node = 'rewards'",
        "SELECT 'rewards', iteration, count(*), sum(reward) / count(*), min(reward), max(reward) FROM rewards GROUP BY iteration ORDER BY iteration",
    );
    assert_eq!(
        workspace.query("small", "SELECT DISTINCT node FROM reward_by_iteration ORDER BY node"),
        "evaluation_baseline_rewards\nevaluation_rewards\nrewards"
    );
    // The gain, by the pool before and the pool after.
    same(
        &workspace,
        "SELECT iteration, rank_by, prompts, before, after, gain FROM regeneration_gain",
        "SELECT 2, 'mean', count(*), avg(old), avg(new), avg(new) - avg(old) FROM
           (SELECT prompt_id, avg(reward) AS old FROM pool WHERE iteration = 1 GROUP BY prompt_id) AS before
           JOIN (SELECT prompt_id, avg(reward) AS new FROM pool WHERE iteration = 2 GROUP BY prompt_id) AS after ON before.prompt_id = after.prompt_id
         WHERE before.prompt_id IN (SELECT prompt_id FROM selection WHERE iteration = 2 AND selected)",
    );
    // Every pair has its two texts, and the rewards of these differ by the gap.
    assert_eq!(workspace.query("small", "SELECT count(*) FROM largest_gaps"), workspace.query("small", "SELECT count(*) FROM pairs"));
    let right = "WITH said AS (SELECT r.prompt_id, r.text, w.reward FROM responses AS r JOIN rewards AS w
         ON w.prompt_id = r.prompt_id AND w.sampled_iteration = r.sampled_iteration AND w.response_index = r.response_index)
       SELECT count(DISTINCT gap.place) FROM largest_gaps AS gap JOIN said AS a ON a.prompt_id = gap.prompt_id AND a.text = gap.chosen
       JOIN said AS b ON b.prompt_id = gap.prompt_id AND b.text = gap.rejected WHERE abs(a.reward - b.reward - gap.reward_gap) < 0.000000001";
    assert_eq!(workspace.query("small", right), workspace.query("small", "SELECT count(*) FROM pairs"));
    let gaps = workspace.query("small", "SELECT reward_gap FROM largest_gaps WHERE place <= 10 ORDER BY place");
    let gaps: Vec<f64> = gaps.lines().map(|gap| gap.parse().unwrap()).collect();
    assert!(gaps.is_sorted_by(|one, other| one >= other), "{gaps:?}");
    // The cost: every node of the pipeline once an iteration, tokens as the tables have them.
    same(
        &workspace,
        "SELECT node, iteration, sampled_tokens, rows FROM cost_by_stage WHERE node = 'responses'",
        "SELECT 'responses', iteration, sum(array_length(token_ids) - prompt_token_count), count(*) FROM responses GROUP BY iteration ORDER BY iteration",
    );
    same(
        &workspace,
        "SELECT iteration, trained_tokens, reused FROM cost_by_stage WHERE node = 'policy'",
        "SELECT iteration, sum(tokens), false FROM policy_training GROUP BY iteration ORDER BY iteration",
    );
    // Every token once a kind of work, with those of the evaluation apart.
    same(
        &workspace,
        "SELECT node, iteration, scored_tokens FROM cost_by_stage WHERE scored_tokens IS NOT NULL ORDER BY node, iteration",
        "SELECT 'evaluation_baseline_rewards', CAST(NULL AS INT), sum(array_length(token_ids) - prompt_token_count) FROM evaluation_baseline_responses
         UNION ALL
         SELECT 'evaluation_rewards', iteration, sum(array_length(token_ids) - prompt_token_count) FROM evaluation_responses GROUP BY iteration
         UNION ALL
         SELECT 'rewards', iteration, sum(array_length(token_ids) - prompt_token_count) FROM responses GROUP BY iteration ORDER BY 1, 2",
    );
    same(
        &workspace,
        "SELECT sum(sampled_tokens), sum(evaluated_tokens), sum(trained_tokens) FROM cost_by_stage",
        "SELECT (SELECT sum(array_length(token_ids) - prompt_token_count) FROM responses),
                (SELECT sum(array_length(token_ids) - prompt_token_count) FROM evaluation_responses)
                + (SELECT sum(array_length(token_ids) - prompt_token_count) FROM evaluation_baseline_responses),
                (SELECT sum(tokens) FROM policy_training) + (SELECT sum(tokens) FROM base_training)",
    );
    assert_eq!(workspace.query("small", "SELECT count(*) FROM cost_by_stage WHERE seconds <= 0 OR reused"), "0");
    // A model's computations take a part of its node's time; relational nodes have none.
    let computed = "SELECT DISTINCT operator FROM cost_by_stage WHERE device_seconds > 0 AND device_seconds < seconds ORDER BY operator";
    assert_eq!(workspace.query("small", computed), "evaluate\ngenerate\nreference\nsft\ntrain");
    let others = "SELECT count(*) FROM cost_by_stage WHERE operator IN ('select', 'merge', 'pair') AND device_seconds IS NOT NULL";
    assert_eq!(workspace.query("small", others), "0");
    let nodes = workspace.query("small", "SELECT count(*) FROM cost_by_stage WHERE iteration = 1");
    assert_eq!(nodes, workspace.query("small", "SELECT count(*) FROM journal WHERE event = 'started' AND iteration = 1"));
    // A second run takes the base from the cache.
    workspace.succeed(&["run", "pipeline.yaml", "--name", "again"]);
    assert_eq!(workspace.query("again", "SELECT count(*) FROM cost_by_stage WHERE NOT reused OR seconds > 0"), "0");
}

#[test]
fn the_views_find_tables_by_their_kind() {
    let renamed = finished(&[
        ("responses:  {", "answers:  {"),
        ("responses: responses", "responses: answers"),
        ("rewards:    {", "worth:    {"),
        ("fresh: rewards", "fresh: worth"),
        ("pool:       {", "everything: {"),
        ("pool: pool", "pool: everything"),
        ("\"pool[t-1]\"", "\"everything[t-1]\""),
        ("pool: none", "everything: none"),
        ("pairs:      {", "two: {"),
        ("pairs: pairs", "pairs: two"),
        ("selection:  {", "chosen: {"),
        ("selection: selection", "selection: chosen"),
        ("ratio: \"${ratio}\"", "rank_by: gap, ratio: \"${ratio}\""),
    ]);
    same(
        &renamed,
        "SELECT node, rank_by, prompts, after FROM regeneration_gain",
        "SELECT 'everything', 'gap', count(*), avg(gap) FROM
          (SELECT prompt_id, max(reward) - min(reward) AS gap FROM everything WHERE iteration = 2 GROUP BY prompt_id)
         WHERE prompt_id IN (SELECT prompt_id FROM chosen WHERE iteration = 2 AND selected)",
    );
    assert_eq!(
        renamed.query("small", "SELECT count(*), min(node) FROM largest_gaps"),
        renamed.query("small", "SELECT count(*), 'two' FROM two")
    );
    assert!(renamed.query("small", "SELECT node FROM reward_by_iteration").contains("worth"));
}

#[test]
fn a_node_of_the_users_own_wins_and_views_without_tables_are_not_there() {
    let workspace = Workspace::new();
    let own = "nodes:\n  reward_by_iteration: { sql: { query: \"SELECT 42 AS mine\" } }\n  outputs: { sql: { query: \"SELECT prompt_id FROM prompts\" } }\n";
    let inputs = PIPELINE.split("nodes:").next().unwrap();
    workspace.write("pipeline.yaml", &format!("{inputs}{own}"));
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(workspace.query("small", "SELECT mine FROM reward_by_iteration"), "42");
    let session = Session::over_run(&Runs::open(workspace.path("runs")).unwrap().run("small").unwrap()).unwrap();
    assert_eq!(session.tables(), ["annotations", "held_out", "journal", "outputs", "prompts", "reward_by_iteration"]);
}
