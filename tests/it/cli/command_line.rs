//! The command line: work shared between runs, the output of `plan`, SQL answers, and refusals.

use crate::fixtures::workspace::Workspace;

#[test]
fn a_finished_run_does_nothing_again() {
    let workspace = Workspace::new();
    let summary = workspace.succeed(&["run", "pipeline.yaml"]);
    assert!(summary.contains("held-out reward"), "{summary}");
    let before = workspace.result("small");
    let started = workspace.journal("small", "started").len();
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(workspace.result("small"), before);
    assert_eq!(workspace.journal("small", "started").len(), started);
    let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
    assert!(plan.lines().all(|line| line.ends_with("done")), "{plan}");
}

#[test]
fn runs_that_differ_in_the_ratio_share_the_first_iterations_generation() {
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml"]);
    workspace.succeed(&["run", "pipeline.yaml", "--name", "whole", "--set", "ratio=1.0"]);
    let started = workspace.journal("whole", "started");
    let ran = |node: &str, iteration: i64| started.iter().any(|(n, t, _)| n == node && *t == iteration);
    for (node, iteration) in [("base", -1), ("selection", 1), ("responses", 1), ("rewards", 1), ("policy", 1), ("evaluation", 1)] {
        assert!(!ran(node, iteration), "{node}[{iteration}] ran again");
    }
    assert!(ran("selection", 2) && ran("responses", 2));
    let selected = |run| workspace.query(run, "SELECT count(*) FROM selection WHERE iteration = 2 AND selected");
    assert_eq!((selected("small"), selected("whole")), ("10".to_string(), "20".to_string()));
}

#[test]
fn another_learning_rate_generates_nothing_in_iteration_1_and_plan_says_why() {
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml"]);
    let plan = workspace.succeed(&["plan", "pipeline.yaml", "--set", "learning_rate=2.0e-3"]);
    let line = |node: &str| {
        plan.lines().find(|line| line.starts_with(&format!("{node} "))).unwrap_or_else(|| panic!("{node}: {plan}")).to_string()
    };
    for node in ["base", "selection[1]", "responses[1]", "rewards[1]", "pool[1]", "pairs[1]", "policy_pairs[1]", "selection[2]"] {
        assert!(line(node).ends_with("done"), "{}", line(node));
    }
    assert!(line("policy[1]").contains("stale: learning_rate was 0.001, is 0.002"), "{}", line("policy[1]"));
    assert!(line("responses[2]").contains("stale: input policy changed"), "{}", line("responses[2]"));
    let before = workspace.journal("small", "started").len();
    workspace.succeed(&["run", "pipeline.yaml", "--set", "learning_rate=2.0e-3"]);
    let started = workspace.journal("small", "started").split_off(before);
    assert!(started.iter().all(|(node, iteration, _)| node != "responses" || *iteration == 2), "{started:?}");
    // And back again: everything is in the cache.
    let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
    assert!(plan.lines().all(|line| line.ends_with("done") || line.ends_with("cached")), "{plan}");
}

#[test]
fn sql_answers_what_users_ask() {
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml"]);
    let by_family = workspace.query(
        "small",
        "SELECT iteration, \"group\", count(*) FROM rewards JOIN prompts USING (prompt_id) GROUP BY iteration, \"group\" ORDER BY iteration",
    );
    assert_eq!(by_family, "1,upper,60\n2,upper,30");
    let gained = workspace.query(
        "small",
        "SELECT count(*) FROM selection JOIN (SELECT prompt_id, iteration, avg(reward) AS reward FROM pool GROUP BY 1, 2) AS after
         ON selection.prompt_id = after.prompt_id AND selection.iteration = after.iteration
         WHERE selected AND selection.iteration = 2 AND after.reward - selection.score IS NOT NULL",
    );
    assert_eq!(gained, "10");
    let tokens =
        workspace.query("small", "SELECT sum(array_length(token_ids) - prompt_token_count) > 0 FROM responses WHERE iteration = 1");
    assert_eq!(tokens, "true");
    let sampled_iteration =
        workspace.query("small", "SELECT DISTINCT sampled_iteration FROM pool WHERE iteration = 2 ORDER BY sampled_iteration");
    assert_eq!(sampled_iteration, "1\n2");
    let error = workspace.fail(&["sql", "small", "DROP TABLE rewards"], 2);
    assert!(!error.is_empty());
    let error = workspace.fail(&["sql", "small", "SELECT rewrd FROM rewards"], 2);
    assert!(error.contains("rewrd"), "{error}");
}

#[test]
fn pairs_that_are_carried_over_keep_the_logprobs_of_a_reference_that_stays() {
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml"]);
    let both = "FROM policy_pairs AS now JOIN policy_pairs AS before
  ON now.prompt_id = before.prompt_id AND now.chosen_sampled_iteration = before.chosen_sampled_iteration AND now.chosen_index = before.chosen_index
 AND now.rejected_sampled_iteration = before.rejected_sampled_iteration AND now.rejected_index = before.rejected_index
 WHERE now.iteration = 2 AND before.iteration = 1";
    let carried = workspace.query("small", &format!("SELECT count(*) {both}"));
    let same = "now.reference_logprob_chosen = before.reference_logprob_chosen
 AND now.reference_logprob_rejected = before.reference_logprob_rejected";
    assert_eq!(workspace.query("small", &format!("SELECT count(*) {both} AND {same}")), carried);
    let pairs = workspace.query("small", "SELECT count(*) FROM policy_pairs WHERE iteration = 2");
    assert!((1..pairs.parse().unwrap()).contains(&carried.parse::<i64>().unwrap()), "{carried} of {pairs}");
    // In iteration 1 the reference itself sampled the responses. Its logprobs must equal those from
    // sampling.
    let wrong = "SELECT count(*) FROM policy_pairs AS pair JOIN responses ON responses.prompt_id = pair.prompt_id
 AND responses.sampled_iteration = pair.chosen_sampled_iteration AND responses.response_index = pair.chosen_index
 WHERE responses.sampled_iteration = 1 AND abs(responses.logprob - pair.reference_logprob_chosen) > 0.0001";
    assert_eq!(workspace.query("small", wrong), "0");
}

#[test]
fn policies_and_pairs_are_exported() {
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml"]);
    workspace.succeed(&["export", "policy", "small", "tuned"]);
    for file in ["config.json", "model.safetensors", "tokenizer.json", "generation_config.json"] {
        assert!(workspace.path("tuned").join(file).exists(), "{file}");
    }
    assert!(!workspace.path("tuned/manifest.json").exists());
    workspace.fail(&["export", "policy", "small", "tuned"], 2);
    workspace.succeed(&["export", "pairs", "small", "pairs.jsonl"]);
    let text = std::fs::read_to_string(workspace.path("pairs.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    for column in ["prompt", "chosen", "rejected", "weight", "margin"] {
        assert!(!first[column].is_null(), "{column}: {first}");
    }
    workspace.succeed(&["export", "pairs", "small", "pairs.parquet"]);
    let count = workspace.query("small", "SELECT count(*) FROM pairs WHERE iteration = 2");
    assert_eq!(text.lines().count().to_string(), count);
}

#[test]
fn a_second_run_at_once_is_refused() {
    let workspace = Workspace::new();
    let mut child = workspace.start(&["run", "pipeline.yaml"]);
    let journal = workspace.path("runs/small/journal.jsonl");
    while !journal.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let output = workspace.optune(&["run", "pipeline.yaml"]);
    let error = String::from_utf8_lossy(&output.stderr);
    if child.try_wait().unwrap().is_none() {
        assert!(!output.status.success());
        assert!(error.contains(&child.id().to_string()), "{error}");
    }
    assert!(child.wait().unwrap().success());
    workspace.succeed(&["status", "small"]);
}

#[test]
fn iterations_that_are_no_more_are_not_seen_and_not_lost() {
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml"]);
    let before = workspace.result("small");
    workspace.succeed(&["run", "pipeline.yaml", "--set", "iterations=1"]);
    assert_eq!(workspace.query("small", "-- the last one\nSELECT max(iteration) FROM responses"), "1");
    let started = workspace.journal("small", "started").len();
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(workspace.result("small"), before);
    assert_eq!(workspace.journal("small", "started").len(), started);
}

#[test]
fn clean_keeps_what_runs_use() {
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml"]);
    workspace.succeed(&["run", "pipeline.yaml", "--set", "learning_rate=2.0e-3"]);
    let before = workspace.result("small");
    workspace.succeed(&["clean"]);
    assert_eq!(workspace.result("small"), before);
    let plan = workspace.succeed(&["plan", "pipeline.yaml", "--set", "learning_rate=2.0e-3"]);
    assert!(plan.lines().all(|line| line.ends_with("done")), "{plan}");
    let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
    assert!(plan.contains("stale: learning_rate"), "{plan}");
}

#[test]
fn the_schema_is_json() {
    let workspace = Workspace::new();
    let schema: serde_json::Value = serde_json::from_str(&workspace.succeed(&["schema"])).unwrap();
    assert!(schema["properties"]["iterate"].is_object());
}

#[test]
fn a_damaged_part_is_moved_aside_and_made_again() {
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml"]);
    let before = workspace.result("small");
    let part = workspace.path("runs/small/tables/responses/iteration=1/part-00001.parquet");
    let mut bytes = std::fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&part, bytes).unwrap();
    let output = workspace.optune(&["run", "pipeline.yaml"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    assert!(error.contains("part-00001.parquet"), "{error}");
    assert_eq!(workspace.result("small"), before);
    assert!(workspace.path("runs/small/quarantine").read_dir().unwrap().next().is_some());
}
