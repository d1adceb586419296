//! One step of weighted DPO: forward, backward and AdamW on eight pairs of 128 tokens.

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use optune::compute::{DeviceChoice, Precision};
use optune::model::Checkpoint;
use optune::token_lists::TokenLists;
use optune::training::loss::Loss;
use optune::training::{Decay, OptimizerConfig, Pair, Responses, Schedule, Settings, Trainer};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::measurement::peak_rss_bytes;

const BETA: f64 = 0.1;

/// What `dpo-step` is asked for.
#[derive(clap::Args)]
pub struct DpoStep {
    /// The folder that `make_inputs.py` made.
    #[arg(long)]
    inputs: PathBuf,
    #[arg(long)]
    model: String,
    /// Measured steps; one more comes before them.
    #[arg(long)]
    steps: u64,
    #[arg(long)]
    threads: Option<usize>,
    /// Pairs that go through the model together.
    #[arg(long, default_value_t = 4)]
    micro_batch: usize,
    /// Whether layers are computed again on the way back.
    #[arg(long)]
    checkpointing: bool,
    /// auto, cpu or cuda.
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// f32 or bf16.
    #[arg(long, default_value = "f32")]
    precision: Precision,
}

#[derive(Deserialize)]
struct Pairs {
    prompt: Vec<Vec<i32>>,
    chosen: Vec<Vec<i32>>,
    rejected: Vec<Vec<i32>>,
    weight: Vec<f64>,
    reference_chosen: Vec<f64>,
    reference_rejected: Vec<f64>,
}

/// Takes the steps and says how long they took.
///
/// # Errors
/// When an input is missing or a step fails.
pub fn run(asked: &DpoStep) -> Result<Value, Box<dyn Error>> {
    let threads = asked.threads.unwrap_or_else(rayon::current_num_threads);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    pool.install(|| steps(asked, threads)).map_err(|error| error as Box<dyn Error>)
}

fn steps(asked: &DpoStep, threads: usize) -> Result<Value, Box<dyn Error + Send + Sync>> {
    let (folder, device) = (asked.inputs.join(&asked.model), asked.device.resolve()?);
    let given: Pairs = serde_json::from_str(&std::fs::read_to_string(folder.join("pairs.json"))?)?;
    let rows = |responses: &[Vec<i32>]| -> Vec<Vec<i32>> {
        given.prompt.iter().zip(responses).map(|(prompt, response)| [prompt.as_slice(), response].concat()).collect()
    };
    let rows = [rows(&given.chosen), rows(&given.rejected)].concat();
    let prompts = [&given.prompt[..], &given.prompt].concat().iter().map(Vec::len).collect();
    let responses = Responses::new(TokenLists::from_rows(&rows)?, prompts)?;
    let count = given.prompt.len();
    let pair = |at: usize| Pair {
        chosen: at,
        rejected: count + at,
        weight: given.weight[at],
        reference_logprob_chosen: given.reference_chosen[at],
        reference_logprob_rejected: given.reference_rejected[at],
        reward_gap: 1.0,
    };
    let pairs: Vec<Pair> = (0..count).map(pair).collect();
    let settings = Settings {
        rule: OptimizerConfig::AdamW { beta_1: 0.9, beta_2: 0.999, eps: 1e-8, weight_decay: 0.0 },
        schedule: Schedule { peak: 1e-5, decay: Decay::Constant, warmup_ratio: 0.0 },
        gradient_limit: None,
        micro_batch: asked.micro_batch,
        gradient_checkpointing: asked.checkpointing,
        skip_non_finite: false,
    };
    let mut trainer = Trainer::new(Checkpoint::open(&folder)?.load(&device)?.in_precision(asked.precision), settings, asked.steps + 1)?;
    trainer.preference_step(&responses, &pairs, Loss::Dpo { beta: BETA })?;
    let (start, mut losses, mut tokens) = (Instant::now(), Vec::new(), 0);
    for _ in 0..asked.steps {
        let metrics = trainer.preference_step(&responses, &pairs, Loss::Dpo { beta: BETA })?;
        losses.push(metrics.loss);
        tokens += metrics.tokens;
    }
    Ok(json!({
        "case": "dpo-step", "side": "optune", "model": asked.model, "threads": threads, "seconds": start.elapsed().as_secs_f64(),
        "tokens": tokens, "losses": losses, "peak_rss_bytes": peak_rss_bytes(),
    }))
}
