//! Every family and both heads against Hugging Face's own numbers, on the tiny models of
//! `tests/python/families.py`.

use std::fs;
use std::path::Path;

use burn::tensor::Tensor;
use optune::compute::{CausalLm, Padding, Placement, RewardModel};
use optune::model::{Checkpoint, Head};
use optune::token_lists::TokenLists;
use serde_json::{Value, json};

use crate::fixtures::export_folder::export_folder;
use crate::fixtures::families::goldens;
use crate::fixtures::models::{device, ids, largest_difference, values};

const TOLERANCE: f32 = 1e-4;
const BATCH_TOLERANCE: f32 = 1e-5;

/// `[rows * length * vocabulary]`: the logits of all positions of a right-padded batch.
fn right_padded_logits(model: &CausalLm, sequences: &TokenLists, rows: &[usize]) -> (Vec<f32>, usize) {
    let tokens = sequences.to_padded(rows, Padding::Right, &model.device()).unwrap();
    let length = tokens.dims()[1];
    let placement = Placement::right_padded(length, &model.device());
    (values(model.logits(model.hidden(tokens, &placement, None))), length)
}

#[test]
fn logits_of_ragged_batches_are_those_of_transformers() {
    for golden in goldens(Head::CausalLm) {
        let checkpoint = Checkpoint::open(&golden.folder).unwrap();
        let model = checkpoint.load(&device()).unwrap();
        let vocabulary = checkpoint.config.vocab_size;
        let all: Vec<usize> = (0..golden.rows.len()).collect();
        let (logits, length) = right_padded_logits(&model, &golden.sequences(), &all);
        let mut largest: f32 = 0.0;
        for (row, expected) in golden.results.iter().enumerate() {
            largest = largest.max(largest_difference(&logits[row * length * vocabulary..][..expected.len()], expected));
        }
        eprintln!("{}: largest difference of a logit {largest:.1e}", golden.name);
        assert!(largest < TOLERANCE, "{}: {largest}", golden.name);
    }
}

#[test]
fn logits_through_the_cache_are_those_of_transformers() {
    for golden in goldens(Head::CausalLm) {
        let checkpoint = Checkpoint::open(&golden.folder).unwrap();
        let (device, vocabulary) = (device(), checkpoint.config.vocab_size);
        let model = checkpoint.load(&device).unwrap();
        // Prompts of different lengths, left-padded; then one token a row at a time.
        let starts: Vec<usize> = golden.rows.iter().map(|row| row.len().div_ceil(2)).collect();
        let prompts: Vec<Vec<i32>> = golden.rows.iter().zip(&starts).map(|(row, start)| row[..*start].to_vec()).collect();
        let prompts = TokenLists::from_rows(&prompts).unwrap();
        let longest = *starts.iter().max().unwrap();
        let padding: Vec<usize> = starts.iter().map(|start| longest - start).collect();
        let all: Vec<usize> = (0..golden.rows.len()).collect();
        let mut cache = model.new_cache();
        let tokens = prompts.to_padded(&all, Padding::Left, &device).unwrap();
        let logits = values(model.logits(model.hidden(tokens, &Placement::left_padded(&starts, &device), Some(&mut cache))));
        let mut largest: f32 = 0.0;
        for (row, expected) in golden.results.iter().enumerate() {
            let found = &logits[(row * longest + padding[row]) * vocabulary..][..starts[row] * vocabulary];
            largest = largest.max(largest_difference(found, &expected[..found.len()]));
        }
        let steps = golden.rows.iter().zip(&starts).map(|(row, start)| row.len() - start).max().unwrap();
        for step in 0..steps {
            // A finished row goes on with any token.
            let next: Vec<[i32; 1]> =
                golden.rows.iter().zip(&starts).map(|(row, start)| [row.get(start + step).copied().unwrap_or(0)]).collect();
            let next: Vec<&[i32]> = next.iter().map(<[i32; 1]>::as_slice).collect();
            let placement = Placement::next(&padding, cache.length(), &device);
            let logits = values(model.logits(model.hidden(ids(&next, &device), &placement, Some(&mut cache))));
            for (row, expected) in golden.results.iter().enumerate() {
                if let Some(expected) = expected.get((starts[row] + step) * vocabulary..).filter(|expected| !expected.is_empty()) {
                    largest = largest.max(largest_difference(&logits[row * vocabulary..][..vocabulary], &expected[..vocabulary]));
                }
            }
        }
        eprintln!("{}: largest difference of a logit through the cache {largest:.1e}", golden.name);
        assert!(largest < TOLERANCE, "{}: {largest}", golden.name);
    }
}

/// A single row decoded without any padding takes the way without a mask, until a window bites.
#[test]
fn one_row_token_by_token_is_that_of_transformers() {
    for golden in goldens(Head::CausalLm) {
        let checkpoint = Checkpoint::open(&golden.folder).unwrap();
        let (device, vocabulary) = (device(), checkpoint.config.vocab_size);
        let model = checkpoint.load(&device).unwrap();
        let (row, expected) = (&golden.rows[0], &golden.results[0]);
        let mut cache = model.new_cache();
        for (at, token) in row.iter().enumerate() {
            let placement = Placement::next(&[0], at, &device);
            let logits = values(model.logits(model.hidden(ids(&[&[*token]], &device), &placement, Some(&mut cache))));
            let largest = largest_difference(&logits, &expected[at * vocabulary..][..vocabulary]);
            assert!(largest < TOLERANCE, "{} at {at}: {largest}", golden.name);
        }
    }
}

fn rewards_of(model: &RewardModel, sequences: &TokenLists, rows: &[usize]) -> Vec<f32> {
    let lengths: Vec<usize> = rows.iter().map(|&row| sequences.length(row)).collect();
    values(model.rewards(sequences.to_padded(rows, Padding::Right, &model.device()).unwrap(), &lengths))
}

#[test]
fn rewards_of_ragged_batches_are_those_of_transformers() {
    for golden in goldens(Head::Reward) {
        let model = Checkpoint::open(&golden.folder).unwrap().load_reward_model(&device()).unwrap();
        let all: Vec<usize> = (0..golden.rows.len()).collect();
        let rewards = rewards_of(&model, &golden.sequences(), &all);
        let largest = largest_difference(&rewards, &golden.results.concat());
        eprintln!("{}: largest difference of a reward {largest:.1e}", golden.name);
        assert!(largest < TOLERANCE, "{}: {largest}", golden.name);
    }
}

#[test]
fn a_row_alone_is_the_same_row_among_sixteen() {
    let device = device();
    for golden in goldens(Head::CausalLm) {
        let checkpoint = Checkpoint::open(&golden.folder).unwrap();
        let model = checkpoint.load(&device).unwrap();
        let sequences = golden.sequences();
        let sixteen: Vec<usize> = (0..16).map(|row| row % golden.rows.len()).collect();
        let (together, length) = right_padded_logits(&model, &sequences, &sixteen);
        for (place, &row) in sixteen.iter().enumerate() {
            let (alone, _) = right_padded_logits(&model, &sequences, &[row]);
            let found = &together[place * length * checkpoint.config.vocab_size..][..alone.len()];
            assert!(largest_difference(found, &alone) < BATCH_TOLERANCE, "{} row {row}", golden.name);
        }
    }
    for golden in goldens(Head::Reward) {
        let model = Checkpoint::open(&golden.folder).unwrap().load_reward_model(&device).unwrap();
        let sequences = golden.sequences();
        let sixteen: Vec<usize> = (0..16).map(|row| row % golden.rows.len()).collect();
        let together = rewards_of(&model, &sequences, &sixteen);
        for (reward, &row) in together.iter().zip(&sixteen) {
            assert!(largest_difference(&[*reward], &rewards_of(&model, &sequences, &[row])) < BATCH_TOLERANCE, "{} row {row}", golden.name);
        }
    }
}

#[test]
fn every_weight_of_every_family_gets_a_gradient() {
    let device = device().autodiff();
    for golden in goldens(Head::Reward) {
        let model = Checkpoint::open(&golden.folder).unwrap().load_reward_model(&device).unwrap();
        let sequences = golden.sequences();
        let tokens = sequences.to_padded(&[0, 4], Padding::Right, &device).unwrap();
        let gradients = model.rewards(tokens, &[13, 10]).sum().backward();
        let reached = |weight: Tensor<1>| weight.grad(&gradients).is_some_and(|gradient| values(gradient.abs().max())[0] > 0.0);
        for (at, layer) in model.model.layers.iter().enumerate() {
            let attention = &layer.self_attn;
            let around = [&layer.input_layernorm, &layer.pre_feedforward_layernorm, &layer.post_feedforward_layernorm];
            let norms = [&attention.q_norm, &attention.k_norm].into_iter().chain(around).flatten();
            let norms = norms.chain([&layer.post_attention_layernorm]).map(|norm| norm.gamma.val());
            // A bias of keys adds the same to all scores of a query, so its gradient is 0 but for
            // rounding.
            let inputs = [&attention.q_proj, &attention.v_proj, &attention.qkv_proj].into_iter().flatten();
            let mlp = layer.mlp.iter().flat_map(|mlp| [&mlp.gate_proj, &mlp.down_proj]);
            let projections = inputs.chain([&attention.o_proj]).chain(mlp);
            let biases = projections.filter_map(|projection| projection.bias.as_ref().map(|bias| bias.val()));
            for (number, weight) in norms.chain(biases).enumerate() {
                assert!(reached(weight), "{}: layer {at}, vector {number}", golden.name);
            }
        }
    }
}

#[test]
fn saved_models_are_what_was_loaded() {
    let device = device();
    for golden in goldens(Head::CausalLm) {
        let checkpoint = Checkpoint::open(&golden.folder).unwrap();
        let saved = tempfile::tempdir().unwrap();
        checkpoint.save(saved.path(), &checkpoint.load(&device).unwrap()).unwrap();
        let reopened = Checkpoint::open(saved.path()).unwrap();
        assert_eq!(reopened.config, checkpoint.config, "{}", golden.name);
        let logits = |checkpoint: &Checkpoint| right_padded_logits(&checkpoint.load(&device).unwrap(), &golden.sequences(), &[0, 2]).0;
        assert_eq!(logits(&reopened), logits(&checkpoint), "{}", golden.name);
    }
}

/// Saves the models, and policies as they start as reward models, for
/// `tests/python/export_parity.py` into the folder of `OPTUNE_EXPORT_DIR`.
#[test]
fn models_of_every_family_are_exported() {
    let Some(folder) = export_folder() else { return };
    let device = device();
    let write = |name: &str, parity: Value| fs::write(Path::new(&folder).join(name).join("parity.json"), parity.to_string()).unwrap();
    let reward = |name: &str, checkpoint: &Checkpoint, row: &[i32]| {
        let model = checkpoint.load_reward_model(&device).unwrap();
        checkpoint.save_reward_model(&Path::new(&folder).join(name), &model).unwrap();
        write(name, json!({"token_ids": row, "reward": values(model.rewards(ids(&[row], &device), &[row.len()]))[0]}));
    };
    for golden in goldens(Head::CausalLm) {
        let checkpoint = Checkpoint::open(&golden.folder).unwrap();
        let model = checkpoint.load(&device).unwrap();
        checkpoint.save(&Path::new(&folder).join(&golden.name), &model).unwrap();
        let (logits, _) = right_padded_logits(&model, &golden.sequences(), &[0]);
        let logits: Vec<&[f32]> = logits.chunks(checkpoint.config.vocab_size).collect();
        write(&golden.name, json!({"token_ids": golden.rows[0], "logits": logits}));
        if checkpoint.check_reward_head().is_err() {
            continue;
        }
        // Not with the end token at last: it pads here, and transformers would pass over it.
        reward(&format!("{}_as_reward", golden.name), &checkpoint.with_reward_head(5), &golden.rows[0]);
    }
    for golden in goldens(Head::Reward) {
        reward(&golden.name, &Checkpoint::open(&golden.folder).unwrap(), &golden.rows[0]);
    }
}
