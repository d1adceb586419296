//! NaN, infinite and null rewards, losses, gradients and weights. They stop a run unless the
//! pipeline says to skip them; then they are counted.

use optune::store::{OutputKey, Runs};
use serde_json::{Value, json};

use crate::fixtures::http_server::{Reply, Server, well};
use crate::fixtures::workspace::{PIPELINE, Workspace};

/// A count in the manifest of a table or model of the run `small`.
fn count(workspace: &Workspace, place: &OutputKey, name: &str) -> Option<i64> {
    let run = Runs::open(workspace.path("runs")).unwrap().run("small").unwrap();
    run.manifest(place).unwrap().unwrap().counts.get(name).copied()
}

fn model(name: &str) -> OutputKey {
    OutputKey { kind: optune::store::OutputKind::Model, name: name.to_string(), iteration: None }
}

/// A query: `reward` for response 1 of every prompt, and its length for every other one.
fn reward(reward: &str) -> String {
    format!(
        "SELECT prompt_id, response_index, CASE response_index WHEN 1 THEN {reward} ELSE CAST(length(text) AS DOUBLE) END AS reward FROM responses"
    )
}

#[test]
fn rewards_that_are_not_finite_stop_unless_they_are_to_be_left_out() {
    for (value, found) in
        [("CAST('NaN' AS DOUBLE)", "NaN"), ("1e308 * 1e10", "inf"), ("-1e308 * 1e10", "-inf"), ("CAST(NULL AS DOUBLE)", "null")]
    {
        let workspace = Workspace::new();
        workspace.edit("pipeline.yaml", "iterations: 2", "iterations: 1");
        workspace.write("reward.sql", &reward(value));
        let error = workspace.fail(&["run", "pipeline.yaml"], 2);
        let said = format!("reward query: expected a finite reward for prompt_id p-000, response_index 1, found {found}");
        assert!(error.contains(&said) && error.contains("non_finite: skip"), "{error}");
        workspace.edit("pipeline.yaml", "reward: judge }", "reward: judge, non_finite: skip }");
        let output = workspace.optune(&["run", "pipeline.yaml"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.contains("20 without a reward, of 20 it is not finite"), "{said}");
        let rewards = OutputKey::table("rewards", Some(1));
        assert_eq!((count(&workspace, &rewards, "non_finite"), count(&workspace, &rewards, "scored")), (Some(20), Some(40)));
        let row = "SELECT DISTINCT response_index, error FROM rewards WHERE reward IS NULL";
        assert_eq!(workspace.query("small", row), format!("1,\"reward query: expected a finite reward, found {found}\""));
        // None of them is compared with anything.
        assert_eq!(workspace.query("small", "SELECT count(*) FROM pool WHERE response_index = 1"), "0");
        assert_eq!(workspace.query("small", "SELECT count(*) FROM pairs WHERE chosen_index = 1 OR rejected_index = 1"), "0");
        assert_ne!(workspace.query("small", "SELECT count(*) FROM pairs"), "0");
        assert_eq!(workspace.query("small", "SELECT count(*) FROM evaluation"), "8");
    }
}

#[test]
fn responses_without_a_reward_are_not_called_scored() {
    let workspace = Workspace::new();
    workspace.edit("pipeline.yaml", "iterations: 2", "iterations: 1");
    workspace.edit("pipeline.yaml", "reward: judge }", "reward: judge, non_finite: skip }");
    workspace.write("reward.sql", "SELECT prompt_id, response_index, CAST(NULL AS DOUBLE) AS reward FROM responses");
    let output = workspace.optune(&["run", "pipeline.yaml"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("none of 60 responses scored, 60 without a reward, of 60 it is not finite"),
        "{said}"
    );
    assert!(!said.contains("mean reward"), "{said}");
    // A mean that rounds to 0 has no sign.
    workspace
        .write("reward.sql", "SELECT prompt_id, response_index, CASE WHEN response_index > 0 THEN -0.0001 END AS reward FROM responses");
    let output = workspace.optune(&["run", "pipeline.yaml"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("40 of 60 responses scored, mean reward 0.000, 20 without a reward"), "{said}");
}

#[test]
fn sums_and_components_that_are_not_finite_are_told_by_name() {
    let workspace = Workspace::new();
    let component = "SELECT prompt_id, response_index, 1.0 AS reward, CAST('NaN' AS DOUBLE) AS odd FROM responses";
    workspace.write("reward.sql", component);
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(error.contains("for prompt_id p-000, response_index 0, found NaN as its component odd"), "{error}");
    workspace.write("reward.sql", "SELECT prompt_id, response_index, 1e300 AS reward FROM responses");
    workspace.edit("pipeline.yaml", "{ sql: reward.sql }", "[{ name: large, weight: 1.0e100, sql: reward.sql }]");
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(error.contains("weighted sum: expected a finite reward for prompt_id p-000, response_index 0, found inf"), "{error}");
}

#[test]
fn what_a_server_has_no_reward_for_stops_or_is_left_out() {
    let server = Server::start(well, |request| {
        let asked = request.json();
        let length = |text: &Value| match text.as_str().unwrap().len() {
            length if length > 3 => json!(length),
            _ => Value::Null,
        };
        Reply::json(json!({ "scores": asked["responses"].as_array().unwrap().iter().map(length).collect::<Vec<_>>() }))
    });
    let workspace = Workspace::new();
    workspace.edit("pipeline.yaml", "{ sql: reward.sql }", &format!("{{ http: \"{}/score\" }}", server.url));
    workspace.edit("pipeline.yaml", "iterations: 2", "iterations: 1");
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(error.contains("reward server: expected a finite reward for prompt_id p-0") && error.contains("found null"), "{error}");
    workspace.edit("pipeline.yaml", "reward: judge }", "reward: judge, non_finite: skip }");
    workspace.edit("pipeline.yaml", "reward: judge, max_new_tokens", "reward: judge, non_finite: skip, max_new_tokens");
    workspace.succeed(&["run", "pipeline.yaml"]);
    let short = workspace.query("small", "SELECT count(*) FROM responses WHERE length(text) <= 3");
    assert_eq!(workspace.query("small", "SELECT count(*) FROM rewards WHERE reward IS NULL"), short);
    assert_eq!(count(&workspace, &OutputKey::table("rewards", Some(1)), "non_finite").map(|count| count.to_string()), Some(short));
}

#[test]
fn rewards_too_far_apart_to_subtract_are_told_by_their_prompt() {
    let workspace = Workspace::new();
    workspace
        .write("reward.sql", &reward("CASE WHEN length(text) >= 0 THEN -1.7e308 END").replace("CAST(length(text) AS DOUBLE)", "1.7e308"));
    let error = workspace.fail(&["run", "pipeline.yaml"], 1);
    assert!(error.contains("table pairs, row 0: reward_gap: expected a finite number, found inf (prompt_id = p-000)"), "{error}");
}

/// Training on 12 preferences with more settings. The weight of `p-05` overflows every gradient of
/// f32.
fn preferring(settings: &str) -> Workspace {
    let workspace = Workspace::new();
    let row = |i: usize| {
        let weight = if i == 5 { 1e300 } else { 1.0 };
        json!({ "prompt_id": format!("p-{i:02}"), "prompt": format!("upper {i}="), "chosen": "AB", "rejected": "C", "weight": weight })
    };
    workspace.write("prefs.jsonl", &(0..12).map(|i| format!("{}\n", row(i))).collect::<String>());
    let (head, _) = PIPELINE.split_once("iterate:").unwrap();
    let text = head.replace("inputs:\n", "inputs:\n  prefs: { table: prefs.jsonl }\n");
    let node = format!("  policy: {{ train: {{ from: base, reference: base, pairs: prefs, learning_rate: 1.0e-3, {settings} }} }}\n");
    let unused = ["  held_out: { table: held_out.jsonl }\n", "  judge:    { reward: { sql: reward.sql } }\n"];
    let text = unused.iter().fold(text, |text, line| text.replace(line, ""));
    workspace.write("pipeline.yaml", &(text.replace("params: { ratio: 0.5, iterations: 2, learning_rate: 1.0e-3 }\n", "") + &node));
    workspace
}

#[test]
fn a_step_that_is_not_finite_stops_unless_it_is_to_be_left_out() {
    let workspace = preferring("batch_size: 2, epochs: 2");
    let error = workspace.fail(&["run", "pipeline.yaml"], 1);
    assert!(error.contains("policy: on 2 examples (p-") && error.contains("p-05"), "{error}");
    assert!(error.contains(": the gradient norm is ") && error.contains("non_finite: skip"), "{error}");
    let workspace = preferring("batch_size: 2, epochs: 2, non_finite: skip");
    let output = workspace.optune(&["run", "pipeline.yaml"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("12 steps, ") && said.contains("2 skipped because they were not finite"), "{said}");
    let policy = model("policy");
    assert_eq!((count(&workspace, &policy, "steps"), count(&workspace, &policy, "skipped")), (Some(12), Some(2)));
    let table = OutputKey::table("policy_training", None);
    assert_eq!((count(&workspace, &table, "steps"), count(&workspace, &table, "skipped")), (Some(10), Some(2)));
    // Steps keep their numbers, and the skipped ones left nothing in the weights.
    assert_eq!(workspace.query("small", "SELECT count(*), max(step) FROM policy_training"), "10,12");
    assert_eq!(workspace.query("small", "SELECT count(*) FROM policy_training WHERE loss > 1e3"), "0");
}

#[test]
fn an_epoch_of_skipped_steps_and_weights_that_are_broken_at_the_end_fail() {
    let workspace = preferring("batch_size: 12, epochs: 3, non_finite: skip");
    let error = workspace.fail(&["run", "pipeline.yaml"], 1);
    assert!(error.contains("step 1 is skipped, on 12 examples (p-") && error.contains(", …)"), "{error}");
    assert!(error.contains("1 in a row, expected at least one step of an epoch or of 10 to be finite"), "{error}");
    let workspace = preferring("batch_size: 12, schedule: constant, warmup_ratio: 0.0");
    workspace.edit("prefs.jsonl", "1e+300", "1.0");
    workspace.edit("pipeline.yaml", "learning_rate: 1.0e-3, batch_size: 12", "learning_rate: 1.0e300, batch_size: 12");
    let error = workspace.fail(&["run", "pipeline.yaml"], 1);
    assert!(error.contains("expected finite weights after the last step, found others; lower the learning rate"), "{error}");
    assert!(!workspace.path("runs/small/models/policy/manifest.json").exists());
}

#[test]
fn weights_that_are_nan_are_found_by_the_first_thing_that_uses_them() {
    let workspace = Workspace::new();
    workspace.edit("pipeline.yaml", "iterations: 2", "iterations: 1");
    workspace.succeed(&["run", "pipeline.yaml"]);
    workspace.succeed(&["export", "policy", "small", "broken"]);
    let path = workspace.path("broken/model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[8 + header..].chunks_exact_mut(4).for_each(|weight| weight.copy_from_slice(&f32::NAN.to_le_bytes()));
    std::fs::write(&path, bytes).unwrap();
    workspace.edit("pipeline.yaml", "{ model: shape }", "{ model: broken }");
    workspace.edit("pipeline.yaml", "initialize: random, ", "");
    let error = workspace.fail(&["run", "pipeline.yaml"], 1);
    assert!(error.contains("base: on 8 examples (p-") && error.contains("step 1: the loss is NaN"), "{error}");
    assert!(error.contains("of the model to train are not finite: the model is broken"), "{error}");
    workspace.edit("pipeline.yaml", "start: { policy: base,", "start: { policy: shape,");
    let error = workspace.fail(&["run", "pipeline.yaml"], 1);
    assert!(error.contains("not finite") && error.contains("the model's weights are broken"), "{error}");
    // A reference is blamed by name, and not the file that its logprobs would be written to.
    let row = json!({ "prompt_id": "p-00", "prompt": "upper a=", "chosen": "AB", "rejected": "C" });
    workspace.write("prefs.jsonl", &format!("{row}\n"));
    let text = "optune: 1\nname: offline\ninputs:\n  prefs: { table: prefs.jsonl }\n  broken: { model: broken }\nnodes:\n  \
                policy: { train: { from: broken, reference: broken, pairs: prefs, warmup_ratio: 0 } }\n";
    workspace.write("pipeline.yaml", text);
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(
        error.contains("policy_pairs: model ") && error.contains("broken: expected a finite logprob of a response to prompt p-00"),
        "{error}"
    );
    assert!(error.contains("found NaN: its weights ") && error.contains(" are not finite; the model is broken"), "{error}");
}
