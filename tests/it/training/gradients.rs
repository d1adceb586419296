//! Gradients of our own kernels, against burn's autodiff on the CPU, and against themselves in
//! other pieces and on other threads.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Gradients, Int, Tensor};
use optune::compute::cpu::kernels::Memory;
use optune::compute::{CausalLm, CpuGradients, CpuTraining, CpuWeights, Placement, Precision, PrefixGroup, RewardModel};
use optune::model::{AdapterConfig, Checkpoint, Head, ModuleNames};

use crate::fixtures::families::goldens;
use crate::fixtures::models::{blank, ids, values};

type Numbers = BTreeMap<String, Vec<f32>>;

/// The tiny models of every family with this head.
fn families(head: Head) -> Vec<(String, PathBuf)> {
    goldens(head).into_iter().map(|golden| (golden.name, golden.folder)).collect()
}

fn in_all_precisions((name, folder): (String, PathBuf)) -> [(String, PathBuf, Precision); 2] {
    PRECISIONS.map(|precision| (name.clone(), folder.clone(), precision))
}

/// The gradients of autodiff, by our names.
struct Reached<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    found: Numbers,
}

impl ModuleVisitor for Reached<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            self.found.insert(self.path.join("."), values(gradient));
        }
    }
}

fn reached(model: &impl Module, gradients: &Gradients) -> Numbers {
    let mut reached = Reached { path: Vec::new(), gradients, found: Numbers::new() };
    model.visit(&mut reached);
    reached.found
}

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

#[track_caller]
fn assert_same(precision: Precision, name: &str, found: &Numbers, expected: &Numbers) {
    match precision {
        Precision::F32 => assert_within(1e-4, name, found, expected),
        Precision::Bf16 => assert_near(0.02, name, found, expected),
    }
}

/// Asserts that all gradients together differ by at most this share of their length: a number
/// between two bf16 is rounded either way by sums in another order, and what follows with it.
#[track_caller]
fn assert_near(tolerance: f64, name: &str, found: &Numbers, expected: &Numbers) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name}");
    let relative = distance(found, expected);
    assert!(relative < tolerance, "{name}: gradients differ by {relative:e} of their length");
    eprintln!("{name} in bf16: gradients differ by {relative:.1e} of their length");
}

/// The length of the difference of all numbers, as a share of the length of those expected.
fn distance(found: &Numbers, expected: &Numbers) -> f64 {
    let squares = |numbers: &mut dyn Iterator<Item = f32>| numbers.map(|number| f64::from(number).powi(2)).sum::<f64>();
    let differences = found.iter().flat_map(|(name, found)| found.iter().zip(&expected[name]).map(|(found, expected)| found - expected));
    (squares(&mut { differences }) / squares(&mut expected.values().flatten().copied())).sqrt()
}

/// Asserts that gradients differ by at most this share of the parameter's largest one.
#[track_caller]
fn assert_within(tolerance: f32, name: &str, found: &Numbers, expected: &Numbers) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name}");
    let largest = |numbers: &[f32]| numbers.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
    let of_all = expected.values().map(|numbers| largest(numbers)).fold(0.0, f32::max);
    let mut worst = 0.0_f32;
    for (parameter, expected) in expected {
        let found = &found[parameter];
        assert_eq!(found.len(), expected.len(), "{name}: {parameter}");
        let differences: Vec<f32> = found.iter().zip(expected).map(|(found, expected)| found - expected).collect();
        // A bias of keys adds the same to all scores of a query without rotation, so its gradient
        // is 0 but for rounding.
        let least = if parameter.ends_with("k_proj.bias") { 1e-2 } else { 1e-4 };
        let relative = largest(&differences) / largest(expected).max(least * of_all);
        assert!(relative < tolerance, "{name}: {parameter} differs by {relative:e} of its largest");
        worst = worst.max(relative);
    }
    eprintln!("{name}: gradients differ by {worst:.1e} of their largest");
}

/// Two groups of two sequences, and a single one: longer than a block of keys, than a window, and
/// short.
fn sequences() -> Vec<Vec<Vec<i32>>> {
    let ids = |seed: usize, length: usize| (0..length).map(move |at| ((at * at * 7 + at * 3 + seed * 11) % 40) as i32);
    let two = |seed: usize, shared: usize, lengths: [usize; 2]| {
        let branch = |number: usize| ids(seed, shared).chain([number as i32]).chain(ids(seed + number, lengths[number] - 1)).collect();
        vec![branch(0), branch(1)]
    };
    vec![two(1, 70, [80, 9]), two(2, 3, [1, 20]), vec![ids(3, 37).collect()]]
}

/// The number of prompt tokens in each sequence. In the first group it is smaller than the shared
/// prefix.
fn prompts() -> Vec<Vec<usize>> {
    vec![vec![60, 65], vec![3, 3], vec![30]]
}

const DERIVATIVES: [[f64; 2]; 3] = [[-0.8, 0.3], [0.5, -0.25], [1.0, 0.0]];

fn shared(sequences: &[Vec<Vec<i32>>]) -> Vec<PrefixGroup<'_>> {
    let rows = sequences.iter().map(|rows| rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
    rows.enumerate().map(|(item, rows)| PrefixGroup::new(item as u64, &rows)).collect()
}

fn training_of(model: &CausalLm, checkpointing: bool) -> CpuTraining {
    CpuTraining::from_causal_lm(model, &CpuWeights::from_model(model).unwrap(), checkpointing, &Memory::default()).unwrap()
}

fn numbers(gradients: CpuGradients) -> Numbers {
    gradients.into_parameters().into_iter().map(|(name, gradient)| (name, gradient.to_vec())).collect()
}

fn ours(training: &CpuTraining, step: Option<u64>) -> (Vec<Vec<f64>>, Numbers) {
    let (mut logprobs, mut gradients) = (Vec::new(), CpuGradients::default());
    let derivative = |at: usize, found: &[f64], _: &[f64]| {
        logprobs.push(found.to_vec());
        DERIVATIVES[at][..found.len()].to_vec()
    };
    training.logprobs_and_back(&shared(&sequences()), &prompts(), step, false, &mut gradients, derivative).unwrap();
    (logprobs, numbers(gradients))
}

fn autodiff_of_logprobs(model: &CausalLm) -> (Vec<Vec<f64>>, Numbers) {
    let mut logprobs = Vec::new();
    let mut sum: Option<Tensor<1>> = None;
    for ((rows, prompts), derivatives) in sequences().iter().zip(prompts()).zip(DERIVATIVES) {
        let mut of_family = Vec::new();
        for ((row, prompt), derivative) in rows.iter().zip(prompts).zip(derivatives) {
            let device = model.device();
            let tokens = ids(&[row], &device.clone().inner());
            let hidden = model.hidden(tokens.clone(), &Placement::right_padded(row.len(), &device.inner()), None);
            let [_, _, hidden_size] = hidden.dims();
            let hidden = hidden.reshape([row.len(), hidden_size]).narrow(0, prompt - 1, row.len() - prompt);
            let targets: Tensor<2, Int> = tokens.narrow(1, prompt, row.len() - prompt).transpose();
            let logprob = log_softmax(model.logits(hidden), 1).gather(1, targets).sum();
            of_family.push(f64::from(values(logprob.clone())[0]));
            let term = logprob * derivative;
            sum = Some(match sum {
                Some(sum) => sum + term,
                None => term,
            });
        }
        logprobs.push(of_family);
    }
    (logprobs, reached(model, &sum.unwrap().backward()))
}

#[track_caller]
fn assert_logprobs(precision: Precision, name: &str, found: &[Vec<f64>], expected: &[Vec<f64>]) {
    let tolerance = if precision == Precision::F32 { 1e-5 } else { 2e-3 };
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() < tolerance * expected.abs(), "{name}: {found}, expected {expected}");
    }
}

#[test]
fn gradients_of_logprobs_are_those_of_autodiff_in_every_family() {
    let device = Device::flex().autodiff();
    for (name, folder, precision) in families(Head::CausalLm).into_iter().flat_map(in_all_precisions) {
        let model = Checkpoint::open(&folder).unwrap().load(&device).unwrap().in_precision(precision);
        let (expected_logprobs, expected) = autodiff_of_logprobs(&model);
        let training = training_of(&model, false);
        let (logprobs, found) = ours(&training, None);
        assert_logprobs(precision, &name, &logprobs, &expected_logprobs);
        assert_same(precision, &name, &found, &expected);
        // Without a backward pass they are the same bits, also where nothing is shared.
        assert_eq!(training.logprobs(&shared(&sequences()), &prompts()).unwrap(), logprobs, "{name}");
        let all = sequences();
        let alone: Vec<PrefixGroup> = all.iter().flatten().map(|row| PrefixGroup::new(0, &[row])).collect();
        let prompts: Vec<Vec<usize>> = prompts().concat().into_iter().map(|prompt| vec![prompt]).collect();
        assert_eq!(training.logprobs(&alone, &prompts).unwrap().concat(), logprobs.concat(), "{name}");
    }
    for (tied, precision) in [true, false].into_iter().flat_map(|tied| PRECISIONS.map(|precision| (tied, precision))) {
        let model = blank(tied).1.init(&device, 5).in_precision(precision);
        let (logprobs, expected) = autodiff_of_logprobs(&model);
        let found = ours(&training_of(&model, false), None);
        assert_logprobs(precision, "blank", &found.0, &logprobs);
        assert_same(precision, "blank", &found.1, &expected);
    }
}

#[test]
fn gradients_of_scores_are_those_of_autodiff_in_every_family() {
    let device = Device::flex().autodiff();
    for (name, folder, precision) in families(Head::Reward).into_iter().flat_map(in_all_precisions) {
        let model: RewardModel = Checkpoint::open(&folder).unwrap().load_reward_model(&device).unwrap().in_precision(precision);
        let rows = sequences().concat();
        let derivatives = [0.5_f64, -1.0, 0.25, 2.0, -0.75];
        let mut expected = Vec::new();
        let terms = rows.iter().zip(derivatives).map(|(row, derivative)| {
            let reward = model.rewards(ids(&[row], &Device::flex()), &[row.len()]);
            expected.push(values(reward.clone())[0]);
            reward * derivative
        });
        let sum = terms.reduce(|sum, term| sum + term).unwrap();
        let gradients = reached(&model, &sum.backward());
        let training = CpuTraining::from_reward_model(&model, &CpuWeights::from_model(&model).unwrap(), false, &Memory::default()).unwrap();
        let (mut scores, mut found) = (Vec::new(), CpuGradients::default());
        let derivative = |given: &[f32]| {
            scores = given.to_vec();
            derivatives.to_vec()
        };
        training.scores_and_back(&shared(&sequences()), &mut found, derivative).unwrap();
        let tolerance = if precision == Precision::F32 { 1e-5 } else { 1e-2 };
        let close = |(found, expected): (&f32, &f32)| (found - expected).abs() < tolerance;
        assert!(scores.iter().zip(&expected).all(close), "{name}: {scores:?}, {expected:?}");
        assert_same(precision, &name, &numbers(found), &gradients);
        assert_eq!(training.scores(&shared(&sequences())).unwrap(), scores, "{name}");
    }
}

/// A tiny base with an adapter. Its second matrices are not 0.
fn adapted(device: &Device, dropout: f64, targets: &[&str], use_dora: bool) -> CausalLm {
    let (folder, checkpoint) = blank(true);
    checkpoint.save(folder.path(), &checkpoint.init(&Device::flex(), 3)).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let targets = ModuleNames::Names(targets.iter().map(|target| target.to_string()).collect());
    let modules_to_save = if use_dora { vec!["embed_tokens".to_string(), "model.norm".to_string()] } else { Vec::new() };
    let config = AdapterConfig { rank: 3, alpha: 6.0, dropout, targets, use_dora, modules_to_save, ..AdapterConfig::default() };
    let mut model = checkpoint.load_adapted(device, &config, 7).unwrap().train();
    for layer in &mut model.model.layers {
        let attention = [&mut layer.self_attn.q_proj, &mut layer.self_attn.v_proj].map(|projection| projection.as_mut().unwrap());
        for projection in attention.into_iter().chain([&mut layer.mlp.as_mut().unwrap().down_proj]) {
            if let Some(adapter) = &mut projection.adapter {
                adapter.lora_b = adapter.lora_b.clone().map(|lora_b| (lora_b.inner() + 0.05).autodiff().require_grad());
            }
        }
    }
    model
}

#[test]
fn magnitudes_and_whole_modules_have_the_gradients_of_autodiff() {
    PRECISIONS.into_iter().for_each(assert_gradients_of_magnitudes);
}

fn assert_gradients_of_magnitudes(precision: Precision) {
    let targets = ["q_proj", "v_proj", "down_proj"];
    let model = adapted(&Device::flex(), 0.0, &targets, true).in_precision(precision);
    let (logprobs, expected) = autodiff_of_logprobs(&model);
    let found = ours(&training_of(&model, false), None);
    assert_logprobs(precision, "magnitudes", &found.0, &logprobs);
    assert_same(precision, "magnitudes", &found.1, &expected);
    assert!(found.1.contains_key("model.layers.1.mlp.down_proj.adapter.magnitude") && found.1.contains_key("model.embed_tokens.weight"));
    assert!(!found.1.contains_key("lm_head.weight") && !found.1.contains_key("model.layers.1.mlp.down_proj.weight"));

    // One row alone has the same dropout in both. The masks are of the same numbers.
    let model = adapted(&Device::flex(), 0.4, &targets, true).in_precision(precision);
    let training = training_of(&model, false);
    let row: Vec<i32> = sequences()[2][0].clone();
    let (mut logprob, mut gradients) = (Vec::new(), CpuGradients::default());
    let derivative = |_: usize, found: &[f64], _: &[f64]| {
        logprob.extend_from_slice(found);
        vec![1.0]
    };
    training.logprobs_and_back(&[PrefixGroup::new(2, &[&row])], &[vec![30]], Some(3), false, &mut gradients, derivative).unwrap();
    let masked = model.with_dropout(3, 2);
    let tokens = ids(&[&row], &Device::flex());
    let hidden = masked.hidden(tokens.clone(), &Placement::right_padded(row.len(), &Device::flex()), None);
    let [_, length, hidden_size] = hidden.dims();
    let hidden = hidden.reshape([length, hidden_size]).narrow(0, 29, length - 30);
    let targets: Tensor<2, Int> = tokens.narrow(1, 30, length - 30).transpose();
    let expected = log_softmax(masked.logits(hidden), 1).gather(1, targets).sum();
    let tolerance = if precision == Precision::F32 { 1e-4 } else { 0.02 };
    assert!((logprob[0] - f64::from(values(expected.clone())[0])).abs() < tolerance, "{logprob:?}");
    assert_same(precision, "magnitudes with dropout", &numbers(gradients), &reached(&model, &expected.backward()));

    let first = ours(&training, Some(1));
    assert!(first == ours(&training_of(&model, true), Some(1)) && first == in_pieces(&training, Some(1)));
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert!(pool.install(|| ours(&training, Some(1))) == first, "{threads} threads");
    }
}

#[test]
fn an_adapter_has_the_gradients_of_autodiff_and_its_base_none() {
    PRECISIONS.into_iter().for_each(assert_gradients_of_an_adapter);
}

fn assert_gradients_of_an_adapter(precision: Precision) {
    let model = adapted(&Device::flex(), 0.0, &["q_proj", "v_proj", "down_proj"], false).in_precision(precision);
    let (logprobs, expected) = autodiff_of_logprobs(&model);
    let found = ours(&training_of(&model, false), None);
    assert_logprobs(precision, "adapter", &found.0, &logprobs);
    assert_same(precision, "adapter", &found.1, &expected);
    assert!(found.1.keys().all(|name| name.contains(".adapter.lora_")));
    // Dropout changes the input of a step. It is the same for the same step, in other pieces, and
    // with layers computed again.
    let model = adapted(&Device::flex(), 0.4, &["q_proj", "v_proj", "down_proj"], false).in_precision(precision);
    let training = training_of(&model, false);
    let first = ours(&training, Some(1));
    assert!(first == ours(&training_of(&model, true), Some(1)) && first == in_pieces(&training, Some(1)));
    assert!(first.1 != ours(&training, Some(2)).1 && first.1 != ours(&training, None).1);
}

/// One family after the other.
fn in_pieces(training: &CpuTraining, step: Option<u64>) -> (Vec<Vec<f64>>, Numbers) {
    let (mut logprobs, mut gradients) = (Vec::new(), CpuGradients::default());
    let all = sequences();
    for ((family, prompts), derivatives) in shared(&all).iter().zip(prompts()).zip(DERIVATIVES) {
        let derivative = |_: usize, found: &[f64], _: &[f64]| {
            logprobs.push(found.to_vec());
            derivatives[..found.len()].to_vec()
        };
        training.logprobs_and_back(std::slice::from_ref(family), &[prompts], step, false, &mut gradients, derivative).unwrap();
    }
    (logprobs, numbers(gradients))
}

#[test]
fn gradients_are_the_same_bits_on_any_threads_in_any_pieces_and_with_layers_computed_again() {
    let device = Device::flex().autodiff();
    let models =
        families(Head::CausalLm).into_iter().map(|(name, folder)| (name, Checkpoint::open(&folder).unwrap().load(&device).unwrap()));
    let blank = [true, false].map(|tied| ("blank".to_string(), blank(tied).1.init(&device, 5)));
    let models = models.chain(blank);
    for (name, model) in models.flat_map(|(name, model)| PRECISIONS.map(|precision| (name.clone(), model.clone().in_precision(precision))))
    {
        let training = training_of(&model, false);
        let expected = ours(&training, None);
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(|| ours(&training, None)) == expected, "{name}: {threads} threads");
        }
        assert!(in_pieces(&training, None) == expected, "{name}: in pieces");
        assert!(ours(&training_of(&model, true), None) == expected, "{name}: computed again");
    }
}

#[cfg(feature = "cuda")]
#[test]
fn gradients_on_a_gpu_are_those_of_the_processor_in_every_family() {
    use optune::compute::DeviceChoice;

    let gpu = DeviceChoice::Cuda.resolve().unwrap();
    // As long as the longest: some positions are padding. They are computed like any other.
    let rows: Vec<Vec<i32>> =
        sequences().concat().into_iter().map(|row| row.into_iter().chain(std::iter::repeat(0)).take(81).collect()).collect();
    let rows: Vec<&[i32]> = rows.iter().map(Vec::as_slice).collect();
    let gradients = |model: &CausalLm, device: &Device| {
        let tokens = ids(&rows, device);
        let hidden = if *device == gpu {
            optune::compute::gpu::hidden(&model.model, &tokens).unwrap()
        } else {
            model.hidden(tokens, &Placement::right_padded(81, device), None)
        };
        let derivatives = Tensor::<1, Int>::arange(0..hidden.shape().num_elements() as i64, device).float().mul_scalar(0.37).sin();
        reached(model, &(hidden.clone() * derivatives.reshape(hidden.shape()).autodiff()).sum().backward())
    };
    for precision in PRECISIONS {
        // Products of f32 may use the GPU's shorter formats.
        let tolerance = if precision == Precision::Bf16 { 0.05 } else { 0.01 };
        for (name, folder) in families(Head::CausalLm) {
            let of = |device: &Device| {
                let model = Checkpoint::open(&folder).unwrap().load(&device.clone().autodiff()).unwrap();
                gradients(&model.in_precision(precision), device)
            };
            assert_within(tolerance, &name, &of(&gpu), &of(&Device::flex()));
        }
        let of =
            |device: &Device| gradients(&adapted(device, 0.0, &["q_proj", "v_proj", "down_proj"], false).in_precision(precision), device);
        let found = of(&gpu);
        assert!(!found.is_empty() && found.keys().all(|name| name.contains(".adapter.lora_")));
        assert_within(tolerance, "adapter", &found, &of(&Device::flex()));
    }
}

#[test]
fn a_token_outside_the_vocabulary_is_an_error() {
    let model = blank(true).1.init(&Device::flex(), 5);
    let error = training_of(&model, false).logprobs(&[PrefixGroup::new(0, &[&[1, 4000]])], &[vec![1]]).unwrap_err();
    assert!(error.to_string().contains("token id 4000, expected 0 to "), "{error}");
}
