//! Adapters of every kind that PEFT has: read, merged, written, refused, and trained in runs.

use std::fs;
use std::path::Path;

use optune::model::{AdapterConfig, Checkpoint, Dtype, Head, ModuleNames};
use serde_json::{Value, json};

use super::lora::{ids, made, tiny, workspace};
use crate::fixtures::files::copy_folder;
use crate::fixtures::models::{all_logits, blank_checkpoint, device, ids as rows, largest_difference, numbers, values};

/// An adapter of `tests/adapters/` on its base.
fn of_peft(name: &str) -> (tempfile::TempDir, Checkpoint, Value) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let folder = tests.join("adapters").join(name);
    let golden: Value = serde_json::from_str(&fs::read_to_string(folder.join("golden.json")).unwrap()).unwrap();
    let (base, blank) = (tempfile::tempdir().unwrap(), tests.join(golden["base"].as_str().unwrap()));
    blank_checkpoint(base.path(), false);
    copy_folder(&blank, base.path());
    let checkpoint = Checkpoint::open(base.path()).unwrap().with_adapter(&folder).unwrap_or_else(|error| panic!("{name}: {error}"));
    (base, checkpoint, golden)
}

/// The two numbers of a parameter in the golden files.
fn digest(values: &[f32]) -> [f64; 2] {
    let weighted = values.iter().enumerate().map(|(at, value)| f64::from(*value) * (at as f64).cos()).sum();
    [weighted, values.iter().map(|value| f64::from(value.abs())).sum()]
}

#[test]
fn every_kind_of_adapter_has_the_results_and_the_merged_weights_of_peft() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/adapters");
    let mut kinds: Vec<String> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    kinds.retain(|name| name != "tied_base");
    kinds.sort();
    assert!(kinds.len() >= 16, "{kinds:?}");
    for name in kinds {
        let (_base, checkpoint, golden) = of_peft(&name);
        let expected: Vec<f32> = numbers(&golden["results"]).into_iter().map(|result| result as f32).collect();
        let sequence = ids(&golden["ids"]);
        for (parameter, expected) in golden["merged"].as_object().unwrap() {
            let values = checkpoint.parameter(parameter).unwrap_or_else(|error| panic!("{name}: {error}"));
            let expected = numbers(expected);
            for (found, expected) in digest(&values).into_iter().zip(&expected) {
                assert!((found - expected).abs() < 2e-6 * (1.0 + values.len() as f64), "{name}: {parameter}: {found}, expected {expected}");
            }
        }
        if checkpoint.config.head == Head::Reward {
            let model = checkpoint.load_reward_model(&device()).unwrap();
            let found = values(model.rewards(rows(&[&sequence], &device()), &[sequence.len()]));
            assert!(largest_difference(&found, &expected) < 2e-5, "{name}: {found:?}, expected {expected:?}");
            continue;
        }
        let merged = all_logits(&checkpoint.load(&device()).unwrap(), &sequence);
        let beside = checkpoint.load_adapted(&device(), checkpoint.adapter().unwrap(), 0).unwrap();
        for found in [&merged, &all_logits(&beside, &sequence)] {
            assert!(largest_difference(found, &expected) < 2e-5, "{name}: {}", largest_difference(found, &expected));
        }

        // Written anew it is the same adapter, with the same bits.
        let folder = tempfile::tempdir().unwrap();
        let config = checkpoint.adapter().unwrap().clone();
        checkpoint.save_adapter(folder.path(), &config, &beside).unwrap();
        let (_base, again, _) = of_peft(&name);
        let again = again.with_adapter(folder.path()).unwrap();
        assert!(again.same_adapter(again.adapter().unwrap(), &config), "{name}");
        assert_eq!(all_logits(&again.load(&device()).unwrap(), &sequence), merged, "{name}");

        // Merged into its base it is a checkpoint of its own, tied or not.
        let folder = tempfile::tempdir().unwrap();
        checkpoint.export(folder.path(), Dtype::F32, u64::MAX).unwrap();
        let exported = Checkpoint::open(folder.path()).unwrap();
        assert_eq!(exported.config.tie_word_embeddings, name == "tied", "{name}");
        assert_eq!(all_logits(&exported.load(&device()).unwrap(), &sequence), merged, "{name}");
    }
}

#[test]
fn fresh_adapters_of_every_kind_add_nothing() {
    let (_folder, base) = tiny();
    let checkpoint = Checkpoint::open(&base).unwrap();
    let sequence: Vec<i32> = (1..30).collect();
    let expected = all_logits(&checkpoint.load(&device()).unwrap(), &sequence);
    let config = AdapterConfig {
        targets: ModuleNames::Pattern(r".*\.(q|up)_proj".to_string()),
        use_dora: true,
        use_rslora: true,
        rank_pattern: vec![("up_proj".to_string(), 2)],
        modules_to_save: vec!["embed_tokens".to_string(), "lm_head".to_string()],
        ..AdapterConfig::default()
    };
    let fresh = checkpoint.load_adapted(&device(), &config, 7).unwrap();
    assert!(largest_difference(&all_logits(&fresh, &sequence), &expected) < 1e-5);
    let up = fresh.model.layers[1].mlp.as_ref().unwrap().up_proj.adapter.as_ref().unwrap();
    assert_eq!((up.lora_a.val().dims(), up.magnitude.as_ref().unwrap().val().dims()), ([16, 2], [24]));
    // Two times q (8 of 16 and 16, and 16 magnitudes) and up (2 of 16 and 24, and 24), embedding
    // and logits.
    let count = 2 * (8 * 32 + 16 + 2 * 40 + 24) + 2 * 40 * 16;
    assert_eq!(checkpoint.adapter_parameter_count(&config), Ok(count));
}

#[test]
fn adapters_of_other_kinds_are_refused() {
    let (folder, base) = tiny();
    let adapter = folder.path().join("adapter");
    copy_folder(&made("tiny/adapter"), &adapter);
    let path = adapter.join("adapter_config.json");
    let text = fs::read_to_string(&path).unwrap();
    let refused = |key: &str, value: Value, said: &str| {
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config[key] = value;
        fs::write(&path, config.to_string()).unwrap();
        let error = Checkpoint::open(&base).unwrap().with_adapter(&adapter).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("adapter"), "expected {said:?} in: {error}");
    };
    refused("peft_type", json!("IA3"), "peft_type is \"IA3\"; supported: \"LORA\"");
    refused("task_type", json!("SEQ_2_SEQ_LM"), "task_type is \"SEQ_2_SEQ_LM\"; supported: \"CAUSAL_LM\", \"SEQ_CLS\"");
    refused("task_type", json!("SEQ_CLS"), "score.weight is missing");
    refused("bias", json!("all"), "bias is \"all\"; supported: \"none\"");
    refused("use_dora", json!(true), "layers.0.self_attn.q_proj.lora_magnitude_vector is missing");
    refused("use_dora", json!("yes"), "use_dora is \"yes\", expected true or false");
    refused("rank_pattern", json!({"q_proj": 8}), "q_proj.lora_A.weight has shape [4, 16], adapter_config.json asks for [8, 16]");
    refused("rank_pattern", json!({"q_proj": 0}), "rank_pattern: q_proj is 0, expected a whole number of at least 1");
    refused("rank_pattern", json!([8]), "rank_pattern is [8], expected an object");
    refused("rank_pattern", json!({"(q_proj": 8}), "rank_pattern: \"(q_proj\" is no regular expression that is supported");
    refused("alpha_pattern", json!({"q_proj": "8"}), "alpha_pattern: q_proj is \"8\", expected a number");
    refused("modules_to_save", json!(["lm_head"]), "base_model.model.lm_head.weight is missing");
    refused("modules_to_save", json!(["head_lm"]), "modules_to_save is head_lm, which are no modules of the base's");
    refused("modules_to_save", json!(["_proj"]), "q_proj is in target_modules and in modules_to_save");
    refused("modules_to_save", json!([1]), "modules_to_save is [1], expected a list of names");
    refused(
        "layers_to_transform",
        json!([0]),
        "layers.1.mlp.down_proj.lora_A.weight is not part of the model that adapter_config.json describes",
    );
    refused("layers_to_transform", json!(["0"]), "layers_to_transform is [\"0\"], expected numbers of layers");
    refused("lora_bias", json!(true), "lora_bias is true, which is not supported");
    refused("trainable_token_indices", json!([1]), "trainable_token_indices is [1], which is not supported");
    refused("something_new", json!(0.5), "something_new is 0.5");
    refused("init_lora_weights", json!("pissa"), "init_lora_weights is \"pissa\"");
    refused("target_modules", json!("q_.*"), "target_modules is \"q_.*\", which are no projections of the base's");
    refused("target_modules", json!("(q_proj"), "target_modules: \"(q_proj\" is no regular expression that is supported");
    refused("target_modules", json!(r".*self_attn.*"), "means model.layers.0.self_attn too; supported are the projections of the layers");
    refused("target_modules", json!(r".*mlp\..*"), "means model.layers.0.mlp.act_fn too");
    refused("target_modules", json!(7), "target_modules is 7, expected a list of names or a regular expression");
    refused("target_modules", json!(["qkv_proj"]), "no projections of the base");
    refused("target_modules", json!(["q_proj"]), "down_proj.lora_A.weight is not part of the model that adapter_config.json describes");
    refused("target_modules", json!(["lm_head"]), "means lm_head too");
    refused("r", json!(0), "r is 0, expected a whole number of at least 1");
    refused("r", json!(5), "has shape [4, 16], adapter_config.json asks for [5, 16]");
    refused("lora_alpha", json!("high"), "lora_alpha is \"high\", expected a number");
    refused("lora_dropout", json!(1.0), "lora_dropout is 1");
    fs::write(&path, &text).unwrap();
    // Its base is "." to the script. Here "." is the package, not a model.
    let error = Checkpoint::open(&adapter).unwrap_err().to_string();
    assert!(error.contains("config.json"), "{error}");
    let mut config: Value = serde_json::from_str(&text).unwrap();
    for (name, said) in [
        (json!("org/name"), "\"org/name\", expected a directory, or a model of the hub"),
        (json!("nowhere"), "\"nowhere\", expected a directory"),
        (Value::Null, "names no base_model_name_or_path"),
    ] {
        config["base_model_name_or_path"] = name;
        fs::write(&path, config.to_string()).unwrap();
        let error = Checkpoint::open(&adapter).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    config["base_model_name_or_path"] = json!(adapter);
    fs::write(&path, config.to_string()).unwrap();
    let error = Checkpoint::open(&adapter).unwrap_err().to_string();
    assert!(error.contains("which is an adapter too"), "{error}");
    fs::write(&path, &text).unwrap();
    fs::remove_file(adapter.join("adapter_model.safetensors")).unwrap();
    let error = Checkpoint::open(&base).unwrap().with_adapter(&adapter).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("adapter_model.safetensors"), "{error}");
}

#[test]
fn names_and_patterns_without_a_meaning_are_refused_before_anything_runs() {
    for (lora, said) in [
        ("target_modules: [q_proj, v_prj]", "target_modules: expected projections of the model, found \"v_prj\"; did you mean \"v_proj\"?"),
        ("target_modules: 'q_proj'", "target_modules is \"q_proj\", which are no projections"),
        ("target_modules: '.*(q_proj'", "target_modules: \".*(q_proj\" is no regular expression that is supported"),
        ("exclude_modules: [k_prj]", "exclude_modules: expected projections among those of target_modules, found k_prj"),
        ("exclude_modules: '.*'", "which are no projections of the base's"),
        (
            "target_modules: [q_proj], rank_pattern: { k_proj: 4 }",
            "rank_pattern: expected a name or a pattern of an adapted projection, found \"k_proj\"",
        ),
        ("alpha_pattern: { 'q_pr[': 4 }", "alpha_pattern: \"q_pr[\""),
        ("modules_to_save: [lm_hed]", "modules_to_save is lm_hed, which are no modules of the base's"),
        ("target_modules: [q_proj], modules_to_save: [layers]", "target_modules is q_proj, which are no projections"),
    ] {
        let workspace = workspace(lora);
        let error = workspace.fail(&["plan", "pipeline.yaml"], 2);
        assert!(error.contains("policy[1]: lora: ") && error.contains(said), "{lora}: expected {said:?} in: {error}");
    }
}

#[test]
fn a_run_trains_magnitudes_and_whole_modules_and_goes_on_with_them() {
    let lora = "rank: 4, use_dora: true, use_rslora: true, target_modules: '.*_proj', exclude_modules: [k_proj], \
                rank_pattern: { mlp.up_proj: 2 }, alpha_pattern: { q_proj: 8 }, modules_to_save: [embed_tokens]";
    let workspace = workspace(lora);
    workspace.succeed(&["run", "pipeline.yaml"]);
    workspace.succeed(&["export", "policy", "small", "alone", "--adapter"]);
    workspace.succeed(&["export", "policy", "small", "merged"]);
    let written: Value = serde_json::from_str(&fs::read_to_string(workspace.path("alone/adapter_config.json")).unwrap()).unwrap();
    for (key, value) in [
        ("use_dora", json!(true)),
        ("use_rslora", json!(true)),
        ("target_modules", json!(".*_proj")),
        ("exclude_modules", json!(["k_proj"])),
        ("rank_pattern", json!({"mlp.up_proj": 2})),
        ("alpha_pattern", json!({"q_proj": 8})),
        ("modules_to_save", json!(["embed_tokens"])),
    ] {
        assert_eq!(written[key], value, "{key}");
    }
    let logits = |name: &str| all_logits(&Checkpoint::open(&workspace.path(name)).unwrap().load(&device()).unwrap(), &[1, 5, 9, 30]);
    assert_eq!(logits("merged"), logits("alone"));
    // The first margin is 0 where the model is its reference, but for rounding.
    let first = "SELECT abs(reward_margin) < 1e-5 FROM policy_training WHERE step = 1 ORDER BY iteration";
    assert_eq!(workspace.query("small", first), "true\nfalse");
}
