//! Sampling: the distributions that are drawn from, what ends a response, and that seeds decide everything.

use std::fs;
use std::ops::ControlFlow;
use std::time::Instant;

use burn::tensor::{DType, Tensor, TensorData};
use optune::generation::{FinishReason, Generated, GenerationError, Sampler, Sampling, generate};
use optune::model::{CausalLm, Checkpoint, Placement, Sequences, SpecialTokens};

use crate::model::{blank_checkpoint, device, real};

fn sampling() -> Sampling {
    Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, max_new_tokens: 12, eos: vec![2], vocabulary_size: usize::MAX, max_total_tokens: 64 }
}

/// A seed that no other pair of numbers has.
fn seed(prompt: usize, response: usize) -> [u8; 32] {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&(prompt as u64).to_le_bytes());
    seed[8..16].copy_from_slice(&(response as u64).to_le_bytes());
    seed
}

fn seeds(prompts: usize, responses: usize) -> Vec<Vec<[u8; 32]>> {
    (0..prompts).map(|prompt| (0..responses).map(|response| seed(prompt, response)).collect()).collect()
}

fn small_model() -> CausalLm {
    let folder = tempfile::tempdir().unwrap();
    blank_checkpoint(folder.path(), true);
    Checkpoint::open_blank(folder.path()).unwrap().init(&device(), 11)
}

fn prompts(rows: &[Vec<i32>]) -> Sequences {
    Sequences::from_rows(rows, &device()).unwrap()
}

/// Without anyone watching.
fn sample(model: &CausalLm, prompts: &Sequences, seeds: &[Vec<[u8; 32]>], sampling: &Sampling, batch_size: usize) -> Generated {
    generate(model, prompts, seeds, sampling, batch_size, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// The response ids of each row.
fn responses(generated: &Generated) -> Vec<Vec<i32>> {
    let ids: Vec<i32> = generated.sequences.token_ids().to_data().try_into_vec().unwrap();
    let mut rest = &ids[..];
    let rows = generated.sequences.lengths().iter().zip(&generated.prompt_token_counts);
    let rows = rows.map(|(&length, &prompt)| {
        let (row, after) = rest.split_at(length);
        rest = after;
        row[prompt..].to_vec()
    });
    rows.collect()
}

/// The share of each token in `count` draws with different seeds.
fn shares(logits: &[f32], sampling: &Sampling, count: usize) -> Vec<f64> {
    let mut shares = vec![0.0; logits.len()];
    for at in 0..count {
        let draw = Sampler::new(seed(at, 1)).draw(logits, sampling).unwrap();
        shares[draw.token as usize] += 1.0 / count as f64;
    }
    shares
}

fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let weights: Vec<f64> = logits.iter().map(|logit| (f64::from(*logit) / temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

const LOGITS: [f32; 8] = [1.0, -0.5, 2.0, 0.0, 0.5, -3.0, 1.5, -1.0];

#[test]
fn draws_follow_the_softmax() {
    let count = 40_000;
    for temperature in [0.5, 1.0, 2.0] {
        let expected = softmax(&LOGITS, temperature);
        let found = shares(&LOGITS, &Sampling { temperature, ..sampling() }, count);
        let chi_square: f64 =
            expected.iter().zip(&found).map(|(expected, found)| count as f64 * (expected - found).powi(2) / expected).sum();
        // With 7 degrees of freedom 24.3 is exceeded once in a thousand; the seeds are fixed.
        assert!(chi_square < 24.3, "temperature {temperature}: chi-square {chi_square}");
    }
}

#[test]
fn top_k_and_top_p_keep_the_likeliest() {
    // By probability: 2 (0.40), 6 (0.25), 0 (0.15), 4 (0.09), 3 (0.05), 1, 7, 5.
    let kept = |top_k, top_p| -> Vec<usize> {
        let shares = shares(&LOGITS, &Sampling { top_k, top_p, ..sampling() }, 4000);
        (0..LOGITS.len()).filter(|token| shares[*token] > 0.0).collect()
    };
    assert_eq!(kept(1, 1.0), [2]);
    assert_eq!(kept(3, 1.0), [0, 2, 6]);
    assert_eq!(kept(0, 0.4), [2]);
    assert_eq!(kept(0, 0.5), [2, 6]);
    assert_eq!(kept(0, 0.85), [0, 2, 4, 6]);
    assert_eq!(kept(0, 0.9), [0, 2, 3, 4, 6]);
    // Of the two that top-k keeps, 2 alone has 0.62.
    assert_eq!(kept(2, 0.6), [2]);
    assert_eq!(kept(100, 1.0), [0, 1, 2, 3, 4, 5, 6, 7]);
    // Of equals, the smaller ids.
    let shares = shares(&[0.0; 8], &Sampling { top_k: 3, ..sampling() }, 4000);
    assert!(shares[..3].iter().all(|share| (share - 1.0 / 3.0).abs() < 0.03) && shares[3..].iter().all(|share| *share == 0.0));
}

#[test]
fn logprobs_are_of_the_distribution_drawn_from() {
    let full = softmax(&LOGITS, 0.7);
    for at in 0..50 {
        let draw = Sampler::new(seed(at, 2)).draw(&LOGITS, &Sampling { temperature: 0.7, ..sampling() }).unwrap();
        assert!((draw.logprob - full[draw.token as usize].ln()).abs() < 1e-6);
        let draw = Sampler::new(seed(at, 2)).draw(&LOGITS, &Sampling { temperature: 0.7, top_k: 2, ..sampling() }).unwrap();
        assert!((draw.logprob - (full[draw.token as usize] / (full[2] + full[6])).ln()).abs() < 1e-6);
        let draw = Sampler::new(seed(at, 2)).draw(&LOGITS, &Sampling { temperature: 0.0, ..sampling() }).unwrap();
        assert_eq!((draw.token, draw.logprob), (2, 0.0));
    }
    // Far apart logits, where a naive softmax overflows.
    let draw = Sampler::new(seed(0, 0)).draw(&[-1e30, 3e38, -3e38], &sampling()).unwrap();
    assert_eq!((draw.token, draw.logprob), (1, 0.0));
    let cold = Sampling { temperature: 1e-30, top_p: 0.9, ..sampling() };
    assert_eq!(Sampler::new(seed(0, 0)).draw(&LOGITS, &cold).unwrap().token, 2);
}

#[test]
fn logits_that_are_not_finite_are_an_error() {
    for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = Sampler::new(seed(0, 0)).draw(&[0.0, broken], &sampling()).unwrap_err();
        assert_eq!((error.0, error.1.to_bits()), (1, broken.to_bits()));
    }
    let mut model = small_model();
    let broken: Tensor<1> = Tensor::from_data(TensorData::new(vec![f32::NAN; 24], [24]), (&device(), DType::F32));
    model.model.norm.gamma = model.model.norm.gamma.map(|_| broken);
    let error = generate(&model, &prompts(&[vec![1]]), &seeds(1, 1), &sampling(), 4, &mut |_| ControlFlow::Continue(()));
    assert!(error.unwrap_err().to_string().contains("the logits of prompt 0 at response token 0 are not finite"));
}

#[test]
fn the_same_seeds_give_the_same_responses() {
    let model = small_model();
    let rows = [vec![1, 5, 6], vec![1], vec![1, 7, 8, 9], vec![1, 5, 6]];
    let first = sample(&model, &prompts(&rows), &seeds(4, 3), &sampling(), 5);
    let again = sample(&model, &prompts(&rows), &seeds(4, 3), &sampling(), 5);
    assert_eq!(responses(&first), responses(&again));
    assert_eq!(first.logprobs, again.logprobs);
    let other: Vec<Vec<[u8; 32]>> = (4..8).map(|prompt| vec![seed(prompt, 0), seed(prompt, 1), seed(prompt, 2)]).collect();
    assert_ne!(responses(&first), responses(&sample(&model, &prompts(&rows), &other, &sampling(), 5)));
    // Different responses of one prompt, and of equal prompts with different seeds.
    let texts = responses(&first);
    assert!(texts[0] != texts[1] && texts[0] != texts[9]);
}

#[test]
fn a_model_in_training_samples_the_same() {
    let folder = tempfile::tempdir().unwrap();
    blank_checkpoint(folder.path(), true);
    let trained = Checkpoint::open_blank(folder.path()).unwrap().init(&device().autodiff(), 11);
    let rows = prompts(&[vec![1, 5, 6], vec![1]]);
    let plain = sample(&small_model(), &rows, &seeds(2, 2), &sampling(), 4);
    assert_eq!(responses(&plain), responses(&sample(&trained, &rows, &seeds(2, 2), &sampling(), 4)));
}

#[test]
fn results_stand_in_the_order_of_the_prompts() {
    let model = small_model();
    let rows = [vec![1, 20, 21, 22, 23], vec![1], vec![1, 7, 8], vec![1, 30]];
    let greedy = Sampling { temperature: 0.0, ..sampling() };
    let together = sample(&model, &prompts(&rows), &[vec![seed(0, 0)], vec![], vec![seed(2, 0); 2], vec![seed(3, 0)]], &greedy, 3);
    assert_eq!(together.prompt_token_counts, [5, 3, 3, 2]);
    let alone = |row: usize| responses(&sample(&model, &prompts(&rows[row..=row]), &seeds(1, 1), &greedy, 1)).remove(0);
    assert_eq!(responses(&together), [alone(0), alone(2), alone(2), alone(3)]);
    let reversed: Vec<Vec<i32>> = rows.iter().rev().cloned().collect();
    let reversed = responses(&sample(&model, &prompts(&reversed), &seeds(4, 1), &greedy, 2));
    assert_eq!(reversed, [alone(3), alone(2), alone(1), alone(0)]);
    let ids: Vec<i32> = together.sequences.token_ids().to_data().try_into_vec().unwrap();
    assert_eq!(ids[..5], rows[0]);
}

#[test]
fn any_end_token_ends_a_response_and_belongs_to_it() {
    let model = small_model();
    let ends = Sampling { eos: vec![2, 10, 11, 12, 13], max_new_tokens: 20, ..sampling() };
    let generated = sample(&model, &prompts(&[vec![1], vec![1, 4]]), &seeds(2, 16), &ends, 7);
    let is_end = |id: &i32| ends.eos.contains(id);
    for (response, reason) in responses(&generated).iter().zip(&generated.finish_reasons) {
        let (last, before) = response.split_last().unwrap();
        assert!(!before.iter().any(is_end));
        match reason {
            FinishReason::Stop => assert!(is_end(last)),
            FinishReason::Length => assert!(!is_end(last) && response.len() == 20),
        }
    }
    assert!(generated.finish_reasons.contains(&FinishReason::Stop));
    let none = sample(&model, &prompts(&[vec![1]]), &seeds(1, 4), &Sampling { eos: vec![], ..ends }, 4);
    assert!(none.finish_reasons.iter().all(|reason| *reason == FinishReason::Length));
    assert_eq!((FinishReason::Stop.name(), FinishReason::Length.name()), ("stop", "length"));
}

#[test]
fn responses_stop_at_the_models_length() {
    let model = small_model();
    let long = Sampling { eos: vec![], max_new_tokens: 30, ..sampling() };
    let rows = [vec![4; 60], vec![1], vec![4; 63]];
    let generated = sample(&model, &prompts(&rows), &seeds(3, 1), &long, 3);
    assert_eq!(responses(&generated).iter().map(Vec::len).collect::<Vec<_>>(), [4, 30, 1]);
    let error = generate(&model, &prompts(&[vec![1], vec![4; 64]]), &seeds(2, 1), &long, 3, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(error, Err(GenerationError::PromptTooLong { row: 1, tokens: 64, limit: 64 })));
}

#[test]
fn progress_is_told_and_can_stop_the_work() {
    let model = small_model();
    let rows = prompts(&[vec![1], vec![1, 5]]);
    let mut told = Vec::new();
    let generated = generate(&model, &rows, &seeds(2, 2), &sampling(), 2, &mut |tokens| {
        told.push(tokens);
        ControlFlow::Continue(())
    });
    let tokens: usize = responses(&generated.unwrap()).iter().map(Vec::len).sum();
    assert_eq!(told.last(), Some(&tokens));
    assert!(told.is_sorted());
    let stopped = generate(&model, &rows, &seeds(2, 2), &sampling(), 2, &mut |tokens| {
        if tokens > 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(GenerationError::Interrupted)));
}

#[test]
fn settings_and_seeds_are_checked() {
    let model = small_model();
    let refused = |sampling: Sampling, seeds: &[Vec<[u8; 32]>]| {
        generate(&model, &prompts(&[vec![1]]), seeds, &sampling, 1, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string()
    };
    assert_eq!(refused(Sampling { temperature: -1.0, ..sampling() }, &seeds(1, 1)), "temperature is -1, expected a number from 0 on");
    assert_eq!(refused(Sampling { top_p: 0.0, ..sampling() }, &seeds(1, 1)), "top_p is 0, expected a number above 0, at most 1");
    assert_eq!(refused(Sampling { max_new_tokens: 0, ..sampling() }, &seeds(1, 1)), "max_new_tokens is 0, expected at least 1");
    assert_eq!(refused(sampling(), &seeds(2, 1)), "expected a list of seeds for each of 1 prompts, found 2");
    assert_eq!(sample(&model, &prompts(&[vec![1]]), &seeds(1, 0), &sampling(), 1).sequences.rows(), 0);
}

/// The real model and its prompts, as token ids.
fn stories() -> Option<(CausalLm, Vec<Vec<i32>>)> {
    let (folder, openings) = (real("stories260K")?, real("data/story_openings.jsonl")?);
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let openings = fs::read_to_string(openings).unwrap();
    let openings = openings.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        checkpoint.tokenizer.encode(line["prompt"].as_str().unwrap(), SpecialTokens::Added).unwrap()
    });
    let openings = openings.collect();
    Some((checkpoint.load(&device()).unwrap(), openings))
}

#[test]
fn greedy_stories_do_not_depend_on_the_batch() {
    let Some((model, openings)) = stories() else { return };
    let greedy = Sampling { temperature: 0.0, max_new_tokens: 60, eos: vec![1, 2], max_total_tokens: 512, ..sampling() };
    let mut chosen = openings[..16].to_vec();
    // A long prompt that finishes first, so that the rest goes on without the row that set the padding.
    chosen.push(openings.concat()[..480].to_vec());
    let chosen = prompts(&chosen);
    let single = sample(&model, &chosen, &seeds(17, 1), &greedy, 1);
    let together = sample(&model, &chosen, &seeds(17, 1), &greedy, 17);
    assert_eq!(responses(&single), responses(&together));

    let golden: serde_json::Value = serde_json::from_str(&fs::read_to_string(real("golden/stories260K.json").unwrap()).unwrap()).unwrap();
    let golden: Vec<i32> = golden["greedy_ids"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap() as i32).collect();
    let long = Sampling { max_new_tokens: golden.len() - 1, eos: vec![], ..greedy };
    let generated = sample(&model, &prompts(&[vec![golden[0]], openings[0].clone()]), &seeds(2, 2), &long, 4);
    assert_eq!(responses(&generated)[0], golden[1..]);
}

#[test]
fn story_logprobs_are_those_of_a_pass_without_a_cache() {
    let Some((model, openings)) = stories() else { return };
    let generated = sample(
        &model,
        &prompts(&openings[..6]),
        &seeds(6, 2),
        &Sampling { eos: vec![1, 2], max_new_tokens: 40, max_total_tokens: 512, ..sampling() },
        12,
    );
    let sequences = &generated.sequences;
    for row in 0..sequences.rows() {
        let tokens = sequences.gather(&[row], optune::model::Padding::Right).unwrap();
        let ids: Vec<i32> = tokens.clone().into_data().try_into_vec().unwrap();
        let logits = model.logits(model.hidden(tokens, &Placement::right_padded(ids.len(), &device()), None));
        let logits: Vec<f32> = logits.into_data().try_into_vec().unwrap();
        let width = logits.len() / ids.len();
        let expected: f64 = (generated.prompt_token_counts[row]..ids.len())
            .map(|at| softmax(&logits[(at - 1) * width..][..width], 1.0)[ids[at] as usize].ln())
            .sum();
        assert!((generated.logprobs[row] - expected).abs() < 1e-3, "row {row}: {} against {expected}", generated.logprobs[row]);
    }
}

/// Prints tokens a second; run by hand with `--ignored`, nothing depends on the figures.
///
/// For the stories, and for fresh weights in the shape of a Llama with 15 million parameters and a vocabulary of 32,000.
#[test]
#[ignore = "a measurement"]
fn decoding_speed() {
    let folder = tempfile::tempdir().unwrap();
    blank_checkpoint(folder.path(), true);
    let path = folder.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let sizes = [
        ("vocab_size", 32_000),
        ("hidden_size", 288),
        ("intermediate_size", 768),
        ("num_hidden_layers", 6),
        ("num_attention_heads", 6),
        ("num_key_value_heads", 6),
        ("head_dim", 48),
    ];
    for (name, size) in sizes {
        config[name] = size.into();
    }
    fs::write(&path, config.to_string()).unwrap();
    let larger = Checkpoint::open_blank(folder.path()).unwrap().init(&device(), 1);
    measure("15M", &larger, &vec![(1..16).collect(); 64], 64);
    if let Some((model, openings)) = stories() {
        measure("stories260K", &model, &openings[..64], 128);
    }
}

fn measure(name: &str, model: &CausalLm, rows: &[Vec<i32>], max_new_tokens: usize) {
    let endless = Sampling { eos: vec![], max_new_tokens, max_total_tokens: 512, top_p: 0.9, ..sampling() };
    for batch_size in [1, 8, 64] {
        let chosen = prompts(&rows[..batch_size]);
        let started = Instant::now();
        let generated = sample(model, &chosen, &seeds(chosen.rows(), 1), &endless, batch_size);
        let tokens: usize = responses(&generated).iter().map(Vec::len).sum();
        eprintln!("{name}, batch {batch_size}: {:.0} tokens/s", tokens as f64 / started.elapsed().as_secs_f64());
    }
}
