//! Generation from prompts and lengths that are given, with the engine that `optune run` uses.
//!
//! Knows what is generated, not how.

use std::error::Error;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use optune::compute::{DeviceChoice, Precision};
use optune::generation::{Generated, Generator, Penalties, Sampling};
use optune::model::Checkpoint;
use optune::token_lists::TokenLists;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::measurement::peak_rss_bytes;

#[derive(clap::Args)]
struct Model {
    /// The folder that `benches/peers/make_inputs.py` filled.
    #[arg(long)]
    inputs: PathBuf,
    /// The model's folder in it.
    #[arg(long)]
    model: String,
    /// How many responses grow at once.
    #[arg(long)]
    batch: usize,
    /// The threads; as many as there are cores when left out.
    #[arg(long)]
    threads: Option<usize>,
    /// auto, cpu or cuda.
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// f32 or bf16.
    #[arg(long, default_value = "f32")]
    precision: Precision,
    /// burn's operations in place of the processor's own kernels.
    #[arg(long)]
    burn: bool,
}

#[derive(clap::Args)]
pub struct Equal {
    #[command(flatten)]
    model: Model,
    /// Tokens of each response.
    #[arg(long)]
    tokens: usize,
}

#[derive(clap::Args)]
pub struct Workload {
    #[command(flatten)]
    model: Model,
    /// How many of the file's prompts are answered.
    #[arg(long)]
    prompts: usize,
}

#[derive(Deserialize)]
struct Prompts {
    prompts: Vec<Vec<i32>>,
}

#[derive(Deserialize)]
struct PromptContent {
    prompts: Vec<AskedPrompt>,
}

#[derive(Deserialize)]
struct AskedPrompt {
    token_ids: Vec<i32>,
    response_tokens: Vec<usize>,
}

/// Greedy responses of one length to the first prompts.
pub fn equal(arguments: &Equal) -> Result<Value, Box<dyn Error>> {
    let Equal { model, tokens } = arguments;
    let Prompts { mut prompts } = read(&model.inputs.join("prompts.json"))?;
    prompts.truncate(model.batch);
    let engine = Engine::load(model)?;
    let lengths = |tokens: usize| vec![vec![tokens]; prompts.len()];
    engine.generate(&prompts, &lengths(8), 0.0)?;
    let start = Instant::now();
    let generated = engine.generate(&prompts, &lengths(*tokens), 0.0)?;
    let seconds = start.elapsed().as_secs_f64();
    let ids: Vec<i32> = generated.sequences.into_parts().0.to_vec();
    let start = prompts.first().map_or(0, Vec::len);
    let first = &ids[start..start + tokens];
    let count = prompts.len() * tokens;
    Ok(json!({
        "case": "generate", "side": "optune", "seconds": seconds, "peak_rss_bytes": peak_rss_bytes(), "threads": rayon::current_num_threads(),
        "model": model.model, "batch": model.batch, "tokens": count, "token_ids": first,
    }))
}

/// Sampled responses of the lengths that the file has.
pub fn workload(arguments: &Workload) -> Result<Value, Box<dyn Error>> {
    let Workload { model, prompts } = arguments;
    let PromptContent { prompts: mut asked } = read(&model.inputs.join("workload.json"))?;
    asked.truncate(*prompts);
    let (prompts, lengths): (Vec<_>, Vec<_>) = asked.into_iter().map(|prompt| (prompt.token_ids, prompt.response_tokens)).unzip();
    let engine = Engine::load(model)?;
    let few = model.batch.div_ceil(4).min(prompts.len());
    engine.generate(&prompts[..few], &vec![vec![8; 4]; few], 1.0)?;
    let start = Instant::now();
    let generated = engine.generate(&prompts, &lengths, 1.0)?;
    let seconds = start.elapsed().as_secs_f64();
    let prompt_tokens: usize = generated.prompt_token_counts.iter().sum();
    let count = generated.sequences.lengths().sum::<usize>() - prompt_tokens;
    Ok(json!({
        "case": "workload", "side": "optune", "seconds": seconds, "peak_rss_bytes": peak_rss_bytes(), "threads": rayon::current_num_threads(),
        "model": model.model, "batch": model.batch, "tokens": count,
    }))
}

struct Engine {
    generator: Generator,
    batch: usize,
    vocabulary_size: usize,
}

impl Engine {
    fn load(model: &Model) -> Result<Self, Box<dyn Error>> {
        if let Some(threads) = model.threads {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
        }
        let checkpoint = Checkpoint::open(&model.inputs.join(&model.model))?;
        let device = model.device.resolve()?;
        let generator = if model.burn {
            Generator::with_reference(checkpoint.load(&device)?.in_precision(model.precision))
        } else {
            Generator::load(&checkpoint, &device, model.precision)?
        };
        Ok(Self { generator, batch: model.batch, vocabulary_size: checkpoint.config.vocab_size })
    }

    fn generate(&self, prompts: &[Vec<i32>], lengths: &[Vec<usize>], temperature: f64) -> Result<Generated, Box<dyn Error>> {
        let sampling = Sampling {
            temperature,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            penalties: Penalties::NONE,
            min_new_tokens: 0,
            max_new_tokens: usize::MAX,
            eos: Vec::new(),
            vocabulary_size: self.vocabulary_size,
            max_total_tokens: usize::MAX,
        };
        let prompts = TokenLists::from_rows(prompts)?;
        Ok(self.generator.generate_lengths(&prompts, lengths, &sampling, self.batch, &mut |_| ControlFlow::Continue(()))?)
    }
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, Box<dyn Error>> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}
