//! The engine for GPUs against the CPU's: of every family, whatever grows beside a response,
//! when logits are broken, and in training.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::{DType, Device};
use optune::compute::{CausalLm, DeviceChoice, GpuElement};
use optune::generation::{Generated, GenerationError, Generator, Penalties, Sampling};
use optune::model::{Checkpoint, Head};
use optune::token_lists::TokenLists;
use optune::training::loss::{Loss, Wpo};
use optune::training::{Decay, Objective, OptimizerConfig, Pair, Responses, Schedule, Settings, Trainer, response_logprobs};
use serde_json::json;

use crate::fixtures::families::goldens;

const EVERYTHING: Sampling = Sampling {
    temperature: 1.0,
    top_p: 1.0,
    top_k: 0,
    min_p: 0.0,
    penalties: Penalties::NONE,
    min_new_tokens: 0,
    max_new_tokens: 20,
    eos: Vec::new(),
    vocabulary_size: usize::MAX,
    max_total_tokens: 60,
};

/// The GPU of this build's runtime.
fn gpu() -> cubecl::Device {
    cubecl::Device::default()
}

fn elements() -> Vec<GpuElement> {
    // Other runtimes know no bf16.
    if cfg!(feature = "cuda") { vec![GpuElement::F32, GpuElement::Bf16] } else { vec![GpuElement::F32] }
}

fn seeds(prompts: usize, responses: u8) -> Vec<Vec<[u8; 32]>> {
    (0..prompts).map(|prompt| (0..responses).map(|response| [prompt as u8 + 100 * response; 32]).collect()).collect()
}

fn sample(engine: &Generator, prompts: &[Vec<i32>], sampling: &Sampling, batch_size: usize) -> Result<Generated, GenerationError> {
    let prompts = TokenLists::from_rows(prompts).unwrap();
    engine.generate(&prompts, &seeds(prompts.rows(), 4), sampling, batch_size, &mut |_| ControlFlow::Continue(()))
}

/// A model with sizes in multiples of the tensor cores' tiles, as real ones have.
fn even_model(folder: &Path) -> CausalLm {
    model(folder, true, true)
}

fn model(folder: &Path, is_even: bool, tied: bool) -> CausalLm {
    crate::fixtures::models::blank_checkpoint(folder, tied);
    if !is_even {
        return Checkpoint::open_blank(folder).unwrap().init(&Device::flex(), 5);
    }
    let path = folder.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (name, value) in [("vocab_size", 48), ("hidden_size", 64), ("intermediate_size", 96), ("head_dim", 16)] {
        config[name] = json!(value);
    }
    fs::write(path, config.to_string()).unwrap();
    Checkpoint::open_blank(folder).unwrap().init(&Device::flex(), 5)
}

#[test]
fn what_is_sampled_has_the_logprob_that_the_processor_finds() {
    for golden in goldens(Head::CausalLm) {
        let model = Checkpoint::open(&golden.folder).unwrap().load(&Device::flex()).unwrap();
        for element in elements() {
            let engine = Generator::on_gpu(model.clone(), &gpu(), element).unwrap();
            let generated = sample(&engine, &golden.rows, &EVERYTHING, 7).unwrap();
            let tokens: Vec<usize> =
                generated.sequences.lengths().zip(&generated.prompt_token_counts).map(|(all, prompt)| all - prompt).collect();
            let responses = Responses::new(generated.sequences, generated.prompt_token_counts).unwrap();
            let expected = response_logprobs(&model, &responses, &(0..tokens.len()).collect::<Vec<_>>(), 8).unwrap();
            let worst = expected
                .iter()
                .zip(&generated.logprobs)
                .zip(&tokens)
                .map(|((expected, found), tokens)| (expected - found).abs() / *tokens as f64);
            let worst = worst.fold(0.0, f64::max);
            // A GPU's matrix products may shorten f32 to 10 bits.
            let tolerance = if element == GpuElement::Bf16 { 0.05 } else { 0.005 };
            assert!(worst < tolerance, "{}, {element:?}: logprobs are {worst} a token off", golden.name);
        }
    }
}

#[test]
fn a_response_is_the_same_whatever_grows_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let model = even_model(folder.path());
    let prompts: Vec<Vec<i32>> = (1..12).map(|prompt| (0..prompt * 3 % 17 + 1).map(|at| (at * 7 + prompt) % 48).collect()).collect();
    for sampling in [Sampling { eos: vec![3, 11], ..EVERYTHING }, Sampling { top_p: 0.8, top_k: 20, eos: vec![3], ..EVERYTHING }] {
        for element in elements() {
            let of = |batch_size: usize, cache_bytes: usize| {
                let engine = Generator::on_gpu(model.clone(), &gpu(), element).unwrap().within(cache_bytes);
                let generated = sample(&engine, &prompts, &sampling, batch_size).unwrap();
                let ids: Vec<i32> = generated.sequences.clone().into_parts().0.to_vec();
                (
                    ids,
                    generated.sequences.lengths().collect::<Vec<_>>(),
                    generated.logprobs.iter().map(|logprob| logprob.to_bits()).collect::<Vec<_>>(),
                )
            };
            let alone = of(1, usize::MAX);
            for (batch_size, cache_bytes) in [(1, 1), (5, usize::MAX), (64, usize::MAX), (64, 1 << 14)] {
                let together = of(batch_size, cache_bytes);
                assert_eq!(alone.1, together.1, "{element:?}, {batch_size} at a time within {cache_bytes} bytes");
                // Products of f32 are a library's. It chooses its kernels by the sizes.
                if element == GpuElement::Bf16 {
                    assert!(alone == together, "{batch_size} at a time within {cache_bytes} bytes");
                }
            }
        }
    }
}

#[test]
fn logits_that_are_not_finite_are_an_error_that_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = even_model(folder.path());
    let norm = &mut model.model.norm.gamma;
    *norm = burn::module::Param::from_tensor(norm.val() * f32::INFINITY);
    let engine = Generator::on_gpu(model, &gpu(), GpuElement::F32).unwrap();
    match sample(&engine, &[vec![1, 2, 3]], &EVERYTHING, 4) {
        Err(GenerationError::Logits { row: 0, step: 0, token: 0, logit }) => assert!(!logit.is_finite()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn training_steps_are_the_processors() {
    let rule = OptimizerConfig::AdamW { beta_1: 0.9, beta_2: 0.99, eps: 1e-8, weight_decay: 0.1 };
    let schedule = Schedule { peak: 1e-3, decay: Decay::Constant, warmup_ratio: 0.0 };
    let settings =
        Settings { rule, schedule, gradient_limit: Some(0.5), micro_batch: 2, gradient_checkpointing: false, skip_non_finite: false };
    let gpu = DeviceChoice::Cuda.resolve().unwrap();
    // Its products are of bf16 where the GPU has it.
    let tolerance = if gpu.supports_dtype(DType::BF16) { 0.03 } else { 1e-4 };
    let rows: Vec<Vec<i32>> = (0..8).map(|row| (0..10 + row).map(|at| (at * 11 + row * 5) % 40).collect()).collect();
    let pair = |at: usize| Pair {
        chosen: at,
        rejected: at + 4,
        weight: 1.0,
        reference_logprob_chosen: -30.0,
        reference_logprob_rejected: -40.0,
        reward_gap: 1.0,
    };
    let pairs: Vec<Pair> = (0..4).map(pair).collect();
    // Sizes for tensor cores in tiles, and others.
    for (is_even, tied) in [(true, true), (true, false), (false, true), (false, false)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("saved");
        let model = model(folder.path(), is_even, tied);
        Checkpoint::open_blank(folder.path()).unwrap().save(&path, &model).unwrap();
        let steps = |device: &Device| -> Vec<f64> {
            let responses = Responses::new(TokenLists::from_rows(&rows).unwrap(), vec![4; 8]).unwrap();
            let load = || Checkpoint::open(&path).unwrap().load(device).unwrap();
            let mut found = response_logprobs(&load(), &responses, &[3, 0, 7], 2).unwrap();
            // Products without tiles are a library's. It chooses its kernels by the sizes.
            if *device == Device::flex() || (is_even && device.supports_dtype(DType::BF16)) {
                assert_eq!(response_logprobs(&load(), &responses, &[0, 1, 3, 5, 6, 7], 4).unwrap()[2], found[0]);
            }
            for wpo in [None, Some(Wpo { clip: None })] {
                let mut trainer = Trainer::new(load(), settings, 4).unwrap();
                let objective = Objective { loss: Loss::Dpo { beta: 0.1 }, wpo, optimism: None };
                let metrics = (0..4).map(|_| trainer.preference_step(&responses, &pairs, objective).unwrap());
                found.extend(metrics.flat_map(|metrics| [metrics.loss, metrics.gradient_norm]));
            }
            let mut trainer = Trainer::new(load(), settings, 4).unwrap();
            let metrics = (0..4).map(|_| trainer.supervised_step(&responses, &[0, 1, 5, 6]).unwrap());
            found.extend(metrics.flat_map(|metrics| [metrics.loss, metrics.gradient_norm]));
            found
        };
        let (expected, found) = (steps(&Device::flex()), steps(&gpu));
        for (expected, found) in expected.iter().zip(&found) {
            assert!((expected - found).abs() < tolerance * expected.abs(), "{found:?}, expected {expected:?}; even {is_even}, tied {tied}");
        }
    }
}
