//! Models refused by `plan`: with sequences beyond their positions, or with heads of no class in
//! transformers.

use std::fs;

use serde_json::{Value, json};

use crate::fixtures::preferences::offline;
use crate::fixtures::workspace::Workspace;

/// Changes settings of the model's shape.
fn shape(workspace: &Workspace, changes: &Value) {
    let path = workspace.path("shape/config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    fs::write(path, config.to_string()).unwrap();
}

/// Positions for so many tokens of the context of 64.
fn longrope(original: usize) -> Value {
    let (short, long) = (vec![1.0; 12], vec![2.0; 12]);
    let longrope =
        json!({"rope_type": "longrope", "short_factor": short, "long_factor": long, "original_max_position_embeddings": original});
    json!({"rope_scaling": longrope})
}

/// The reason for at most so many tokens.
fn reason(original: usize) -> String {
    format!("rope scaling of type longrope rotates all tokens of a batch by its longest sequence once that is beyond the {original} tokens")
}

#[test]
fn sequences_that_may_be_longer_than_longrope_holds_for_are_refused() {
    let workspace = Workspace::new();
    shape(&workspace, &longrope(32));
    let refused = |said: &str| {
        let error = workspace.fail(&["plan", "pipeline.yaml"], 2);
        assert!(error.contains(&format!("{said}; {}", reason(32))), "{error}");
    };
    refused("base: max_prompt_tokens and max_response_tokens together: expected at most 32 tokens, found 1024");
    workspace.edit("pipeline.yaml", "epochs: 3,", "epochs: 3, max_prompt_tokens: 16, max_response_tokens: 17,");
    refused("max_prompt_tokens and max_response_tokens together: expected at most 32 tokens, found 33");
    workspace.edit("pipeline.yaml", "max_response_tokens: 17,", "max_response_tokens: 16,");
    workspace.edit("pipeline.yaml", "responses_per_prompt: 3,", "responses_per_prompt: 3, max_prompt_tokens: 25,");
    // The responses of an evaluation too.
    refused("evaluation_baseline_responses: max_prompt_tokens and max_new_tokens together: expected at most 32 tokens, found 520");
    workspace.edit("pipeline.yaml", "reward: judge, max_new_tokens: 8", "reward: judge, max_prompt_tokens: 24, max_new_tokens: 8");
    refused("responses[1]: max_prompt_tokens and max_new_tokens together: expected at most 32 tokens, found 33");
    workspace.edit("pipeline.yaml", "max_prompt_tokens: 25,", "max_prompt_tokens: 24,");
    workspace.succeed(&["plan", "pipeline.yaml"]);
    // Plain positions hold for the whole context; a single row beyond it is an error of its own.
    workspace.edit("pipeline.yaml", "max_prompt_tokens: 24,", "max_prompt_tokens: 500,");
    shape(&workspace, &json!({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}));
    workspace.succeed(&["plan", "pipeline.yaml"]);
}

/// A workspace with a reward model from preferences.
fn judging(changes: &Value) -> Workspace {
    let workspace = offline(true);
    shape(&workspace, changes);
    let text = fs::read_to_string(workspace.path("pipeline.yaml")).unwrap();
    let (head, _) = text.split_once("  policy:").unwrap();
    let judge = "  judge: { reward_model: { from: base, preferences: prefs, max_tokens: 60, epochs: 1, batch_size: 4 } }\n";
    workspace.write("pipeline.yaml", &format!("{head}{judge}"));
    workspace
}

#[test]
fn a_reward_model_reads_no_longer_sequences_and_has_a_class_in_transformers() {
    let workspace = judging(&longrope(48));
    workspace.edit("pipeline.yaml", "epochs: 2, batch_size: 8", "epochs: 2, batch_size: 8, max_prompt_tokens: 16, max_response_tokens: 16");
    let error = workspace.fail(&["plan", "pipeline.yaml"], 2);
    assert!(error.contains(&format!("judge: max_tokens: expected at most 48 tokens, found 60; {}", reason(48))), "{error}");
    workspace.edit("pipeline.yaml", "max_tokens: 60", "max_tokens: 48");
    workspace.succeed(&["plan", "pipeline.yaml"]);

    let granite = json!({"architectures": ["GraniteForCausalLM"], "model_type": "granite"});
    let error = judging(&granite).fail(&["plan", "pipeline.yaml"], 2);
    let said = "config.json: Granite has no class for sequence classification in transformers, so it cannot be a reward model";
    assert!(error.contains("judge: ") && error.contains(said), "{error}");
}
