//! The transformer in the CPU's kernels against Hugging Face's numbers. burn's is compared with
//! them too.

use burn::tensor::Device;
use optune::compute::{CpuDecoder, Precision, Span};
use optune::model::{Checkpoint, Head};

use crate::fixtures::families::goldens;
use crate::fixtures::models::largest_difference;

/// Of logits and rewards up to 6. In bf16 a factor is off by up to 1/512, and a dozen products
/// follow each other. The logits of PyTorch's autocast on these models differ from those in f32 by
/// 0.34 at most (qwen2), ours by 0.35.
fn tolerance(precision: Precision) -> f32 {
    if precision == Precision::F32 { 1e-4 } else { 0.4 }
}

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

/// The outputs of every position of one sequence, `pieces` tokens at a time, its first `shared`
/// ones in a prefix.
fn outputs(decoder: &CpuDecoder, ids: &[i32], pieces: usize, shared: usize) -> Vec<f32> {
    let mut cache = decoder.new_cache();
    let (first, rest) = ids.split_at(shared);
    let prefix = (shared > 0).then(|| cache.open(None, 8));
    let sequence = cache.open(prefix, 8);
    let mut hidden = Vec::new();
    for (sequence, ids) in prefix.map(|prefix| (prefix, first)).into_iter().chain([(sequence, rest)]) {
        for tokens in ids.chunks(pieces) {
            hidden.extend(decoder.forward(&[Span { sequence, tokens }], &mut cache).unwrap());
        }
    }
    assert_eq!(cache.length(sequence), ids.len());
    head(decoder, &hidden)
}

fn head(decoder: &CpuDecoder, hidden: &[f32]) -> Vec<f32> {
    let mut out = Vec::new();
    decoder.head(hidden, &mut out);
    out
}

#[test]
fn logits_are_those_of_transformers_and_the_same_bits_in_any_pieces() {
    for (golden, precision) in goldens(Head::CausalLm).iter().flat_map(|golden| PRECISIONS.map(|precision| (golden, precision))) {
        let checkpoint = Checkpoint::open(&golden.folder).unwrap();
        let model = checkpoint.load(&Device::flex()).unwrap().in_precision(precision);
        let decoder = CpuDecoder::from_causal_lm(model).unwrap();
        for (ids, expected) in golden.rows.iter().zip(&golden.results) {
            let logits = outputs(&decoder, ids, ids.len(), 0);
            let largest = largest_difference(&logits, expected);
            assert!(largest < tolerance(precision), "{} in {}: {largest}", golden.name, precision.name());
            for (pieces, shared) in [(1, 0), (3, 0), (2, ids.len() / 2), (ids.len(), 1)] {
                assert!(
                    logits == outputs(&decoder, ids, pieces, shared.min(ids.len() - 1)),
                    "{}: {pieces} at a time, {shared} in a prefix",
                    golden.name
                );
            }
        }
        // All rows at once, the second with the first as its prefix.
        let mut cache = decoder.new_cache();
        let first = cache.open(None, 8);
        let second = cache.open(Some(first), 8);
        let (row, other) = golden.rows[0].split_at(golden.rows[0].len() / 2);
        let spans = [Span { sequence: first, tokens: row }, Span { sequence: second, tokens: other }];
        let together = head(&decoder, &decoder.forward(&spans, &mut cache).unwrap());
        assert!(together == outputs(&decoder, &golden.rows[0], golden.rows[0].len(), 0), "{}", golden.name);
    }
}

#[test]
fn rewards_are_those_of_transformers() {
    for (golden, precision) in goldens(Head::Reward).iter().flat_map(|golden| PRECISIONS.map(|precision| (golden, precision))) {
        let checkpoint = Checkpoint::open(&golden.folder).unwrap();
        let model = checkpoint.load_reward_model(&Device::flex()).unwrap().in_precision(precision);
        let decoder = CpuDecoder::from_reward_model(model).unwrap();
        for (ids, expected) in golden.rows.iter().zip(&golden.results) {
            let scores = outputs(&decoder, ids, ids.len(), 0);
            let difference = (scores[ids.len() - 1] - expected[0]).abs();
            assert!(difference < tolerance(precision), "{}: {difference}", golden.name);
        }
    }
}

#[test]
fn ids_outside_the_vocabulary_are_an_error() {
    for golden in goldens(Head::CausalLm) {
        let checkpoint = Checkpoint::open(&golden.folder).unwrap();
        let decoder = CpuDecoder::from_causal_lm(checkpoint.load(&Device::flex()).unwrap()).unwrap();
        let mut cache = decoder.new_cache();
        let sequence = cache.open(None, 8);
        let beyond = checkpoint.config.vocab_size as i32;
        for id in [-1, beyond] {
            let error = decoder.forward(&[Span { sequence, tokens: &[0, id] }], &mut cache).unwrap_err();
            assert!(error.to_string().contains(&format!("token id {id}, expected 0 to {}", beyond - 1)), "{error}");
            assert_eq!(cache.length(sequence), 0);
        }
    }
}
