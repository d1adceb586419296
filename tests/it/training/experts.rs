//! Training routed experts: TRL's own steps, the same bits in any pieces, and a run with an adapter.

use std::fs;
use std::path::Path;

use optune::model::{Checkpoint, ModuleNames};
use optune::token_lists::TokenLists;
use optune::training::loss::Loss;
use optune::training::{Decay, OptimizerConfig, Pair, Responses, Schedule, Settings, Trainer, response_logprobs};
use serde_json::Value;

use crate::fixtures::models::{all_logits, device, largest_difference, numbers};
use crate::fixtures::workspace::Workspace;

fn ids(value: &Value) -> Vec<i32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn relative(found: f64, expected: f64) -> f64 {
    (found - expected).abs() / expected.abs()
}

/// Three steps on four pairs. An expert without a token has a gradient of zeros, and AdamW steps it
/// as PyTorch does.
#[test]
fn steps_of_dpo_are_those_of_trl_in_micro_batches_of_any_size() {
    for name in ["mixtral", "qwen3_moe", "qwen3_moe_fused"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families").join(name);
        let golden: Value = serde_json::from_slice(&fs::read(folder.join("experts.json")).unwrap()).unwrap();
        let golden = &golden["dpo"];
        let list = golden["pairs"].as_array().unwrap();
        let row = |pair: &Value, side: &str| [ids(&pair["prompt_ids"]), ids(&pair[side])].concat();
        let rows: Vec<Vec<i32>> = list.iter().flat_map(|pair| [row(pair, "chosen_ids"), row(pair, "rejected_ids")]).collect();
        let prompts = list.iter().flat_map(|pair| [ids(&pair["prompt_ids"]).len(); 2]).collect();
        let responses = Responses::new(TokenLists::from_rows(&rows).unwrap(), prompts).unwrap();
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let reference = checkpoint.load(&device()).unwrap();
        let logprobs = response_logprobs(&reference, &responses, &(0..rows.len()).collect::<Vec<_>>(), 4).unwrap();
        let pair = |(at, both): (usize, &[f64])| Pair {
            chosen: 2 * at,
            rejected: 2 * at + 1,
            weight: 1.0,
            reference_logprob_chosen: both[0],
            reference_logprob_rejected: both[1],
            reward_gap: 1.0,
        };
        let pairs: Vec<Pair> = logprobs.chunks_exact(2).enumerate().map(pair).collect();
        let number = |key: &str| golden[key].as_f64().unwrap();
        let after = |micro_batch: usize, gradient_checkpointing: bool, replicas: usize| {
            let rule = OptimizerConfig::AdamW { beta_1: 0.9, beta_2: 0.999, eps: 1e-8, weight_decay: 0.0 };
            let schedule = Schedule { peak: number("learning_rate"), decay: Decay::Constant, warmup_ratio: 0.0 };
            let settings = Settings { rule, schedule, gradient_limit: None, micro_batch, gradient_checkpointing, skip_non_finite: false };
            let trainer = Trainer::new(checkpoint.load(&device().autodiff()).unwrap(), settings, 3).unwrap();
            let mut trainer = if replicas > 1 { trainer.on_replicas(replicas).unwrap() } else { trainer };
            let mut worst = (0.0_f64, 0.0_f64);
            for (loss, norm) in numbers(&golden["losses"]).into_iter().zip(numbers(&golden["gradient_norms"])) {
                let metrics = trainer.preference_step(&responses, &pairs, Loss::Dpo { beta: number("beta") }).unwrap();
                worst = (worst.0.max(relative(metrics.loss, loss)), worst.1.max(relative(metrics.gradient_norm, norm)));
            }
            eprintln!("{name}: largest relative difference of a loss {:.1e}, of a gradient norm {:.1e}", worst.0, worst.1);
            assert!(worst.0 < 1e-5 && worst.1 < 1e-4, "{name}: {worst:?}");
            let taken = trainer.examples_of_replicas();
            assert!(
                taken.len() == if replicas > 1 { replicas } else { 0 } && (taken.is_empty() || taken.iter().sum::<u64>() == 3 * 4),
                "{taken:?}"
            );
            all_logits(&trainer.model(), &ids(&golden["sequence"]))
        };
        let whole = after(4, false, 1);
        let expected: Vec<f32> = numbers(&golden["logits_after"]).into_iter().map(|logit| logit as f32).collect();
        let difference = largest_difference(&whole[whole.len() - expected.len()..], &expected);
        eprintln!("{name}: largest difference of a logit after the steps {difference:.1e}");
        assert!(difference < 1e-4, "{name}: {difference}");
        assert_eq!(whole, after(1, false, 1), "{name}: pair by pair");
        assert_eq!(whole, after(3, true, 1), "{name}: three pairs, layers computed again");
        assert_eq!(whole, after(4, false, 2), "{name}: two pairs on each of two replicas");
        assert_eq!(whole, after(4, true, 3), "{name}: three replicas, layers computed again");
    }
}

/// A pipeline that trains an adapter on a model of `tests/families/`.
fn adapting(workspace: &Workspace, model: &str, lora: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families").join(model);
    workspace.write(
        "pipeline.yaml",
        &format!(
            "optune: 1\nname: experts\ninputs:\n  prefs: {{ table: prefs.jsonl }}\n  base: {{ model: \"{}\" }}\nnodes:\n  \
             policy: {{ train: {{ from: base, reference: base, pairs: prefs, learning_rate: 1.0e-2, schedule: constant, warmup_ratio: 0, \
             batch_size: 3, epochs: 2, lora: {{ rank: 2{lora} }} }} }}\n",
            folder.display()
        ),
    );
}

#[test]
fn an_adapter_on_all_projections_is_trained_and_what_peft_has_not_is_refused_at_plan() {
    let workspace = Workspace::new();
    let row = |prompt: &str, chosen: &str, rejected: &str| {
        format!("{{\"prompt\": \"{prompt} \", \"chosen\": \"{chosen}\", \"rejected\": \"{rejected}\"}}\n")
    };
    let rows = [row("w5 w9", "w20 w33 w8", "w7 w7"), row("w44 w30", "w11 w25", "w3 w50 w51"), row("w63 w18", "w29", "w10 w36 w21")];
    workspace.write("prefs.jsonl", &rows.concat());
    for (model, lora, said) in [
        ("qwen3_moe_lora", ", dropout: 0.1", "policy: lora: dropout is 0.1, expected 0: PEFT has no dropout on experts"),
        ("qwen3_moe_lora", ", target_modules: [gate_proj]", "mlp.experts.0.gate_proj without up_proj: PEFT has both in one tensor"),
        ("qwen3_moe", "", "targets have model.layers.1.mlp.gate_proj beside model.layers.0.mlp.experts.0.gate_proj"),
    ] {
        adapting(&workspace, model, lora);
        let error = workspace.fail(&["plan", "pipeline.yaml"], 2);
        assert!(error.contains(said), "{model}{lora}: {error}");
    }
    adapting(&workspace, "qwen3_moe_lora", "");
    let output = workspace.optune(&["run", "pipeline.yaml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("the loss for balanced experts is not added (router_aux_loss_coef is 0.001 in config.json)"), "{said}");
    assert_eq!(workspace.query("experts", "SELECT count(*) FROM policy_training WHERE loss < 0.69").trim(), "1");
    let model = Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/qwen3_moe_lora")).unwrap();
    let adapted = model.with_adapter(&workspace.path("runs/experts/models/policy")).unwrap();
    assert!(matches!(&adapted.adapter().unwrap().targets, ModuleNames::Names(names) if names.len() == 7));
}
