//! Adapters: twenty steps of PEFT's own training, its files both ways, and runs with adapters as
//! policies.

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use optune::compute::CausalLm;
use optune::model::{AdapterConfig, Checkpoint, Dtype, ModuleNames};
use optune::token_lists::TokenLists;
use optune::training::loss::Loss;
use optune::training::{Decay, OptimizerConfig, Pair, Responses, Schedule, Settings, StepMetrics, Trainer, response_logprobs};
use serde_json::{Value, json};

use crate::fixtures::export_folder::export_folder;
use crate::fixtures::files::copy_folder;
use crate::fixtures::models::{all_logits, blank_checkpoint, device, largest_difference, numbers};
use crate::fixtures::real_data::real;
use crate::fixtures::workspace::Workspace;

/// A folder by the Python script `lora_dpo.py`.
pub fn made(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lora").join(name)
}

/// The tiny base as a complete checkpoint: the files of the script, and a tokenizer.
pub fn tiny() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base");
    fs::create_dir(&base).unwrap();
    blank_checkpoint(&base, false);
    copy_folder(&made("tiny"), &base);
    (folder, base)
}

pub fn names(names: &[&str]) -> ModuleNames {
    ModuleNames::Names(names.iter().map(|name| name.to_string()).collect())
}

fn settings(peak: f64, micro_batch: usize) -> Settings {
    let rule = OptimizerConfig::AdamW { beta_1: 0.9, beta_2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    let schedule = Schedule { peak, decay: Decay::Constant, warmup_ratio: 0.0 };
    Settings { rule, schedule, gradient_limit: None, micro_batch, gradient_checkpointing: false, skip_non_finite: false }
}

pub fn ids(value: &Value) -> Vec<i32> {
    numbers(value).into_iter().map(|id| id as i32).collect()
}

/// A golden file, and its pairs with the logprobs of `reference`, as training takes them.
struct Golden {
    all: Value,
    responses: Responses,
    pairs: Vec<Pair>,
}

impl Golden {
    fn of(name: &str, reference: &CausalLm) -> Self {
        let all: Value = serde_json::from_str(&fs::read_to_string(made(name).join("golden.json")).unwrap()).unwrap();
        let list = all["pairs"].as_array().unwrap();
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
        let pairs = pairs.collect();
        Self { all, responses, pairs }
    }

    fn step(&self, trainer: &mut Trainer<CausalLm>) -> StepMetrics {
        trainer.preference_step(&self.responses, &self.pairs, Loss::Dpo { beta: self.all["beta"].as_f64().unwrap() }).unwrap()
    }

    /// The largest difference to the golden logits after the golden sequence.
    fn logits_differ(&self, model: &CausalLm, when: &str, vocabulary: usize) -> f32 {
        let logits = all_logits(&model.valid(), &ids(&self.all["sequence"]));
        let expected: Vec<f32> = numbers(&self.all[when]).into_iter().map(|logit| logit as f32).collect();
        largest_difference(&logits[logits.len() - vocabulary..][..expected.len()], &expected)
    }
}

/// Trains as PEFT and PyTorch did, in float64, from PEFT's initial adapter.
fn trains_as_peft(name: &str, base: &Path) {
    let base = Checkpoint::open(base).unwrap();
    let golden = Golden::of(name, &base.load(&device()).unwrap());
    for (pair, expected) in golden.pairs.iter().zip(golden.all["reference"].as_array().unwrap()) {
        let expected = numbers(expected);
        for (found, expected) in [pair.reference_logprob_chosen, pair.reference_logprob_rejected].into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-4 * expected.abs(), "{found}, expected {expected}");
        }
    }
    let checkpoint = base.with_adapter(&made(name).join("adapter")).unwrap();
    let model = checkpoint.load_adapted(&device(), checkpoint.adapter().unwrap(), 0).unwrap();
    let vocabulary = checkpoint.config.vocab_size;
    assert!(golden.logits_differ(&model, "logits_before", vocabulary) < 1e-4);

    let mut trainer = Trainer::new(model, settings(golden.all["learning_rate"].as_f64().unwrap(), 2), 20).unwrap();
    let relative = |found: f64, expected: f64| (found - expected).abs() / expected.abs();
    let mut worst = (0.0f64, 0.0f64);
    for (loss, norm) in numbers(&golden.all["losses"]).into_iter().zip(numbers(&golden.all["gradient_norms"])) {
        let metrics = golden.step(&mut trainer);
        worst = (worst.0.max(relative(metrics.loss, loss)), worst.1.max(relative(metrics.gradient_norm, norm)));
        assert!(relative(metrics.loss, loss) < 1e-3, "step {}: loss {}, expected {loss}", metrics.step, metrics.loss);
        assert!(relative(metrics.gradient_norm, norm) < 1e-3, "step {}: norm {}, expected {norm}", metrics.step, metrics.gradient_norm);
    }
    assert_eq!(trainer.step(), 20);
    let differ = golden.logits_differ(&trainer.model(), "logits_after", vocabulary);
    eprintln!("{name}: largest relative difference of a loss {:.1e}, of a gradient norm {:.1e}; of a logit {differ:.1e}", worst.0, worst.1);
    assert!(differ < 1e-3, "{differ}");

    // Only the adapter was trained.
    let folder = tempfile::tempdir().unwrap();
    trainer.save_state(folder.path()).unwrap();
    let trained = golden.all["trained_parameter_count"].as_u64().unwrap();
    for file in ["weights", "gradient_means", "gradient_squares"] {
        let bytes = fs::read(folder.path().join(format!("{file}.safetensors"))).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        assert_eq!(bytes.len() as u64 - header - 8, 4 * trained, "{file}");
    }
}

#[test]
fn twenty_steps_of_dpo_are_those_of_peft() {
    let (_folder, base) = tiny();
    for name in ["tiny", "dora", "saved", "trl"] {
        trains_as_peft(name, &base);
    }
    if let Some(stories) = real("stories260K") {
        trains_as_peft("stories", &stories);
    }
}

/// The tiny base with PEFT's adapter after some steps.
fn trained(folder: &Path, base: &Path) -> (Checkpoint, CausalLm) {
    let checkpoint = Checkpoint::open(base).unwrap().with_adapter(&made("tiny/adapter")).unwrap();
    let config = checkpoint.adapter().unwrap().clone();
    let golden = Golden::of("tiny", &checkpoint.load(&device()).unwrap());
    let mut trainer = Trainer::new(checkpoint.load_adapted(&device(), &config, 0).unwrap(), settings(1e-2, 2), 5).unwrap();
    for _ in 0..5 {
        golden.step(&mut trainer);
    }
    checkpoint.save_adapter(folder, &config, &trainer.model()).unwrap();
    (checkpoint.with_adapter(folder).unwrap(), trainer.model())
}

#[test]
fn merged_or_beside_its_base_an_adapter_gives_the_same_logits() {
    let (folder, base) = tiny();
    let (checkpoint, model) = trained(&folder.path().join("adapter"), &base);
    let sequence: Vec<i32> = (1..30).collect();
    let beside = all_logits(&model, &sequence);
    let merged = all_logits(&checkpoint.load(&device()).unwrap(), &sequence);
    assert!(largest_difference(&beside, &merged) < 1e-5, "{}", largest_difference(&beside, &merged));
    let without = all_logits(&Checkpoint::open(&base).unwrap().load(&device()).unwrap(), &sequence);
    assert!(largest_difference(&beside, &without) > 1e-2, "the adapter does nothing");

    checkpoint.export(&folder.path().join("merged"), Dtype::F32, u64::MAX).unwrap();
    let exported = Checkpoint::open(&folder.path().join("merged")).unwrap();
    assert!(exported.adapter().is_none());
    assert_eq!(all_logits(&exported.load(&device()).unwrap(), &sequence), merged);

    // And by its own word for where the base is: absolute, or beside it.
    checkpoint.copy_adapter(&folder.path().join("copy"), base.to_str().unwrap()).unwrap();
    checkpoint.copy_adapter(&folder.path().join("beside"), "base").unwrap();
    for name in ["copy", "beside"] {
        let opened = Checkpoint::open(&folder.path().join(name)).unwrap();
        assert_eq!(opened.adapter(), checkpoint.adapter());
        assert_eq!(all_logits(&opened.load(&device()).unwrap(), &sequence), merged);
    }
    // A model with an adapter cannot be taken for one without.
    let error = exported.save(&folder.path().join("wrong"), &model).unwrap_err().to_string();
    assert!(error.contains("other parameters"), "{error}");
}

#[test]
fn a_fresh_adapter_adds_nothing_and_comes_from_its_seed() {
    let (_folder, base) = tiny();
    let checkpoint = Checkpoint::open(&base).unwrap();
    assert_eq!(checkpoint.projections(), ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]);
    let config = AdapterConfig { rank: 3, alpha: 6.0, targets: names(&["up_proj"]), ..AdapterConfig::default() };
    let fresh = |seed| checkpoint.load_adapted(&device(), &config, seed).unwrap();
    let sequence: Vec<i32> = (1..30).collect();
    assert_eq!(all_logits(&fresh(7), &sequence), all_logits(&checkpoint.load(&device()).unwrap(), &sequence));
    let first = |seed| -> Vec<f32> {
        let mlp = fresh(seed).model.layers[1].mlp.clone().unwrap();
        assert!(mlp.gate_proj.adapter.is_none());
        mlp.up_proj.adapter.as_ref().unwrap().lora_a.val().into_data().try_into_vec().unwrap()
    };
    assert_eq!(first(7), first(7));
    assert_ne!(first(7), first(8));
    // PEFT: Kaiming's uniform with a = √5, so ±1/√in, here ±1/4, with a standard deviation of
    // 0.25/√3 = 0.144.
    let values = first(7);
    let deviation = (values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32).sqrt();
    assert!(values.iter().all(|value| value.abs() <= 0.25) && (0.11..0.18).contains(&deviation), "{deviation}");
}

#[test]
fn an_adapter_restored_goes_on_as_one_that_never_stopped_dropout_and_all() {
    // The same bits are promised on the CPU only.
    if device() != Device::flex() {
        return;
    }
    let (_folder, base) = tiny();
    let checkpoint = Checkpoint::open(&base).unwrap();
    let golden = Golden::of("tiny", &checkpoint.load(&device()).unwrap());
    let run = |use_dora: bool, dropout: f64, stops: bool| {
        let targets = ModuleNames::Names(checkpoint.projections());
        let config = AdapterConfig { rank: 2, alpha: 4.0, dropout, targets, use_dora, ..AdapterConfig::default() };
        let model = || checkpoint.load_adapted(&device(), &config, 5).unwrap();
        let mut trainer = Trainer::new(model(), settings(1e-2, 1), 6).unwrap();
        let mut losses = Vec::new();
        for step in 0..6 {
            if stops && step == 3 {
                let folder = tempfile::tempdir().unwrap();
                trainer.save_state(folder.path()).unwrap();
                trainer = Trainer::load_state(folder.path(), model(), settings(1e-2, 1), 6).unwrap();
            }
            losses.push(golden.step(&mut trainer).loss);
        }
        (losses, all_logits(&trainer.model(), &[1, 5, 9, 30]))
    };
    for (use_dora, dropout) in [(false, 0.0), (false, 0.3), (true, 0.0), (true, 0.3)] {
        assert_eq!(run(use_dora, dropout, false), run(use_dora, dropout, true), "dropout {dropout}");
    }
    let (without, with) = (run(false, 0.0, false).0, run(false, 0.3, false).0);
    // B begins at 0, so hidden inputs of A make no difference yet.
    assert_eq!(without[0], with[0]);
    assert!(without[1] != with[1] && with[5] < with[0], "{without:?} and {with:?}");
}

#[test]
fn a_step_changes_the_adapter_alone_and_dropout_ends_with_training() {
    let (_folder, base) = tiny();
    let checkpoint = Checkpoint::open(&base).unwrap();
    let reference = checkpoint.load(&device()).unwrap();
    let golden = Golden::of("tiny", &reference);
    let config = AdapterConfig { rank: 2, alpha: 4.0, dropout: 0.5, targets: names(&["self_attn.q_proj"]), ..AdapterConfig::default() };
    let mut trainer = Trainer::new(checkpoint.load_adapted(&device(), &config, 5).unwrap(), settings(1e-2, 2), 3).unwrap();
    for _ in 0..3 {
        golden.step(&mut trainer);
    }
    let mut model = trainer.model();
    let sequence: Vec<i32> = (1..30).collect();
    assert_eq!(all_logits(&model, &sequence), all_logits(&model, &sequence), "dropout goes on after training");
    assert!(largest_difference(&all_logits(&model, &sequence), &all_logits(&reference, &sequence)) > 1e-4);
    for layer in &mut model.model.layers {
        layer.self_attn.q_proj.as_mut().unwrap().adapter = None;
    }
    assert_eq!(all_logits(&model, &sequence), all_logits(&reference, &sequence), "the base has changed");
}

const TRAIN: &str = "batch_size: 4, epochs: 2 }, resources: { checkpoint_every: 2 } }\n    evaluation";

/// The small pipeline with an adapter as policy.
pub fn workspace(lora: &str) -> Workspace {
    let workspace = Workspace::new();
    workspace.edit("pipeline.yaml", TRAIN, &TRAIN.replace("epochs: 2", &format!("epochs: 2, lora: {{ {lora} }}")));
    workspace
}

#[test]
fn a_run_keeps_adapters_goes_on_with_them_and_exports_them_merged_or_alone() {
    let workspace = workspace("rank: 4, alpha: 8, dropout: 0.1");
    workspace.succeed(&["run", "pipeline.yaml"]);
    let folder = |t: u32| workspace.path(&format!("runs/small/models/policy/iteration={t}"));
    let bytes = |t: u32| fs::metadata(folder(t).join("adapter_model.safetensors")).unwrap().len();
    let base = fs::metadata(workspace.path("runs/small/models/base/model.safetensors")).unwrap().len();
    assert!(!folder(1).join("model.safetensors").exists() && folder(1).join("tokenizer.json").exists());
    assert!(bytes(1) == bytes(2) && bytes(2) * 4 < base, "{} of {base} bytes", bytes(2));
    assert_ne!(
        fs::read(folder(1).join("adapter_model.safetensors")).unwrap(),
        fs::read(folder(2).join("adapter_model.safetensors")).unwrap()
    );
    // A fresh adapter is the reference, and so is the base. In the second iteration it is one no
    // more: training went on from it.
    let first = "SELECT abs(reward_margin) < 1e-5 FROM policy_training WHERE step = 1 ORDER BY iteration";
    assert_eq!(workspace.query("small", first), "true\nfalse");

    workspace.succeed(&["export", "policy", "small", "merged"]);
    workspace.succeed(&["export", "policy", "small", "alone", "--adapter"]);
    workspace.succeed(&["export", "policy", "small", "first", "--iteration", "1", "--adapter"]);
    let written: Value = serde_json::from_str(&fs::read_to_string(workspace.path("alone/adapter_config.json")).unwrap()).unwrap();
    let named = Path::new(written["base_model_name_or_path"].as_str().unwrap());
    assert!(named.is_absolute() && named.ends_with("runs/small/models/base"), "{}", named.display());
    let logits = |name: &str| all_logits(&Checkpoint::open(&workspace.path(name)).unwrap().load(&device()).unwrap(), &[1, 5, 9, 30]);
    assert_eq!(logits("merged"), logits("alone"));
    assert!(largest_difference(&logits("alone"), &logits("first")) > 1e-4);
    let error = workspace.fail(&["export", "policy", "small", "base", "--node", "base", "--adapter"], 2);
    assert!(error.contains("expected a model trained with `lora`"), "{error}");

    // An adapter of PEFT or of a run is an input like any other model, and training goes on from
    // it.
    workspace.edit("pipeline.yaml", "shape:    { model: shape }", "shape:    { model: shape }\n  adapted:  { model: alone }");
    workspace.edit("pipeline.yaml", "start: { policy: base", "start: { policy: adapted");
    workspace.succeed(&["run", "pipeline.yaml", "--name", "further"]);
    workspace.succeed(&["export", "policy", "further", "further", "--adapter"]);
    let written: Value = serde_json::from_str(&fs::read_to_string(workspace.path("further/adapter_config.json")).unwrap()).unwrap();
    assert_eq!(Path::new(written["base_model_name_or_path"].as_str().unwrap()), named);
    // Without lora the policy is trained whole, from the merged weights.
    workspace.edit("pipeline.yaml", ", lora: { rank: 4, alpha: 8, dropout: 0.1 }", "");
    workspace.succeed(&["run", "pipeline.yaml", "--name", "whole"]);
    assert!(workspace.path("runs/whole/models/policy/iteration=2/model.safetensors").exists());
}

#[test]
fn an_adapter_that_does_not_fit_is_refused_before_anything_runs() {
    let refused = |workspace: &Workspace, said: &[&str]| {
        let error = workspace.fail(&["run", "pipeline.yaml"], 2);
        said.iter().for_each(|text| assert!(error.contains(text), "expected {text:?} in: {error}"));
        assert!(!workspace.path("runs/small/tables").exists() && !workspace.path("runs/small/models").exists(), "{error}");
    };
    let tuned = "  tuned: { sft: { from: base, demonstrations: prompts, response: reference_answer, warmup_ratio: 0, lora: { rank: 8 } } }\niterate:";
    let workspace = workspace("rank: 4");
    workspace.edit("pipeline.yaml", "iterate:", tuned);
    workspace.edit("pipeline.yaml", "start: { policy: base", "start: { policy: tuned");
    refused(&workspace, &["policy[1]: lora: it starts from the adapter tuned and goes on with it", "rank 8, alpha 32", "q_proj"]);

    let (_folder, base) = tiny();
    let workspace = self::workspace("rank: 8");
    copy_folder(&made("tiny/adapter"), &workspace.path("adapter"));
    copy_folder(&base, &workspace.path("tiny"));
    workspace.edit("adapter/adapter_config.json", "\"base_model_name_or_path\": \".\"", "\"base_model_name_or_path\": \"tiny\"");
    workspace.edit("pipeline.yaml", "shape:    { model: shape }", "shape:    { model: shape }\n  adapted:  { model: adapter }");
    workspace.edit("pipeline.yaml", "start: { policy: base", "start: { policy: adapted");
    refused(&workspace, &["goes on with it, so expected rank 4, alpha 8"]);
    workspace.edit("adapter/adapter_config.json", "\"use_dora\": false", "\"use_dora\": true");
    refused(&workspace, &["adapter_config.json", "lora_magnitude_vector is missing"]);
    fs::remove_dir_all(workspace.path("tiny")).unwrap();
    refused(&workspace, &["adapter_config.json", "expected a directory"]);
}

#[test]
fn killed_while_an_adapter_is_trained_and_run_again_the_bytes_are_the_same() {
    let whole = workspace("rank: 4, dropout: 0.1");
    whole.succeed(&["run", "pipeline.yaml"]);
    let expected = whole.result("small");
    for kill in 0..3 {
        let workspace = workspace("rank: 4, dropout: 0.1");
        let mut command = workspace.command(&["run", "pipeline.yaml"]);
        let mut child = command.stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn().unwrap();
        // Until a checkpoint of the policy is there, then a little longer each time.
        let journal = workspace.path("runs/small/journal.jsonl");
        let trains = |text: String| text.lines().any(|line| line.contains("part_committed") && line.contains("\"policy\""));
        while !fs::read_to_string(&journal).is_ok_and(trains) && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        std::thread::sleep(std::time::Duration::from_millis(10 * kill));
        child.kill().unwrap();
        child.wait().unwrap();
        workspace.succeed(&["run", "pipeline.yaml"]);
        assert_eq!(workspace.result("small"), expected);
    }
}

/// Saves an adapter beside its base for `tests/python/export_parity.py` into the folder of
/// `OPTUNE_EXPORT_DIR`.
#[test]
fn adapters_are_exported() {
    let Some(folder) = export_folder() else { return };
    let (temporary, base) = tiny();
    let (checkpoint, model) = trained(&temporary.path().join("adapter"), &base);
    let folder = std::path::absolute(folder).unwrap();
    copy_folder(&base, &folder.join("base"));
    let sequence: Vec<i32> = (1..30).collect();
    let parity = |name: &str, model: &CausalLm| {
        let logits = all_logits(model, &sequence);
        let logits: Vec<&[f32]> = logits.chunks(checkpoint.config.vocab_size).collect();
        fs::write(folder.join(name).join("parity.json"), json!({"token_ids": sequence, "logits": logits}).to_string()).unwrap();
    };
    checkpoint.copy_adapter(&folder.join("adapter"), folder.join("base").to_str().unwrap()).unwrap();
    parity("adapter", &model);
    checkpoint.export(&folder.join("merged"), Dtype::F32, u64::MAX).unwrap();
    parity("merged", &model);
}
