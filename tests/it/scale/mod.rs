//! The tables of `docs/concepts/scale.md`, computed: by arithmetic from published rates, and by a
//! simulation.
//!
//! `OPTUNE_UPDATE_DOCS=1` writes them. Without it a table other than the computed one is a fault.

mod simulation;

use std::fs;
use std::path::Path;

use simulation::{Outcome, Scenario, run};

/// The run: prompts, responses to each, tokens of a prompt and of a response at most, iterations.
const PROMPTS: f64 = 48_000.0;
const RESPONSES: f64 = 2.0;
const TOKENS: f64 = 512.0;
const ITERATIONS: f64 = 3.0;

/// Tokens sampled a second by one H100 (TensorRT-LLM 1.0, FP8, 1,000 tokens in and out).
const RATES: [(&str, f64, f64); 2] = [("8B", 8.03e9, 15_220.0), ("70B", 70.55e9, 4_205.0 / 2.0)];
/// Operations a second of one H100 in training (Llama 3, arXiv 2407.21783, table 4: 380 to 430).
const TRAINING: f64 = 400e12;
/// Seconds of select, merge and pair for a million prompts (docs/results/speed.md).
const RELATIONAL: f64 = 2.5;

/// The seeds of each simulated cell.
const SEEDS: u64 = 6;

#[test]
fn the_tables_of_the_page_about_scale_are_the_computed_ones() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/concepts/scale.md");
    let page = fs::read_to_string(&path).unwrap();
    let tables = [
        ("work", work()),
        ("bytes", bytes()),
        ("relational", relational()),
        ("parts", parts()),
        ("replicas", replicas()),
        ("slow", slow()),
    ];
    let mut computed = page.clone();
    for (name, table) in tables {
        let marker = format!("<!-- computed: {name} -->\n\n");
        let begin = computed.find(&marker).unwrap_or_else(|| panic!("{marker} is not in the page")) + marker.len();
        let end = begin + computed[begin..].find("\n\n").unwrap();
        computed.replace_range(begin..end, table.trim_end());
    }
    if std::env::var_os("OPTUNE_UPDATE_DOCS").is_some() {
        fs::write(&path, &computed).unwrap();
    }
    let page = fs::read_to_string(&path).unwrap();
    assert_eq!(page, computed, "update the page: OPTUNE_UPDATE_DOCS=1 cargo test --release --locked the_page_about_scale");
}

/// A table in Markdown.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let head: String = line(head.iter().map(ToString::to_string).collect()) + &format!("|{}\n", "---|".repeat(head.len()));
    head + &rows.iter().cloned().map(line).collect::<String>()
}

fn hours(seconds: f64) -> String {
    format!("{:.1}", seconds / 3600.0)
}

/// Device hours of the three iterations.
fn work() -> String {
    let sampled = PROMPTS * RESPONSES * TOKENS * ITERATIONS;
    let read = PROMPTS * RESPONSES * 2.0 * TOKENS * ITERATIONS;
    let rows = RATES.map(|(model, parameters, rate)| {
        let operations = |a_parameter: f64| a_parameter * parameters * read / TRAINING;
        let parts = [sampled / rate, operations(2.0), operations(2.0), operations(6.0)];
        let mut row = vec![model.to_string()];
        row.extend(parts.iter().map(|seconds| hours(*seconds)));
        row.push(hours(parts.iter().sum()));
        row
    });
    table(&["policy", "sampling", "reward model of that size", "reference logprobs", "training", "H100 hours in all"], &rows)
}

/// Bytes of weights and rows.
fn bytes() -> String {
    let gigabytes = |bytes: f64| if bytes < 1e12 { format!("{:.0} GB", bytes / 1e9) } else { format!("{:.1} TB", bytes / 1e12) };
    let rows = RATES.map(|(model, parameters, _)| {
        vec![
            model.to_string(),
            gigabytes(parameters * 2.0),
            gigabytes(parameters * 4.0),
            gigabytes(parameters * 4.0 * 8.0 * (ITERATIONS - 1.0)),
            gigabytes(parameters * 16.0),
            format!("{:.1} GB", PROMPTS * RESPONSES * 2.0 * TOKENS * 4.0 / 1e9),
        ]
    });
    table(
        &[
            "policy",
            "weights in bf16",
            "a trained policy, f32",
            "read by 8 servers for 2 updates",
            "weights, gradients, AdamW in f32",
            "token ids of an iteration",
        ],
        &rows,
    )
}

/// The relational stages of an iteration.
fn relational() -> String {
    let rows = [("48 thousand", 48e3), ("1 million", 1e6), ("10 million", 10e6), ("1 billion", 1e9)].map(|(words, prompts)| {
        let seconds = RELATIONAL * prompts / 1e6;
        let time = if seconds < 60.0 { format!("{seconds:.1} s") } else { format!("{:.0} min", seconds / 60.0) };
        vec![words.to_string(), time, if prompts == 1e6 { "measured" } else { "in proportion" }.to_string()]
    });
    table(&["prompts", "select, merge and pair", "source"], &rows)
}

/// The mean of a few runs.
fn mean(scenario: &Scenario) -> Outcome {
    let outcomes: Vec<Outcome> = (0..SEEDS).map(|seed| run(scenario, seed)).collect();
    let of = |number: fn(&Outcome) -> f64| outcomes.iter().map(number).sum::<f64>() / SEEDS as f64;
    Outcome {
        seconds: of(|outcome| outcome.seconds),
        over_ideal: of(|outcome| outcome.over_ideal),
        lost: of(|outcome| outcome.lost),
        ..outcomes[0].clone()
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// The size of a part against the kills of the process.
fn parts() -> String {
    let rows = [1, 10, 94, 1_000, 12_000].map(|prompts: usize| {
        let mut row = vec![prompts.to_string()];
        for killed in [600.0, 300.0, 120.0] {
            let outcome = mean(&Scenario { part: 2 * prompts, killed, ..Scenario::default() });
            row.push(format!("{}, {:.2}", percent(outcome.lost), outcome.over_ideal));
        }
        row
    });
    table(&["prompts in a part", "a kill every 10 min", "every 5 min", "every 2 min"], &rows)
}

/// Failures of replicas against their number.
fn replicas() -> String {
    let rows = [1, 4, 16].map(|replicas: usize| {
        let mut row = vec![replicas.to_string()];
        for replica_fails in [f64::INFINITY, 3600.0, 600.0] {
            let outcome = mean(&Scenario { replicas, replica_fails, ..Scenario::default() });
            row.push(format!("{}, {:.2}", percent(outcome.lost), outcome.over_ideal));
        }
        row
    });
    table(&["replicas", "no failure", "one an hour", "every 10 min"], &rows)
}

/// One slow replica of four.
fn slow() -> String {
    let rows = [1.0, 2.0, 10.0, 100.0].map(|slower: f64| {
        let over = |has_shares: bool| format!("{:.2}", mean(&Scenario { slower, has_shares, ..Scenario::default() }).over_ideal);
        vec![format!("{slower:.0} times"), over(false), over(true)]
    });
    table(&["slower", "one queue", "equal shares"], &rows)
}
