//! Training against PyTorch's numbers, against itself with other batches, and across a stop.

use std::collections::BTreeMap;
use std::f64::consts::LN_2;
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use optune::compute::{CausalLm, Padding, Placement, Precision};
use optune::model::Checkpoint;
use optune::token_lists::TokenLists;
use optune::training::loss::{Loss, Optimism, PairLogprobs, Wpo};
use optune::training::{
    Decay, Objective, OptimizerConfig, Pair, Responses, Schedule, Settings, StepMetrics, Trainer, TrainingError, Unusable,
    response_logprobs,
};
use serde_json::Value;

use crate::fixtures::models::{blank_checkpoint, device};
use crate::fixtures::real_data::real;

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];
const ADAM_W: OptimizerConfig = OptimizerConfig::AdamW { beta_1: 0.9, beta_2: 0.999, eps: 1e-8, weight_decay: 0.01 };

fn settings(rule: OptimizerConfig, peak: f64, micro_batch: usize) -> Settings {
    let schedule = Schedule { peak, decay: Decay::Constant, warmup_ratio: 0.0 };
    Settings { rule, schedule, gradient_limit: None, micro_batch, gradient_checkpointing: false, skip_non_finite: false }
}

fn tiny_model(tied: bool, seed: u64) -> CausalLm {
    let folder = tempfile::tempdir().unwrap();
    blank_checkpoint(folder.path(), tied);
    Checkpoint::open_blank(folder.path()).unwrap().init(&device().autodiff(), seed)
}

/// Pseudo-random numbers, the same everywhere.
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }
}

/// `count` responses of 3 to 12 tokens to prompts of 1 to 4.
fn tiny_responses(count: usize) -> Responses {
    let mut noise = Noise(3);
    let prompts: Vec<usize> = (0..count).map(|_| 1 + noise.below(4)).collect();
    let mut row = |prompt: usize| (0..prompt + 3 + noise.below(10)).map(|_| noise.below(40) as i32).collect();
    let rows: Vec<Vec<i32>> = prompts.iter().map(|&prompt| row(prompt)).collect();
    Responses::new(TokenLists::from_rows(&rows).unwrap(), prompts).unwrap()
}

/// Pairs of neighbours, with `model` as the reference.
fn pairs(model: &CausalLm, responses: &Responses) -> Vec<Pair> {
    let rows: Vec<usize> = (0..responses.rows()).collect();
    let logprobs = response_logprobs(model, responses, &rows, rows.len()).unwrap();
    let pair = |(at, logprobs): (usize, &[f64])| Pair {
        chosen: 2 * at,
        rejected: 2 * at + 1,
        weight: 0.5 + at as f64,
        reference_logprob_chosen: logprobs[0],
        reference_logprob_rejected: logprobs[1],
        reward_gap: 1.0,
    };
    logprobs.chunks_exact(2).enumerate().map(pair).collect()
}

/// All weights, by the checkpoint's names.
#[derive(Default)]
pub struct Weights {
    path: Vec<String>,
    found: BTreeMap<String, Vec<f32>>,
}

impl Weights {
    pub fn of(model: &CausalLm) -> BTreeMap<String, Vec<f32>> {
        let mut weights = Self::default();
        model.visit(&mut weights);
        weights.found
    }
}

impl ModuleVisitor for Weights {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.insert(self.path.join(".").replace("gamma", "weight"), param.val().inner().into_data().iter().collect());
    }
}

#[track_caller]
fn assert_close(found: f64, expected: f64, relative: f64) {
    assert!((found - expected).abs() <= relative * expected.abs(), "{found}, expected {expected}");
}

#[test]
fn logprobs_do_not_depend_on_the_batch() {
    for (tied, precision) in [true, false].into_iter().flat_map(|tied| PRECISIONS.map(|precision| (tied, precision))) {
        let model = tiny_model(tied, 7).in_precision(precision);
        let responses = tiny_responses(7);
        let rows = [6, 0, 3, 1, 5, 2, 4];
        let together = response_logprobs(&model, &responses, &rows, 7).unwrap();
        let alone = response_logprobs(&model, &responses, &rows, 1).unwrap();
        assert_eq!(together, response_logprobs(&model, &responses, &rows, 7).unwrap());
        if device() == Device::flex() {
            assert_eq!(together, alone);
        }
        for (together, alone) in together.iter().zip(alone) {
            assert!(alone < 0.0);
            assert_close(*together, alone, 1e-5);
        }
    }
}

#[test]
fn an_empty_response_has_logprob_zero() {
    let sequences = TokenLists::from_rows(&[vec![1, 2], vec![3]]).unwrap();
    let responses = Responses::new(sequences, vec![2, 1]).unwrap();
    let mut trainer = Trainer::new(tiny_model(true, 7), settings(ADAM_W, 1e-3, 2), 1).unwrap();
    assert_eq!(response_logprobs(&trainer.model(), &responses, &[0, 1], 2).unwrap(), [0.0, 0.0]);
    let error = trainer.supervised_step(&responses, &[0, 1]).unwrap_err();
    assert_eq!(error.to_string(), "step 1: the batch has no response token, expected at least one");
}

#[test]
fn micro_batches_add_up_to_their_batch() {
    for (tied, precision) in [true, false].into_iter().flat_map(|tied| PRECISIONS.map(|precision| (tied, precision))) {
        let model = tiny_model(tied, 7).in_precision(precision);
        let responses = tiny_responses(14);
        // A reference other than the policy: pairs differ in more than their weight.
        let mut pairs = pairs(&model, &responses);
        pairs.iter_mut().for_each(|pair| pair.reference_logprob_chosen += pair.weight - 2.0);
        let whole = run(&model, &responses, &pairs, 7);
        for micro_batch in [1, 3] {
            let parts = run(&model, &responses, &pairs, micro_batch);
            if device() == Device::flex() {
                assert!(parts == whole, "other bits in micro-batches of {micro_batch}");
            }
            for (whole, parts) in whole.0.iter().zip(&parts.0) {
                assert_close(parts.loss, whole.loss, 1e-5);
                assert_close(parts.gradient_norm, whole.gradient_norm, 1e-5);
                assert_close(parts.kl.unwrap(), whole.kl.unwrap(), 1e-4);
                assert_eq!((parts.accuracy, parts.tokens), (whole.accuracy, whole.tokens));
            }
            for (name, weights) in &parts.1 {
                let differences = weights.iter().zip(&whole.1[name]).map(|(parts, whole)| (parts - whole).abs());
                assert!(differences.fold(0.0, f32::max) < 1e-5, "{name}");
            }
        }
    }

    fn run(model: &CausalLm, responses: &Responses, pairs: &[Pair], micro_batch: usize) -> (Vec<StepMetrics>, BTreeMap<String, Vec<f32>>) {
        let rms_prop = OptimizerConfig::RmsProp { alpha: 0.99, eps: 1e-2, weight_decay: 0.0 };
        let mut trainer = Trainer::new(model.clone(), settings(rms_prop, 1e-3, micro_batch), 4).unwrap();
        let rows: Vec<usize> = (0..responses.rows()).collect();
        let mut metrics: Vec<StepMetrics> =
            (0..2).map(|_| trainer.preference_step(responses, pairs, Loss::Dpo { beta: 0.1 }).unwrap()).collect();
        metrics.extend((0..2).map(|_| StepMetrics { kl: Some(0.0), ..trainer.supervised_step(responses, &rows).unwrap() }));
        (metrics, Weights::of(&trainer.model()))
    }
}

#[test]
fn the_first_loss_with_the_policy_as_reference_is_the_mean_weight_times_ln_2() {
    let model = tiny_model(true, 7);
    let responses = tiny_responses(6);
    let pairs = pairs(&model, &responses);
    let mut trainer = Trainer::new(model, settings(ADAM_W, 1e-3, 3), 1).unwrap();
    let metrics = trainer.preference_step(&responses, &pairs, Loss::Dpo { beta: 0.1 }).unwrap();
    assert_close(metrics.loss, 1.5 * LN_2, if device() == Device::flex() { 1e-15 } else { 1e-6 });
    assert!(metrics.kl.unwrap().abs() < 1e-5 && metrics.reward_margin.unwrap().abs() < 1e-6);
    assert_eq!((metrics.step, metrics.learning_rate, trainer.step()), (0, 1e-3, 1));
}

/// The mean over response tokens of log π(y_t) − log Σ_v π(v)², from logits.
fn alignment(model: &CausalLm, row: &[i32], prompt: usize) -> f64 {
    let tokens = TokenLists::from_rows(&[row.to_vec()]).unwrap().to_padded(&[0], Padding::Right, &device()).unwrap();
    let logits = model.logits(model.hidden(tokens, &Placement::right_padded(row.len(), &model.device()), None)).into_data();
    let logits: Vec<f64> = logits.iter::<f64>().collect();
    let vocabulary = logits.len() / row.len();
    let of_token = |at: usize| {
        let logits = &logits[(at - 1) * vocabulary..at * vocabulary];
        let log_sum = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        let probabilities = logits.iter().map(|logit| (logit - log_sum).exp());
        logits[row[at] as usize] - log_sum - probabilities.map(|p| p * p).sum::<f64>().ln()
    };
    (prompt..row.len()).map(of_token).sum::<f64>() / (row.len() - prompt) as f64
}

#[test]
fn pairs_count_as_much_as_the_policy_would_write_them_itself() {
    let model = tiny_model(true, 7);
    let rows: Vec<Vec<i32>> = vec![vec![1, 2, 3, 4, 5], vec![1, 2, 9, 9], vec![7, 8, 30, 31, 32, 33, 2], vec![7, 8, 5]];
    let responses = Responses::new(TokenLists::from_rows(&rows).unwrap(), vec![2; 4]).unwrap();
    let pairs = pairs(&model, &responses);
    let of_pair = |at: usize| (alignment(&model, &rows[2 * at], 2) + alignment(&model, &rows[2 * at + 1], 2)).exp();
    let factors = [of_pair(0), of_pair(1)];
    assert!((factors[0] - factors[1]).abs() > 1e-3, "{factors:?}");
    let middle = (factors[0] + factors[1]) / 2.0;
    for clip in [None, Some(middle)] {
        for micro_batch in [1, 2] {
            let mut trainer = Trainer::new(model.clone(), settings(ADAM_W, 1e-3, micro_batch), 1).unwrap();
            let objective = Objective { loss: Loss::Dpo { beta: 0.1 }, wpo: Some(Wpo { clip }), optimism: None };
            let metrics = trainer.preference_step(&responses, &pairs, objective).unwrap();
            // With the policy as reference a pair's loss is ln 2.
            let weights = factors.iter().zip(&pairs).map(|(factor, pair)| pair.weight * clip.map_or(*factor, |clip| factor.min(clip)));
            assert_close(metrics.loss, weights.sum::<f64>() / 2.0 * LN_2, 1e-5);
        }
    }
}

#[test]
fn preferences_and_responses_are_learned() {
    let model = tiny_model(true, 7);
    let responses = tiny_responses(8);
    let pairs = pairs(&model, &responses);
    let mut trainer = Trainer::new(model, settings(ADAM_W, 3e-3, 4), 40).unwrap();
    let steps: Vec<_> = (0..20).map(|_| trainer.preference_step(&responses, &pairs, Loss::Dpo { beta: 0.1 }).unwrap()).collect();
    assert!(steps[19].loss < 0.5 * steps[0].loss, "{:?}", steps[19]);
    assert_eq!(steps[19].accuracy, Some(1.0));
    let rows: Vec<usize> = (0..8).collect();
    let steps: Vec<_> = (0..20).map(|_| trainer.supervised_step(&responses, &rows).unwrap()).collect();
    assert!(steps[19].loss < 0.8 * steps[0].loss, "{:?}", steps[19]);
}

#[test]
fn a_restored_trainer_goes_on_as_one_that_never_stopped() {
    // The same bits are promised on the CPU only.
    if device() != Device::flex() {
        return;
    }
    let rms_prop = OptimizerConfig::RmsProp { alpha: 0.99, eps: 1e-8, weight_decay: 0.0 };
    for (rule, precision) in [(ADAM_W, Precision::F32), (rms_prop, Precision::F32), (ADAM_W, Precision::Bf16)] {
        let model = |seed: u64| tiny_model(false, seed).in_precision(precision);
        let schedule = Schedule { peak: 3e-3, decay: Decay::Cosine, warmup_ratio: 0.25 };
        let settings =
            Settings { rule, schedule, gradient_limit: Some(0.5), micro_batch: 3, gradient_checkpointing: false, skip_non_finite: false };
        let responses = tiny_responses(10);
        let pairs = pairs(&model(7), &responses);
        let mut trainer = Trainer::new(model(7), settings, 8).unwrap();
        for _ in 0..3 {
            trainer.preference_step(&responses, &pairs, Loss::Dpo { beta: 0.1 }).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        trainer.save_state(folder.path()).unwrap();
        let bytes = files(folder.path());
        trainer.save_state(folder.path()).unwrap();
        assert!(files(folder.path()) == bytes, "the same state was written as other bytes");

        // Another model of the same shape, with other parameter ids and weights.
        let mut restored = Trainer::load_state(folder.path(), model(8), settings, 8).unwrap();
        assert_eq!(restored.step(), 3);
        for _ in 3..8 {
            let metrics = trainer.preference_step(&responses, &pairs, Loss::Dpo { beta: 0.1 }).unwrap();
            assert_eq!(metrics, restored.preference_step(&responses, &pairs, Loss::Dpo { beta: 0.1 }).unwrap());
        }
        assert!(Weights::of(&trainer.model()) == Weights::of(&restored.model()));
        assert_eq!(trainer.model().precision(), precision);

        let error = Trainer::load_state(folder.path(), tiny_model(true, 7), settings, 8).unwrap_err();
        assert!(error.to_string().contains("tensor lm_head.weight belongs to no parameter of this model"), "{error}");
    }

    fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }
}

#[test]
fn a_diverged_step_is_an_error_and_changes_nothing() {
    let model = tiny_model(true, 7);
    let responses = tiny_responses(4);
    let mut pairs = pairs(&model, &responses);
    let mut trainer = Trainer::new(model, settings(ADAM_W, 1e-3, 4), 4).unwrap();
    trainer.preference_step(&responses, &pairs, Loss::Dpo { beta: 0.1 }).unwrap();
    let before = Weights::of(&trainer.model());
    pairs[1].weight = f64::NAN;
    let error = trainer.preference_step(&responses, &pairs, Loss::Dpo { beta: 0.1 }).unwrap_err();
    assert!(matches!(error, TrainingError::Diverged { step: 1, unusable: Unusable { quantity: "the loss", .. } }), "{error}");
    assert!(error.to_string().starts_with("step 2: the loss is NaN, expected a finite number"), "{error}");
    assert!(Weights::of(&trainer.model()) == before);
    assert_eq!(trainer.step(), 1);
}

#[test]
fn a_skipped_step_is_counted_and_leaves_weights_and_moments_as_they_were() {
    let responses = tiny_responses(4);
    let good = pairs(&tiny_model(true, 7), &responses);
    let mut bad = good.clone();
    bad[1].weight = f64::NAN;
    let skipping = Settings { skip_non_finite: true, ..settings(ADAM_W, 1e-3, 4) };
    let trainer = |settings| Trainer::new(tiny_model(true, 7), settings, 9).unwrap();
    let (mut plain, mut skipped) = (trainer(settings(ADAM_W, 1e-3, 4)), trainer(skipping));
    for pairs in [&good, &bad, &bad, &good] {
        let metrics = skipped.preference_step(&responses, pairs, Loss::Dpo { beta: 0.1 }).unwrap();
        match metrics.skipped {
            None => assert_eq!(
                StepMetrics { step: metrics.step, ..plain.preference_step(&responses, pairs, Loss::Dpo { beta: 0.1 }).unwrap() },
                metrics
            ),
            Some(unusable) => assert_eq!((unusable.quantity, unusable.value.is_nan()), ("the loss", true)),
        }
        assert!(Weights::of(&skipped.model()) == Weights::of(&plain.model()));
        // As it was saved, so it goes on.
        let folder = tempfile::tempdir().unwrap();
        skipped.save_state(folder.path()).unwrap();
        let restored = Trainer::load_state(folder.path(), tiny_model(true, 8), skipping, 9).unwrap();
        assert_eq!((restored.step(), restored.skipped()), (skipped.step(), skipped.skipped()));
        skipped = restored;
    }
    assert_eq!((skipped.step(), plain.step()), (4, 2));
    assert_eq!((skipped.skipped().count, skipped.skipped().in_a_row, skipped.broken_parameter()), (2, 0, None));
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let sequences = || TokenLists::from_rows(&[vec![1, 2, 3], vec![4, 5]]).unwrap();
    for (counts, expected) in [
        (vec![1], "1 prompt token counts, expected one for each of 2 responses"),
        (vec![1, 0], "response 1 has 0 prompt tokens, expected 1 to 2, its length"),
        (vec![4, 1], "response 0 has 4 prompt tokens, expected 1 to 3, its length"),
    ] {
        assert_eq!(Responses::new(sequences(), counts).unwrap_err().to_string(), expected);
    }
    let limited = Settings { gradient_limit: Some(0.0), ..settings(ADAM_W, 1e-3, 1) };
    let error = Trainer::new(tiny_model(true, 7), limited, 1).unwrap_err();
    assert_eq!(error.to_string(), "gradient_limit is 0, expected a number above 0");
    let responses = Responses::new(sequences(), vec![1, 1]).unwrap();
    let error = response_logprobs(&tiny_model(true, 7), &responses, &[0], 0).unwrap_err();
    assert_eq!(error.to_string(), "micro_batch is 0, expected at least 1");
    let error = response_logprobs(&tiny_model(true, 7), &responses, &[2], 1).unwrap_err();
    assert_eq!(error.to_string(), "sequences: row 2 does not exist, there are 2");
}

/// The oracle's numbers are from transformers in float64.
#[test]
fn losses_and_gradients_are_those_of_transformers() {
    let (Some(oracle), Some(stories)) = (real("golden/dpo_stories260K.json"), real("stories260K")) else { return };
    let oracle: Value = serde_json::from_str(&fs::read_to_string(oracle).unwrap()).unwrap();
    let reference = Checkpoint::open(&stories).unwrap().load(&device().autodiff()).unwrap();
    let mut policy = reference.clone();
    policy.model.norm.gamma = policy.model.norm.gamma.map(|gamma| (gamma.inner() * 1.05).autodiff().require_grad());

    let list = oracle["pairs"].as_array().unwrap();
    let number = |value: &Value, name: &str| value[name].as_f64().unwrap();
    let ids = |value: &Value| value.as_array().unwrap().iter().map(|id| id.as_i64().unwrap() as i32).collect::<Vec<i32>>();
    let rows: Vec<Vec<i32>> = list.iter().flat_map(|pair| [ids(&pair["chosen_ids"]), ids(&pair["rejected_ids"])]).collect();
    let prompts = list.iter().flat_map(|pair| [number(pair, "prompt_len") as usize; 2]).collect();
    let responses = Responses::new(TokenLists::from_rows(&rows).unwrap(), prompts).unwrap();
    let all: Vec<usize> = (0..rows.len()).collect();

    let mut pairs = pairs(&reference, &responses);
    let policy_logprobs = response_logprobs(&policy, &responses, &all, 3).unwrap();
    for (at, expected) in list.iter().enumerate() {
        assert_close(pairs[at].reference_logprob_chosen, number(expected, "ref_chosen"), 1e-4);
        assert_close(pairs[at].reference_logprob_rejected, number(expected, "ref_rejected"), 1e-4);
        assert_close(policy_logprobs[2 * at], number(expected, "pol_chosen"), 1e-4);
        assert_close(policy_logprobs[2 * at + 1], number(expected, "pol_rejected"), 1e-4);
    }

    let beta = number(&oracle, "beta");
    let step = |rule: OptimizerConfig, rate: f64, pairs: &[Pair]| {
        let mut trainer = Trainer::new(policy.clone(), settings(rule, rate, 3), 2).unwrap();
        let metrics = trainer.preference_step(&responses, pairs, Loss::Dpo { beta }).unwrap();
        (trainer, metrics)
    };
    // The oracle's weights are the gaps divided by their mean.
    let gaps: Vec<f64> = list.iter().map(|pair| number(pair, "reward_gap")).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    pairs.iter_mut().zip(&gaps).for_each(|(pair, gap)| pair.weight = gap / mean);
    let (_, metrics) = step(ADAM_W, 1e-4, &pairs);
    assert_close(metrics.loss, number(&oracle, "gap_weighted_loss"), 1e-4);
    assert_close(metrics.gradient_norm, number(&oracle, "grad_norm_weighted"), 1e-3);

    pairs.iter_mut().for_each(|pair| pair.weight = 1.0);
    let (mut trainer, metrics) = step(ADAM_W, 1e-4, &pairs);
    assert_close(metrics.loss, number(&oracle, "mean_loss"), 1e-4);
    assert_close(metrics.gradient_norm, number(&oracle, "grad_norm"), 1e-3);
    let second = trainer.preference_step(&responses, &pairs, Loss::Dpo { beta }).unwrap();
    assert_close(second.loss, number(&oracle, "mean_loss_after_adamw"), 1e-4);

    // With alpha = 1 and eps = 1, RMSprop is plain gradient descent: the change of the weights is
    // the gradient.
    let (trainer, _) = step(OptimizerConfig::RmsProp { alpha: 1.0, eps: 1.0, weight_decay: 0.0 }, 1.0, &pairs);
    let (before, after) = (Weights::of(&policy.valid()), Weights::of(&trainer.model()));
    let norms = oracle["grad_norms"].as_object().unwrap();
    assert_eq!(norms.keys().collect::<Vec<_>>().len(), before.len());
    for (name, expected) in norms {
        let changes = before[name].iter().zip(&after[name]).map(|(before, after)| f64::from(before - after).powi(2));
        assert_close(changes.sum::<f64>().sqrt(), expected.as_f64().unwrap(), 1e-3);
    }
}

/// The results of TRL's lines, or of the authors', and PyTorch's autodiff for random pairs, with
/// every loss; see `tests/python/losses.py`.
#[test]
fn losses_and_their_derivatives_are_those_of_trl() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/losses.json");
    let golden: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    let (beta, label_smoothing) = (number(&golden["beta"]), number(&golden["label_smoothing"]));
    let simpo = &golden["simpo"];
    let losses = [
        ("dpo", Loss::Dpo { beta }),
        ("ipo", Loss::Ipo { beta }),
        ("hinge", Loss::Hinge { beta }),
        ("robust", Loss::Robust { beta, label_smoothing }),
        ("simpo", Loss::Simpo { beta: number(&simpo["beta"]), gamma: number(&simpo["gamma"]) }),
        ("rebel", Loss::Rebel { beta }),
        ("rpo", Loss::Rpo { beta, gap_scale: number(&golden["gap_scale"]) }),
        ("optimism", Loss::Dpo { beta }),
    ];
    assert_eq!(golden["losses"].as_object().unwrap().len(), losses.len());
    let pairs = golden["pairs"].as_array().unwrap();
    assert!(pairs.len() > 10);
    for (name, loss) in losses {
        for (at, pair) in pairs.iter().enumerate() {
            let tokens = |which: usize| pair["tokens"][which].as_u64().unwrap() as usize;
            let logprobs = PairLogprobs {
                policy_chosen: number(&pair["policy"][0]),
                policy_rejected: number(&pair["policy"][1]),
                reference_chosen: number(&pair["reference"][0]),
                reference_rejected: number(&pair["reference"][1]),
                chosen_tokens: tokens(0),
                rejected_tokens: tokens(1),
                reward_gap: number(&pair["reward_gap"]),
            };
            let mut found = loss.of(&logprobs);
            if name == "optimism" {
                found = Optimism { alpha: number(&golden["alpha"]), beta }.added_to(found, &logprobs);
            }
            let expected = &golden["losses"][name];
            for (found, what) in [(found.loss, "loss"), (found.by_chosen, "by_chosen"), (found.by_rejected, "by_rejected")] {
                let expected = number(&expected[what][at]);
                assert!(
                    (found - expected).abs() <= 1e-12 * expected.abs().max(1.0),
                    "{name}, pair {at}: {what} {found}, expected {expected}"
                );
            }
            // What TRL logs as rewards/margins and rewards/accuracies.
            if !["rebel", "rpo", "optimism"].contains(&name) {
                let (margin, accuracy) = (number(&expected["margins"][at]), number(&expected["accuracies"][at]));
                assert!((found.margin - margin).abs() <= 1e-12 * margin.abs().max(1.0), "{name}, pair {at}: {} for {margin}", found.margin);
                assert_eq!(found.margin > 0.0, accuracy > 0.5, "{name}, pair {at}");
            }
        }
    }
}

#[test]
fn the_weight_by_the_policy_is_that_of_trl() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/losses.json");
    let golden: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let (pairs, wpo) = (golden["pairs"].as_array().unwrap(), &golden["wpo"]);
    for (at, pair) in pairs.iter().enumerate() {
        let number = |name: &str, which: usize| wpo[name][at][which].as_f64().unwrap();
        let tokens = |which: usize| pair["tokens"][which].as_u64().unwrap() as usize;
        let logprobs = PairLogprobs {
            policy_chosen: number("policy", 0),
            policy_rejected: number("policy", 1),
            reference_chosen: 0.0,
            reference_rejected: 0.0,
            chosen_tokens: tokens(0),
            rejected_tokens: tokens(1),
            reward_gap: 1.0,
        };
        let found = Wpo { clip: None }.weight(&logprobs, [0, 1].map(|which| number("collisions", which)));
        let expected = wpo["weights"][at].as_f64().unwrap();
        assert!((found - expected).abs() <= 1e-12 * expected, "pair {at}: {found}, expected {expected}");
        assert_eq!(Wpo { clip: Some(expected / 2.0) }.weight(&logprobs, [0, 1].map(|which| number("collisions", which))), expected / 2.0);
    }
}
