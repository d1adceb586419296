//! Weight decay against the optimizers of PyTorch with the groups of the Hugging Face Trainer, by
//! `tests/python/weight_decay.py`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use optune::model::Checkpoint;
use optune::token_lists::TokenLists;
use optune::training::{Decay, OptimizerConfig, Responses, Schedule, Settings, Trainer};
use serde_json::Value;

use super::trainer::Weights;
use crate::fixtures::models::{device, numbers};

#[test]
fn norms_and_biases_do_not_decay_as_in_the_trainer_of_transformers() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let golden: Value = serde_json::from_str(&fs::read_to_string(tests.join("golden/weight_decay.json")).unwrap()).unwrap();
    let models = golden["models"].as_object().unwrap();
    assert!(models.len() >= 5);
    for (family, optimizers) in models {
        let folder = tests.join("families").join(family);
        let rows: Value = serde_json::from_str(&fs::read_to_string(folder.join("golden.json")).unwrap()).unwrap();
        let rows: Vec<Vec<i32>> = serde_json::from_value(rows["rows"].clone()).unwrap();
        let all: Vec<usize> = (0..rows.len()).collect();
        let responses = Responses::new(TokenLists::from_rows(&rows).unwrap(), vec![1; rows.len()]).unwrap();
        for (name, expected) in optimizers.as_object().unwrap() {
            let written = &golden["settings"][name];
            let number = |key: &str| written[key].as_f64().unwrap();
            let (eps, weight_decay) = (number("eps"), number("weight_decay"));
            let rule = match name.as_str() {
                "adamw" => {
                    let betas = numbers(&written["betas"]);
                    OptimizerConfig::AdamW { beta_1: betas[0], beta_2: betas[1], eps, weight_decay }
                }
                _ => OptimizerConfig::RmsProp { alpha: number("alpha"), eps, weight_decay },
            };
            let schedule = Schedule { peak: number("lr"), decay: Decay::Constant, warmup_ratio: 0.0 };
            let settings = Settings {
                rule,
                schedule,
                gradient_limit: None,
                micro_batch: rows.len(),
                gradient_checkpointing: false,
                skip_non_finite: false,
            };
            let model = Checkpoint::open(&folder).unwrap().load(&device().autodiff()).unwrap();
            let mut trainer = Trainer::new(model, settings, golden["steps"].as_u64().unwrap()).unwrap();
            for expected in numbers(&expected["losses"]) {
                let loss = trainer.supervised_step(&responses, &all).unwrap().loss;
                assert!((loss - expected).abs() < 1e-4 * expected, "{family}, {name}: loss {loss}, expected {expected}");
            }
            let found: BTreeMap<String, Vec<f32>> = Weights::of(&trainer.model());
            let expected = expected["after"].as_object().unwrap();
            let mut names: Vec<&String> = expected.keys().collect();
            names.sort();
            assert_eq!(found.keys().collect::<Vec<_>>(), names, "{family}");
            for (parameter, expected) in expected {
                let values = || found[parameter].iter().map(|value| f64::from(*value));
                let sums = [values().sum::<f64>(), values().map(|value| value * value).sum::<f64>().sqrt()];
                let expected = numbers(expected);
                let near = (0..2).all(|at| (sums[at] - expected[at]).abs() < 2e-4 * expected[1].max(1e-3));
                assert!(near, "{family}, {name}: {parameter} {sums:?}, expected {expected:?}");
            }
        }
    }
}
