//! The whole loop on a real model, prompts and reward (OPTUNE_REAL_DIR), against figures by PyTorch
//! for the same experiment.

use std::path::Path;

use crate::fixtures::real_data::real_folder;
use crate::fixtures::repository::optune;

/// Mean held-out rewards after iterations 1 to 3, and tokens generated until then, from PyTorch
/// (two seeds).
struct Expected {
    name: &'static str,
    sets: [&'static str; 2],
    rewards: [f64; 3],
    /// The share of the tokens of three full generations at 48 tokens a response.
    token_share: f64,
}

const EXPECTED: [Expected; 3] = [
    Expected { name: "all", sets: ["ratio=1.0", "strategy=lowest_reward"], rewards: [2.6, 4.2, 4.7], token_share: 1.0 },
    Expected { name: "lowest", sets: ["ratio=0.5", "strategy=lowest_reward"], rewards: [2.6, 4.1, 4.6], token_share: 2.0 / 3.0 },
    Expected { name: "random", sets: ["ratio=0.5", "strategy=random"], rewards: [2.6, 4.1, 4.5], token_share: 2.0 / 3.0 },
];

/// How far a mean reward may lie from PyTorch's: both have a spread between seeds of about this.
const SPREAD: f64 = 0.6;

#[test]
fn happiness_rises_as_in_pytorch_and_half_the_generation_is_enough() {
    let Some(real) = real_folder() else { return };
    let runs = tempfile::tempdir().unwrap();
    let data = format!("data={}", real.display());
    let mut tokens_of_all = 0.0;
    for expected in &EXPECTED {
        let (mut tokens, mut means) = (0.0, [0.0; 3]);
        for seed in [1, 2] {
            let file = runs.path().join(format!("stories-{seed}.yaml"));
            let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories/stories.yaml")).unwrap();
            std::fs::write(
                &file,
                text.replace("seed: 1", &format!("seed: {seed}")).replace("folder: ../..", concat!("folder: ", env!("CARGO_MANIFEST_DIR"))),
            )
            .unwrap();
            let name = format!("{}-{seed}", expected.name);
            let file = file.to_string_lossy().into_owned();
            let [ratio, strategy] = expected.sets;
            let summary =
                optune(runs.path(), &["run", &file, "--name", &name, "--set", &data, "--set", ratio, "--set", strategy, "--json"]);
            let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
            let rows = summary["iterations"].as_array().unwrap();
            let start = rows[0]["reward"].as_f64().unwrap();
            assert!((start - 0.81).abs() < 0.25, "{name}: start {start}, expected about 0.81");
            for (mean, row) in means.iter_mut().zip(&rows[1..]) {
                *mean += row["reward"].as_f64().unwrap() / 2.0;
                tokens += row["tokens"].as_f64().unwrap() / 2.0;
            }
            eprintln!("{name}: {summary}");
        }
        for (iteration, (mean, expected_mean)) in means.iter().zip(expected.rewards).enumerate() {
            let close = (mean - expected_mean).abs() < SPREAD;
            assert!(close, "{}, iteration {}: mean reward {mean}, expected {expected_mean}", expected.name, iteration + 1);
        }
        if expected.name == "all" {
            tokens_of_all = tokens;
        }
        let share = tokens / tokens_of_all;
        assert!((share - expected.token_share).abs() < 0.03, "{}: {share} of the tokens, expected {}", expected.name, expected.token_share);
    }
}
