//! Training in bf16 against PyTorch's autocast (`tests/python/precision.py`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::tensor::Device;
use optune::compute::cpu::kernels::Memory;
use optune::compute::{CpuGradients, CpuTraining, CpuWeights, Precision, PrefixGroup};
use optune::model::Checkpoint;
use serde::Deserialize;

type Numbers = BTreeMap<String, Vec<f32>>;

#[derive(Deserialize)]
struct Golden {
    family: String,
    rows: Vec<Vec<i32>>,
    prompt: usize,
    derivatives: Vec<f64>,
    exact: Found,
    autocast: Found,
}

#[derive(Deserialize)]
struct Found {
    logprobs: Vec<f64>,
    gradients: Numbers,
}

fn ours(golden: &Golden, precision: Precision) -> Found {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families").join(&golden.family);
    let model = Checkpoint::open(&folder).unwrap().load(&Device::flex().autodiff()).unwrap().in_precision(precision);
    let training = CpuTraining::from_causal_lm(&model, &CpuWeights::from_model(&model).unwrap(), false, &Memory::default()).unwrap();
    let groups: Vec<PrefixGroup> = golden.rows.iter().map(|row| PrefixGroup::new(0, &[row])).collect();
    let prompts = vec![vec![golden.prompt]; groups.len()];
    let (mut logprobs, mut gradients) = (Vec::new(), CpuGradients::default());
    let derivative = |at: usize, found: &[f64], _: &[f64]| {
        logprobs.extend_from_slice(found);
        vec![golden.derivatives[at]]
    };
    training.logprobs_and_back(&groups, &prompts, None, false, &mut gradients, derivative).unwrap();
    let gradients = gradients.into_parameters().into_iter().map(|(name, gradient)| (name, gradient.to_vec())).collect();
    Found { logprobs, gradients }
}

/// The length of the difference of all gradients, as a share of the length of `expected`.
fn distance(found: &Numbers, expected: &Numbers) -> f64 {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let (mut differences, mut squares) = (0.0, 0.0);
    for (name, expected) in expected {
        assert_eq!(found[name].len(), expected.len(), "{name}");
        for (found, expected) in found[name].iter().zip(expected) {
            differences += f64::from(found - expected).powi(2);
            squares += f64::from(*expected).powi(2);
        }
    }
    (differences / squares).sqrt()
}

fn largest(found: &[f64], expected: &[f64]) -> f64 {
    found.iter().zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f64::max)
}

#[test]
fn gradients_in_bf16_are_nearer_to_exact_ones_than_those_of_autocast_and_as_near_to_these() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/precision.json");
    let goldens: Vec<Golden> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!(goldens.len(), 2);
    for golden in goldens {
        let exact = ours(&golden, Precision::F32);
        assert!(distance(&exact.gradients, &golden.exact.gradients) < 1e-4, "{}", golden.family);
        let rounded = ours(&golden, Precision::Bf16);
        // Autocast rounds the same factors, and results of products too: it is further off.
        let autocast = distance(&golden.autocast.gradients, &golden.exact.gradients);
        let [from_exact, from_autocast] = [&golden.exact, &golden.autocast].map(|of| distance(&rounded.gradients, &of.gradients));
        let family = &golden.family;
        eprintln!("{family}: gradients in bf16 are {from_exact:.2e} from exact ones, autocast's {autocast:.2e}, and both {from_autocast:.2e} apart");
        assert!(from_exact > 1e-4 && from_exact < autocast, "{family}: {from_exact} from exact gradients, autocast {autocast}");
        assert!(from_autocast < 1.2 * autocast, "{family}: {from_autocast} from those of autocast, which are {autocast} from exact ones");
        let autocast = largest(&golden.autocast.logprobs, &golden.exact.logprobs);
        assert!(largest(&rounded.logprobs, &golden.exact.logprobs) < autocast, "{family}: {:?}", rounded.logprobs);
        assert!(largest(&rounded.logprobs, &golden.autocast.logprobs) < 2.0 * autocast, "{family}: {:?}", rounded.logprobs);
    }
}
