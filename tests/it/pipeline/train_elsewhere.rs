//! `train` with an engine: a program of the user's trains, here a script of `sh` that copies the
//! policy.

use std::fs;

use serde_json::{Value, json};

use crate::fixtures::workspace::{PIPELINE, Workspace};

/// Keeps what it is given, counts its calls, and copies the policy.
const TRAINER: &str = r#"set -eu
echo "$OPTUNE_NODE $OPTUNE_ITERATION $OPTUNE_SEED $OPTUNE_RUN $*" >> calls
printf '%s' "$OPTUNE_SETTINGS" > settings.json
rm -rf given
cp -r "$OPTUNE_INPUT_PAIRS" given
ls "$OPTUNE_WORK" > work
touch "$OPTUNE_WORK/checkpoint"
[ ! -e stop ] || exit 3
cp "$OPTUNE_INPUT_POLICY"/* "$OPTUNE_OUTPUT"
"#;

/// The settings of the training in [`PIPELINE`].
const TRAINED: &str = "optimizer: adamw, batch_size: 4, epochs: 2 }, resources: { checkpoint_every: 2 } }";

/// The pipeline of two iterations, trained by the script.
fn workspace(settings: &str) -> Workspace {
    let workspace = Workspace::new();
    workspace.write("trainer.sh", TRAINER);
    let engine = format!("optimizer: adamw, batch_size: 4, epochs: 2, {settings} }} }}");
    assert!(PIPELINE.contains(TRAINED));
    workspace.write("pipeline.yaml", &PIPELINE.replace(TRAINED, &engine));
    workspace
}

const ENGINE: &str = "engine: { command: [sh, trainer.sh, --fast], files: [trainer.sh] }";

fn calls(workspace: &Workspace) -> Vec<String> {
    fs::read_to_string(workspace.path("calls")).unwrap_or_default().lines().map(str::to_string).collect()
}

#[test]
fn a_program_trains_the_policy_of_the_loop() {
    let workspace = workspace(ENGINE);
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(calls(&workspace), ["policy 1 5 small --fast", "policy 2 5 small --fast"]);
    let weights = |model: &str| fs::read(workspace.path(&format!("runs/small/models/{model}/model.safetensors"))).unwrap();
    let base = weights("base");
    assert!(weights("policy/iteration=1") == base && weights("policy/iteration=2") == base);
    assert_eq!(workspace.query("small", "SELECT count(*) FROM evaluation"), "16");
    // The settings are those of the file, with every default.
    let settings: Value = serde_json::from_str(&fs::read_to_string(workspace.path("settings.json")).unwrap()).unwrap();
    let expected = json!({
        "loss": "dpo", "beta": 0.1, "learning_rate": 1e-3, "schedule": "linear", "warmup_ratio": 0.1, "epochs": 2, "batch_size": 4,
        "max_gradient_norm": 1.0, "optimizer": { "adamw": { "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0 } },
    });
    assert_eq!(settings, expected);
    // Nothing is left of the work and of sorting, and there is no table of a training that was not ours.
    let mut partial = workspace.path("runs/small/.partial").read_dir().unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(partial.next(), None);
    assert!(!workspace.path("runs/small/tables/policy_training").exists());
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(calls(&workspace).len(), 2);
    workspace.succeed(&["report", "small", "--output", "report.html"]);
    workspace.succeed(&["export", "policy", "small", "exported"]);
    assert!(workspace.path("exported/tokenizer.json").is_file());
    assert!(workspace.succeed(&["status", "small", "--verify"]).contains(", 0 damaged"));
}

#[test]
fn the_pairs_of_a_program_are_those_of_our_own_training() {
    let workspace = workspace(ENGINE);
    workspace.succeed(&["run", "pipeline.yaml"]);
    workspace.write(
        "given.yaml",
        "optune: 1\nname: given\ninputs:\n  given: { table: given/pairs.parquet }\nnodes:\n  every_pair: { sql: { query: \"SELECT * FROM given\" } }\n",
    );
    workspace.succeed(&["run", "given.yaml"]);
    let given = workspace.query(
        "given",
        "SELECT prompt_id, array_to_string(array_concat(prompt_ids, chosen_ids), ' '), array_to_string(array_concat(prompt_ids, rejected_ids), ' '), \
         array_length(prompt_ids), weight, reward_gap, reference_logprob_chosen, reference_logprob_rejected FROM every_pair ORDER BY prompt_id",
    );
    let ours = workspace.query(
        "small",
        "SELECT pairs.prompt_id, array_to_string(chosen.token_ids, ' '), array_to_string(rejected.token_ids, ' '), chosen.prompt_token_count, \
         weight, reward_gap, reference_logprob_chosen, reference_logprob_rejected FROM policy_pairs AS pairs \
         JOIN responses AS chosen ON chosen.prompt_id = pairs.prompt_id AND chosen.sampled_iteration = pairs.chosen_sampled_iteration \
           AND chosen.response_index = pairs.chosen_index \
         JOIN responses AS rejected ON rejected.prompt_id = pairs.prompt_id AND rejected.sampled_iteration = pairs.rejected_sampled_iteration \
           AND rejected.response_index = pairs.rejected_index WHERE pairs.iteration = 2 ORDER BY pairs.prompt_id",
    );
    assert!(given.lines().count() > 5, "{given}");
    assert_eq!(given, ours);
}

#[test]
fn a_failed_program_goes_on_with_the_files_of_its_work() {
    let workspace = workspace(ENGINE);
    workspace.write("stop", "");
    let said = workspace.fail(&["run", "pipeline.yaml"], 1);
    assert!(said.contains("policy[1]: the program sh ended with exit code 3; "), "{said}");
    fs::remove_file(workspace.path("stop")).unwrap();
    workspace.edit("pipeline.yaml", "iterations: 2", "iterations: 1");
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(fs::read_to_string(workspace.path("work")).unwrap(), "checkpoint\n");
    assert_eq!(calls(&workspace).len(), 2);
}

#[test]
fn what_changes_the_model_trains_again() {
    let workspace = workspace("engine: { command: [sh, trainer.sh], files: [trainer.sh], version: \"1\" }");
    workspace.edit("pipeline.yaml", "iterations: 2", "iterations: 1");
    workspace.succeed(&["run", "pipeline.yaml"]);
    let planned = || workspace.succeed(&["plan", "pipeline.yaml"]).lines().find(|line| line.starts_with("policy[1] ")).unwrap().to_string();
    assert!(planned().ends_with("done"), "{}", planned());
    for (from, to, expected) in [
        ("version: \"1\"", "version: \"2\"", "stale: engine was "),
        ("[sh, trainer.sh]", "[sh, trainer.sh, 3]", "stale: engine was "),
        ("epochs: 2, engine", "epochs: 1, engine", "stale: epochs was 2, is 1"),
        ("version: \"1\"", "version: \"1\", timeout_seconds: 60", "done"),
    ] {
        let before = fs::read_to_string(workspace.path("pipeline.yaml")).unwrap();
        workspace.edit("pipeline.yaml", from, to);
        assert!(planned().contains(expected), "{to}: {}", planned());
        workspace.write("pipeline.yaml", &before);
    }
    workspace.write("trainer.sh", &format!("{TRAINER}# changed\n"));
    assert!(planned().ends_with("stale: input files changed"), "{}", planned());
    workspace.edit("pipeline.yaml", ", files: [trainer.sh]", "");
    let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
    assert!(plan.contains("note: policy: trainer.sh is an argument, but its contents are not: name it in `files:`"), "{plan}");
}

#[test]
fn a_program_trains_on_given_preferences() {
    let workspace = Workspace::new();
    workspace.write("trainer.sh", TRAINER);
    let row = |word: &str| format!("{{\"prompt\": \"upper {word}=\", \"chosen\": \"{}\", \"rejected\": \"no\"}}\n", word.to_uppercase());
    workspace.write("preferences.jsonl", &["abc", "cab", "bca"].map(row).concat());
    workspace.write(
        "given.yaml",
        &format!(
            "optune: 1\nname: given\ninputs:\n  prompts: {{ table: prompts.jsonl }}\n  preferences: {{ table: preferences.jsonl }}\n  shape: {{ model: shape }}\n\
             nodes:\n  base: {{ sft: {{ from: shape, initialize: random, demonstrations: prompts, response: reference_answer, epochs: 1, batch_size: 8, learning_rate: 3.0e-3 }} }}\n  \
             tuned: {{ train: {{ from: base, reference: base, pairs: preferences, {ENGINE} }} }}\n"
        ),
    );
    workspace.succeed(&["run", "given.yaml"]);
    assert_eq!(calls(&workspace), ["tuned 0 0 given --fast"]);
    let given = optune::store::read_parquet(&workspace.path("given/pairs.parquet")).unwrap();
    assert_eq!(given.num_rows(), 3);
    assert!(given.columns().iter().all(|column| column.null_count() == 0));
    assert_eq!(workspace.query("given", "SELECT count(*) FROM tuned_pairs WHERE reference_logprob_chosen < 0"), "3");
    // A program that makes nothing is told what is missing.
    workspace.write("trainer.sh", "true\n");
    let said = workspace.fail(&["run", "given.yaml"], 1);
    assert!(said.contains("tuned: expected a model in ") && said.contains("the folder of OPTUNE_OUTPUT, found no files"), "{said}");
}
