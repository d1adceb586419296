//! Adaptive numbers of responses: the short form and its nodes written out are one pipeline, and
//! every response is the one that a fixed number of responses would have.

use std::collections::BTreeMap;

use optune::pipeline::Pipeline;

use crate::fixtures::workspace::{ADAPTIVE, PIPELINE, Workspace};

/// The nodes between the selection and the pairs of the workspace's pipeline.
const FIXED: &str = r#"    responses:  { generate: { policy: "policy[t-1]", prompts: prompts, selection: selection, responses_per_prompt: 3, max_new_tokens: 8 }, resources: { rows_per_part: 4 } }
    rewards:    { score: { responses: responses, reward: judge } }
    pool:       { merge: { fresh: rewards, carried: "pool[t-1]" } }
"#;

/// The nodes of [`ADAPTIVE`].
const WRITTEN_OUT: &str = r#"    responses:  { generate: { policy: "policy[t-1]", prompts: prompts, selection: selection, responses_per_prompt: 2, max_new_tokens: 8 }, resources: { rows_per_part: 4 } }
    rewards:    { score: { responses: responses, reward: judge } }
    responses_2_pool:      { merge: { fresh: rewards } }
    responses_2_selection: { select: { prompts: prompts, pool: responses_2_pool, within: selection, strategy: { expected_gain: { neighbors: 9 } }, ratio: 0.4, tokens: 150, responses_per_prompt: 3 } }
    responses_2: { generate: { policy: "policy[t-1]", prompts: prompts, selection: responses_2_selection, responses_per_prompt: 3, first_index: 2, max_new_tokens: 8 }, resources: { rows_per_part: 4 } }
    rewards_2:   { score: { responses: responses_2, reward: judge } }
    responses_3_pool:      { merge: { fresh: [rewards, rewards_2] } }
    responses_3_selection: { select: { prompts: prompts, pool: responses_3_pool, within: selection, strategy: { expected_gain: { neighbors: 9 } }, ratio: 0.4, tokens: 150, responses_per_prompt: 3 } }
    responses_3: { generate: { policy: "policy[t-1]", prompts: prompts, selection: responses_3_selection, responses_per_prompt: 3, first_index: 5, max_new_tokens: 8 }, resources: { rows_per_part: 4 } }
    rewards_3:   { score: { responses: responses_3, reward: judge } }
    pool:       { merge: { fresh: [rewards, rewards_2, rewards_3], carried: "pool[t-1]" } }
"#;

/// The workspace's pipeline with the nodes written out.
fn written_out() -> String {
    assert!(PIPELINE.contains(FIXED));
    PIPELINE.replace(FIXED, WRITTEN_OUT)
}

#[test]
fn the_short_form_is_its_nodes_written_out() {
    assert!(ADAPTIVE.contains("first: 2"));
    let workspace = Workspace::adaptive();
    let graph = |text: &str| {
        let read = Pipeline::read("test.yaml", text, &[]).unwrap();
        read.graph(&workspace.path("")).unwrap_or_else(|error| panic!("{error}"))
    };
    let short = graph(&std::fs::read_to_string(workspace.path("pipeline.yaml")).unwrap());
    let long = graph(&written_out());
    assert_eq!(short.to_yaml(&short.folder).unwrap(), long.to_yaml(&long.folder).unwrap());
    assert_eq!(short.tasks.len(), long.tasks.len());
    for (one, other) in short.tasks.iter().zip(&long.tasks) {
        assert_eq!((&one.name, one.iteration), (&other.name, other.iteration));
        assert_eq!((&one.settings, &one.inputs), (&other.settings, &other.inputs), "{}", one.name);
        assert_eq!(one.resources, other.resources, "{}", one.name);
    }
}

#[test]
fn the_short_form_makes_the_bytes_of_its_nodes_and_of_a_fixed_number() {
    let short = Workspace::adaptive();
    short.succeed(&["run", "pipeline.yaml"]);
    let long = Workspace::new();
    long.write("pipeline.yaml", &written_out());
    long.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(short.result("small"), long.result("small"));

    // How many responses a prompt got is a query away, and why.
    let sql = "SELECT count(DISTINCT prompt_id), min(count), max(count) > 2 FROM (
                 SELECT prompt_id, count(*) AS count FROM pool WHERE iteration = 1 GROUP BY prompt_id) AS counts";
    assert_eq!(short.query("small", sql), "20,2,true");
    let sql = "SELECT count(*) FROM (
                 SELECT prompt_id, count(*) AS count FROM pool WHERE iteration = 1 GROUP BY prompt_id) AS counts
               JOIN responses_2_selection AS two ON two.prompt_id = counts.prompt_id AND two.iteration = 1
               JOIN responses_3_selection AS three ON three.prompt_id = counts.prompt_id AND three.iteration = 1
               WHERE count = 2 + 3 * CAST(two.selected AS INT) + 3 * CAST(three.selected AS INT)";
    assert_eq!(short.query("small", sql), "20");
    // In the second iteration only prompts of its selection get more.
    let sql = "SELECT count(*), count(*) FILTER (WHERE two.selected) > 0 FROM responses_2_selection AS two
               JOIN selection ON selection.prompt_id = two.prompt_id AND selection.iteration = two.iteration
               WHERE two.iteration = 2 AND selection.selected";
    assert_eq!(short.query("small", sql), "10,true");
    assert_eq!(short.query("small", "SELECT count(*) FROM responses_2_selection WHERE iteration = 2"), "10");

    // Every response is that of a fixed number of eight.
    let fixed = Workspace::new();
    fixed.edit("pipeline.yaml", "responses_per_prompt: 3", "responses_per_prompt: 8");
    fixed.edit("pipeline.yaml", "iterations: 2", "iterations: 1");
    fixed.succeed(&["run", "pipeline.yaml"]);
    let responses = |workspace: &Workspace, tables: &[&str]| -> BTreeMap<String, String> {
        let select = |table: &&str| {
            format!(
                "SELECT prompt_id, response_index, token_ids, logprob, policy_fingerprint, finish_reason FROM {table} WHERE iteration = 1"
            )
        };
        let all = tables.iter().map(select).collect::<Vec<_>>().join(" UNION ALL ");
        let csv = workspace.query("small", &format!("SELECT prompt_id, response_index, array_to_string(token_ids, ' ') AS ids, logprob, policy_fingerprint, finish_reason FROM ({all}) AS responses"));
        let keyed = |line: &str| {
            let end = line.match_indices(',').nth(1).unwrap().0;
            (line[..end].to_string(), line[end..].to_string())
        };
        csv.lines().map(keyed).collect()
    };
    let (found, all) = (responses(&short, &["responses", "responses_2", "responses_3"]), responses(&fixed, &["responses"]));
    assert!(found.len() > 40 && all.len() == 160, "{} of {}", found.len(), all.len());
    for (key, response) in &found {
        assert_eq!(Some(response), all.get(key), "{key}");
    }
}

#[test]
fn a_report_of_adaptive_numbers_is_made() {
    let workspace = Workspace::adaptive();
    workspace.succeed(&["run", "pipeline.yaml"]);
    workspace.succeed(&["report", "runs/small", "--output", "report.html"]);
    let html = std::fs::read_to_string(workspace.path("report.html")).unwrap();
    assert!(html.contains("responses_2_selection"));
    let gains = workspace.query("small", "SELECT node, iteration, prompts FROM regeneration_gain WHERE node = 'pool'");
    assert_eq!(gains, "pool,2,10");
    // Whether the gain came is a query: a row for each prompt of each step.
    assert!(html.contains("Expected gain"));
    let sql = "SELECT (SELECT count(*) FROM expected_gain)
                 = (SELECT count(*) FROM responses_2_selection WHERE selected) + (SELECT count(*) FROM responses_3_selection WHERE selected)";
    assert_eq!(workspace.query("small", sql), "true");
    let sql = "SELECT abs((SELECT sum(gain) FROM expected_gain WHERE node = 'responses_2_selection') - sum(greatest(fresh.best - old.best, 0.0))) < 1e-9
               FROM (SELECT iteration, prompt_id, max(reward) AS best FROM rewards_2 GROUP BY 1, 2) AS fresh
               JOIN (SELECT iteration, prompt_id, max(reward) AS best FROM rewards GROUP BY 1, 2) AS old USING (iteration, prompt_id)";
    assert_eq!(workspace.query("small", sql), "true");
}
