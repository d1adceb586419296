//! Steps of every family against TRL's and PEFT's, by `tests/python/family_dpo.py`.

use std::fs;
use std::path::Path;

use optune::compute::CausalLm;
use optune::model::{Checkpoint, Head};
use optune::token_lists::TokenLists;
use optune::training::loss::Loss;
use optune::training::{Decay, OptimizerConfig, Pair, Responses, Schedule, Settings, Trainer, response_logprobs};
use serde_json::Value;

use crate::fixtures::families::goldens;
use crate::fixtures::models::{all_logits, device, largest_difference, numbers};

fn relative(found: f64, expected: f64) -> f64 {
    (found - expected).abs() / expected.abs()
}

fn pairs_of(golden: &Value, reference: &CausalLm) -> (Responses, Vec<Pair>) {
    let ids = |value: &Value| numbers(value).into_iter().map(|id| id as i32).collect::<Vec<i32>>();
    let list = golden["pairs"].as_array().unwrap();
    let row = |pair: &Value, side: &str| [ids(&pair["prompt"]), ids(&pair[side])].concat();
    let rows: Vec<Vec<i32>> = list.iter().flat_map(|pair| [row(pair, "chosen"), row(pair, "rejected")]).collect();
    let prompts = list.iter().flat_map(|pair| [ids(&pair["prompt"]).len(); 2]).collect();
    let responses = Responses::new(TokenLists::from_rows(&rows).unwrap(), prompts).unwrap();
    let logprobs = response_logprobs(reference, &responses, &(0..rows.len()).collect::<Vec<_>>(), 4).unwrap();
    let pairs = logprobs.chunks_exact(2).enumerate().map(|(at, both)| Pair {
        chosen: 2 * at,
        rejected: 2 * at + 1,
        weight: 1.0,
        reference_logprob_chosen: both[0],
        reference_logprob_rejected: both[1],
        reward_gap: 1.0,
    });
    (responses, pairs.collect())
}

#[test]
fn steps_of_every_family_are_those_of_trl_and_peft() {
    let device = device();
    // A model with images is trained as its language model, which is Gemma 3's.
    for family in goldens(Head::CausalLm).into_iter().filter(|family| family.name != "gemma3_images") {
        let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/family_dpo").join(&family.name);
        let base = Checkpoint::open(&family.folder).unwrap();
        let Ok(golden) = fs::read_to_string(made.join("golden.json")) else { panic!("{}: no golden steps", family.name) };
        let golden: Value = serde_json::from_str(&golden).unwrap();
        let (responses, pairs) = pairs_of(&golden, &base.load(&device).unwrap());
        let rule = OptimizerConfig::AdamW { beta_1: 0.9, beta_2: 0.999, eps: 1e-8, weight_decay: 0.0 };
        let schedule = Schedule { peak: golden["learning_rate"].as_f64().unwrap(), decay: Decay::Constant, warmup_ratio: 0.0 };
        let settings =
            Settings { rule, schedule, gradient_limit: None, micro_batch: 2, gradient_checkpointing: false, skip_non_finite: false };
        let loss = Loss::Dpo { beta: golden["beta"].as_f64().unwrap() };

        // All of a policy that has the adapter merged in.
        let checkpoint = base.with_adapter(&made.join("adapter")).unwrap();
        let mut trainer = Trainer::new(checkpoint.load(&device).unwrap(), settings, 2).unwrap();
        let mut worst = [0.0; 3];
        for (step, expected) in numbers(&golden["trl"]["losses"]).into_iter().enumerate() {
            let metrics = trainer.preference_step(&responses, &pairs, loss).unwrap();
            worst[step] = relative(metrics.loss, expected);
            if step == 0 {
                worst[2] = relative(metrics.gradient_norm, golden["trl"]["gradient_norm"].as_f64().unwrap());
            }
        }
        assert!(worst[0] < 1e-5 && worst[1] < 1e-4 && worst[2] < 1e-4, "{}: losses and norm differ from TRL's by {worst:?}", family.name);

        // The adapter alone.
        let model = checkpoint.load_adapted(&device, checkpoint.adapter().unwrap(), 0).unwrap();
        let mut trainer = Trainer::new(model, settings, 3).unwrap();
        let mut worst_of_peft = [0.0f64; 2];
        let expected = numbers(&golden["peft"]["losses"]).into_iter().zip(numbers(&golden["peft"]["gradient_norms"]));
        for (loss_of_peft, norm) in expected {
            let metrics = trainer.preference_step(&responses, &pairs, loss).unwrap();
            worst_of_peft[0] = worst_of_peft[0].max(relative(metrics.loss, loss_of_peft));
            worst_of_peft[1] = worst_of_peft[1].max(relative(metrics.gradient_norm, norm));
        }
        eprintln!("{}: losses and norm differ from TRL's by {worst:?}, from PEFT's by {worst_of_peft:?}", family.name);
        assert!(worst_of_peft.iter().all(|worst| *worst < 1e-4), "{}: differs from PEFT's by {worst_of_peft:?}", family.name);

        // Saved in PEFT's names and opened again.
        let saved = tempfile::tempdir().unwrap();
        let trained = trainer.model();
        checkpoint.save_adapter(saved.path(), checkpoint.adapter().unwrap(), &trained).unwrap();
        let sequence: Vec<i32> = (1..30).collect();
        let before = all_logits(&trained, &sequence);
        let opened = Checkpoint::open(&family.folder).unwrap().with_adapter(saved.path()).unwrap();
        let after = all_logits(&opened.load(&device).unwrap(), &sequence);
        assert!(largest_difference(&before, &after) < 1e-4, "{}", family.name);
    }
}
