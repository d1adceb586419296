//! The reward head: the scored position, its initial weights, and its files.

use std::fs;

use burn::tensor::Device;
use optune::compute::{Padding, RewardModel};
use optune::model::{Checkpoint, Head};
use optune::token_lists::TokenLists;
use serde_json::{Value, json};

use crate::fixtures::models::{blank, blank_checkpoint, device, ids, largest_difference, values};

const ROWS: [&[i32]; 4] = [&[1, 5, 6, 7, 8, 2], &[1, 9, 2], &[1, 30, 31, 2, 2], &[1]];

/// A policy with weights on disk, taken as the start of a reward model.
fn started(tied: bool, seed: u64) -> (tempfile::TempDir, Checkpoint) {
    let (folder, policy) = blank(tied);
    policy.save(folder.path(), &policy.init(&device(), 3)).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap().with_reward_head(seed);
    (folder, checkpoint)
}

fn rewards_of(model: &RewardModel, rows: &[usize], device: &Device) -> Vec<f32> {
    let sequences = TokenLists::from_rows(&ROWS.map(<[i32]>::to_vec)).unwrap();
    let lengths: Vec<usize> = rows.iter().map(|&row| ROWS[row].len()).collect();
    values(model.rewards(sequences.to_padded(rows, Padding::Right, device).unwrap(), &lengths))
}

#[test]
fn a_reward_is_that_of_the_last_real_token_in_any_batch_and_with_any_padding() {
    let (_folder, checkpoint) = started(false, 1);
    let device = device();
    let model = checkpoint.load_reward_model(&device).unwrap();
    let together = rewards_of(&model, &[0, 1, 2, 3], &device);
    for (row, reward) in together.iter().enumerate() {
        let alone = rewards_of(&model, &[row], &device);
        assert!(largest_difference(&alone, &[*reward]) < 1e-5, "row {row}");
        let padded: Vec<i32> = ROWS[row].iter().copied().chain([2, 17, 2, 0, 5, 9, 2]).collect();
        let padded = values(model.rewards(ids(&[&padded], &device), &[ROWS[row].len()]));
        assert!(largest_difference(&alone, &padded) < 1e-5, "row {row}");
    }
    assert!(together.iter().any(|reward| (reward - together[0]).abs() > 1e-3), "{together:?}");
    // The end token counts where the length includes it.
    let shorter = values(model.rewards(ids(&[ROWS[0]], &device), &[ROWS[0].len() - 1]));
    assert!((shorter[0] - together[0]).abs() > 1e-4);
}

#[test]
fn rewards_are_differentiable_in_every_weight_they_use() {
    for tied in [true, false] {
        let (_folder, checkpoint) = started(tied, 1);
        let device = device().autodiff();
        let model = checkpoint.load_reward_model(&device).unwrap();
        let gradients = model.rewards(ids(&[&ROWS[0][..3], ROWS[1]], &device), &[3, 3]).sum().backward();
        for weight in [
            model.score.weight.val(),
            model.model.embed_tokens.weight.val(),
            model.model.layers[0].self_attn.q_proj.as_ref().unwrap().weight.val(),
            model.model.layers[1].mlp.as_ref().unwrap().down_proj.weight.val(),
        ] {
            assert!(values(weight.grad(&gradients).expect("a gradient").abs().max()) > vec![0.0]);
        }
    }
}

#[test]
fn a_policy_starts_a_reward_model_with_its_weights_and_a_seeded_score() {
    for tied in [true, false] {
        let (folder, checkpoint) = started(tied, 1);
        let device = device();
        assert_eq!(checkpoint.config.head, Head::Reward);
        assert!(checkpoint.load(&device).unwrap_err().to_string().contains("config.json: expected a language model, found a reward model"));
        let policy = Checkpoint::open(folder.path()).unwrap();
        assert_eq!(policy.config.head, Head::CausalLm);
        let error = policy.load_reward_model(&device).unwrap_err().to_string();
        assert!(
            error.contains("config.json: expected a reward model, found a language model: architectures is [\"LlamaForCausalLM\"]"),
            "{error}"
        );

        let (model, language_model) = (checkpoint.load_reward_model(&device).unwrap(), policy.load(&device).unwrap());
        let up = |decoder: &optune::compute::Decoder| values(decoder.layers[1].mlp.as_ref().unwrap().up_proj.weight.val());
        assert_eq!(up(&model.model), up(&language_model.model));
        let score = |model: &RewardModel| values(model.score.weight.val());
        assert_eq!(score(&model), score(&started(tied, 1).1.load_reward_model(&device).unwrap()));
        assert_ne!(score(&model), score(&started(tied, 2).1.load_reward_model(&device).unwrap()));
        assert!(score(&model).iter().any(|weight| weight.abs() > 0.1) && score(&model).iter().all(|weight| weight.abs() < 1.0));

        let saved = tempfile::tempdir().unwrap();
        checkpoint.save_reward_model(saved.path(), &model).unwrap();
        let reopened = Checkpoint::open(saved.path()).unwrap();
        assert_eq!(reopened.config.head, Head::Reward);
        // A reward model is not given another score.
        let reopened = reopened.with_reward_head(9);
        let again = reopened.load_reward_model(&device).unwrap();
        assert_eq!(rewards_of(&again, &[0, 1, 2, 3], &device), rewards_of(&model, &[0, 1, 2, 3], &device));
        let config: Value = serde_json::from_slice(&fs::read(saved.path().join("config.json")).unwrap()).unwrap();
        assert_eq!(config["architectures"], json!(["LlamaForSequenceClassification"]));
        assert_eq!((&config["id2label"], &config["label2id"]), (&json!({"0": "LABEL_0"}), &json!({"LABEL_0": 0})));
        assert_eq!((&config["torch_dtype"], &config["pad_token_id"]), (&json!("float32"), &json!(1)));
    }
}

#[test]
fn padding_never_ends_a_conversation() {
    let (folder, _) = blank(true);
    let padding = |settings: Value| {
        fs::write(folder.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
        let checkpoint = Checkpoint::open_blank(folder.path()).unwrap();
        checkpoint.save(folder.path(), &checkpoint.init(&device(), 1)).unwrap();
        let started = Checkpoint::open(folder.path()).unwrap().with_reward_head(1);
        let saved = tempfile::tempdir().unwrap();
        started.save_reward_model(saved.path(), &started.load_reward_model(&device()).unwrap()).unwrap();
        serde_json::from_slice::<Value>(&fs::read(saved.path().join("config.json")).unwrap()).unwrap()["pad_token_id"].clone()
    };
    // The end token would.
    assert_eq!(padding(json!({"pad_token": {"content": "</s>"}})), json!(1));
    assert_eq!(padding(json!({"pad_token": {"content": "<unk>"}})), json!(0));
    assert_eq!(padding(json!({"unk_token": "<unk>"})), json!(0));
    assert_eq!(padding(json!({})), json!(1));
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    // Neither would an ordinary token do: texts end with it.
    for (before, after) in [(7, 1), (-1, 1), (2, 1), (0, 0)] {
        config["pad_token_id"] = json!(before);
        fs::write(&path, config.to_string()).unwrap();
        assert_eq!(padding(json!({"pad_token": "</s>"})), json!(after));
    }
}

#[test]
fn only_classifiers_with_one_label_are_reward_models() {
    let folder = tempfile::tempdir().unwrap();
    blank_checkpoint(folder.path(), true);
    let path = folder.path().join("config.json");
    let base: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let open = |changes: Value| {
        let mut config = base.clone();
        config["architectures"] = json!(["LlamaForSequenceClassification"]);
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        fs::write(&path, config.to_string()).unwrap();
        Checkpoint::open_blank(folder.path())
    };
    for changes in [json!({}), json!({"num_labels": 1}), json!({"id2label": {"0": "reward"}, "label2id": {"reward": 0}})] {
        assert_eq!(open(changes).unwrap().config.head, Head::Reward);
    }
    for (changes, found) in [(json!({"num_labels": 5}), 5), (json!({"id2label": {"0": "no", "1": "yes"}}), 2)] {
        let error = open(changes).unwrap_err().to_string();
        assert!(
            error.contains(&format!("config.json: expected a classifier with 1 label, its score being the reward; found {found}")),
            "{error}"
        );
    }
}
