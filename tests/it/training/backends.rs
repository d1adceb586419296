//! The backends behind one trait: what the tensor backend and the CPU's find of the same examples, in micro-batches of any size.

use std::collections::BTreeMap;

use burn::tensor::Device;
use optune::compute::cpu::CpuBackend;
use optune::compute::reference::{ReferenceOperations, TensorBackend};
use optune::compute::{Backend, Examples, Gradients, Precision};
use optune::token_lists::TokenLists;

use crate::fixtures::models::blank;

type Numbers = BTreeMap<String, Vec<f32>>;

/// Three pairs that begin alike, of different lengths.
const ROWS: [&[i32]; 6] =
    [&[1, 5, 6, 7, 8], &[1, 5, 6, 9], &[1, 20, 21, 22, 23, 24, 25], &[1, 20, 30], &[1, 3, 4, 8], &[1, 3, 4, 9, 10, 11]];
const PROMPTS: [usize; 6] = [3, 3, 2, 2, 3, 3];
const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];
const DERIVATIVES: [[f64; 2]; 3] = [[-0.8, 0.3], [0.5, -0.25], [1.0, -2.0]];

fn backends() -> [Box<dyn Backend>; 2] {
    [Box::new(TensorBackend::new(&ReferenceOperations)), Box::new(CpuBackend::default())]
}

fn examples<'a>(tokens: &'a TokenLists, rows: &'a [usize], micro_batch: usize) -> Examples<'a> {
    Examples { tokens, rows, rows_per_example: 2, micro_batch, gradient_checkpointing: false }
}

fn numbers(gradients: Gradients) -> Numbers {
    match gradients {
        Gradients::Tensors { by_name, .. } => {
            by_name.into_iter().map(|(name, tensor)| (name, tensor.into_data().iter().collect())).collect()
        }
        Gradients::Buffers(buffers) => buffers.into_iter().map(|(name, buffer)| (name, buffer.to_vec())).collect(),
    }
}

#[track_caller]
fn assert_close(precision: Precision, found: &[Vec<f64>], expected: &[Vec<f64>]) {
    let tolerance = if precision == Precision::F32 { 1e-4 } else { 0.02 };
    let close = |(found, expected): (&f64, &f64)| (found - expected).abs() < tolerance;
    assert!(found.concat().iter().zip(&expected.concat()).all(close), "{found:?}, expected {expected:?}");
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), expected.iter().map(Vec::len).collect::<Vec<_>>());
}

#[track_caller]
fn assert_same(precision: Precision, found: &Numbers, expected: &Numbers) {
    // In bf16 a number between two is rounded either way by sums in another order.
    let tolerance = if precision == Precision::F32 { 1e-4 } else { 0.01 };
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let largest = expected.values().flatten().fold(0.0_f32, |largest, number| largest.max(number.abs()));
    assert!(largest > 0.0);
    for (name, expected) in expected {
        let differs = |(found, expected): (&f32, &f32)| (found - expected).abs() > tolerance * largest;
        assert!(!found[name].iter().zip(expected).any(differs), "{name}");
    }
}

#[test]
fn backends_find_the_same_gradients_of_logprobs_whatever_the_micro_batch() {
    let tokens = TokenLists::from_rows(&ROWS).unwrap();
    for (tied, precision) in [true, false].into_iter().flat_map(|tied| PRECISIONS.map(|precision| (tied, precision))) {
        let (_folder, checkpoint) = blank(tied);
        let mut expected = None;
        for backend in backends() {
            for micro_batch in [1, 2, 3] {
                let mut model = checkpoint.init(&Device::flex().autodiff(), 5).in_precision(precision);
                let mut found = vec![Vec::new(); 3];
                let mut loss = |which: &[usize], logprobs: &[f64], collisions: &[f64]| {
                    let both = logprobs.chunks(2).zip(collisions.chunks(2));
                    which.iter().zip(both).for_each(|(&example, (logprobs, collisions))| found[example] = [logprobs, collisions].concat());
                    which.iter().flat_map(|&example| DERIVATIVES[example]).collect()
                };
                let rows: Vec<usize> = (0..6).collect();
                let examples = examples(&tokens, &rows, micro_batch);
                let gradients = backend.logprob_gradients(&mut model, examples, &PROMPTS, 0, true, &mut loss).unwrap();
                let gradients = numbers(gradients);
                let (expected_found, expected_gradients) = expected.get_or_insert_with(|| (found.clone(), gradients.clone()));
                assert_close(precision, &found, expected_found);
                assert_same(precision, &gradients, expected_gradients);
                let logprobs = backend.logprobs(&model, Examples::alone(&tokens, &[3, 0], micro_batch), &PROMPTS).unwrap();
                assert_close(precision, &[logprobs], &[vec![found[1][1], found[0][0]]]);
            }
        }
    }
}

#[test]
fn backends_find_the_same_gradients_of_scores_whatever_the_micro_batch() {
    let tokens = TokenLists::from_rows(&ROWS).unwrap();
    let (folder, checkpoint) = blank(false);
    checkpoint.save(folder.path(), &checkpoint.init(&Device::flex(), 5)).unwrap();
    let checkpoint = optune::model::Checkpoint::open(folder.path()).unwrap().with_reward_head(7);
    for precision in PRECISIONS {
        let mut expected = None;
        for backend in backends() {
            for micro_batch in [1, 2, 3] {
                let mut model = checkpoint.load_reward_model(&Device::flex().autodiff()).unwrap().in_precision(precision);
                let mut found = vec![Vec::new(); 3];
                let mut loss = |which: &[usize], scores: &[f64]| {
                    which.iter().zip(scores.chunks(2)).for_each(|(&example, scores)| found[example] = scores.to_vec());
                    which.iter().flat_map(|&example| DERIVATIVES[example]).collect()
                };
                let rows: Vec<usize> = (0..6).collect();
                let gradients = backend.score_gradients(&mut model, examples(&tokens, &rows, micro_batch), &mut loss).unwrap();
                let gradients = numbers(gradients);
                let (expected_found, expected_gradients) = expected.get_or_insert_with(|| (found.clone(), gradients.clone()));
                assert_close(precision, &found, expected_found);
                assert_same(precision, &gradients, expected_gradients);
                let scores = backend.scores(&model, Examples::alone(&tokens, &[3, 0], micro_batch)).unwrap();
                assert_close(precision, &[scores], &[vec![found[1][1], found[0][0]]]);
            }
        }
    }
}
