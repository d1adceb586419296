//! The embedding of the padding token, which PyTorch gives no gradient where it is looked up, by
//! `tests/python/padding.py`.

use std::fs;
use std::path::Path;

use optune::model::{AdapterConfig, Checkpoint, ModuleNames};
use optune::token_lists::TokenLists;
use optune::training::{Decay, OptimizerConfig, Responses, Schedule, Settings, Trainer};
use serde_json::{Value, json};

use super::trainer::Weights;
use crate::fixtures::files::copy_folder;
use crate::fixtures::models::{device, numbers};

const EMBEDDING: &str = "model.embed_tokens.weight";

#[test]
fn padding_that_is_looked_up_gets_no_gradient_as_in_transformers() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let golden: Value = serde_json::from_str(&fs::read_to_string(tests.join("golden/padding.json")).unwrap()).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 18);
    for case in cases {
        let original = tests.join("families").join(case["family"].as_str().unwrap());
        let folder = tempfile::tempdir().unwrap();
        copy_folder(&original, folder.path());
        let path = folder.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config["pad_token_id"] = case["pad_token_id"].clone();
        fs::write(&path, config.to_string()).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let padding = case["padding_idx"].as_u64().map(|row| row as usize);
        assert_eq!(checkpoint.config.padding_row, padding, "{case}");
        let (found, expected) = (change(&checkpoint, case, &golden["optimizer"]), numbers(&case["change"]));
        let largest = expected.iter().copied().fold(0.0, f64::max);
        for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!((found - expected).abs() < 1e-4 * largest, "{case}: row {row}: {found}, expected {expected}");
        }
        // Exactly nothing, but for a head with the same weights.
        if let Some(row) = padding.filter(|_| case["tied"] == json!(false)) {
            assert_eq!((found[row], expected[row]), (0.0, 0.0), "{case}");
        }
    }
}

/// How far one step moves each row of the embedding.
fn change(checkpoint: &Checkpoint, case: &Value, optimizer: &Value) -> Vec<f64> {
    let rows: Value = serde_json::from_slice(&fs::read(checkpoint.folder().join("golden.json")).unwrap()).unwrap();
    let rows: Vec<Vec<i32>> = serde_json::from_value(rows["rows"].clone()).unwrap();
    let responses = Responses::new(TokenLists::from_rows(&rows).unwrap(), vec![1; rows.len()]).unwrap();
    let number = |key: &str| optimizer[key].as_f64().unwrap();
    let settings = Settings {
        rule: OptimizerConfig::RmsProp { alpha: number("alpha"), eps: number("eps"), weight_decay: number("weight_decay") },
        schedule: Schedule { peak: number("lr"), decay: Decay::Constant, warmup_ratio: 0.0 },
        gradient_limit: None,
        micro_batch: rows.len(),
        gradient_checkpointing: false,
        skip_non_finite: false,
    };
    let device = device().autodiff();
    let model = if case["saved"] == json!(true) {
        let targets = ModuleNames::Names(vec!["q_proj".to_string()]);
        let config = AdapterConfig { rank: 2, targets, modules_to_save: vec!["embed_tokens".to_string()], ..AdapterConfig::default() };
        checkpoint.load_adapted(&device, &config, 1).unwrap()
    } else {
        checkpoint.load(&device).unwrap()
    };
    let before = Weights::of(&model).remove(EMBEDDING).unwrap();
    let mut trainer = Trainer::new(model, settings, 1).unwrap();
    trainer.supervised_step(&responses, &(0..rows.len()).collect::<Vec<_>>()).unwrap();
    let after = Weights::of(&trainer.model()).remove(EMBEDDING).unwrap();
    let width = checkpoint.config.hidden_size;
    let moved = |(before, after): (&[f32], &[f32])| {
        before.iter().zip(after).map(|(before, after)| f64::from(after - before).powi(2)).sum::<f64>().sqrt()
    };
    before.chunks(width).zip(after.chunks(width)).map(moved).collect()
}
