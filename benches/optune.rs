//! Our side of the measurements: one process is one measurement, which prints one JSON object. `benches/README.md` has the cases.
//!
//! Knows which cases there are; each is a file of its own.

mod dpo_step;
mod generate;
mod measurement;
mod products;
mod relational;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The program's own, so that both are measured alike.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    case: Case,
    /// Given by `cargo bench`; means nothing.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Case {
    /// Steps of weighted DPO.
    DpoStep(dpo_step::DpoStep),
    /// Responses of equal lengths, one a prompt.
    Generate(generate::Equal),
    /// Four responses a prompt, of lengths as in real runs.
    Workload(generate::Workload),
    /// Matrix products in f32 and bf16 beside the most the CPU computes.
    Products(products::Products),
    /// select, merge and pair, from the inputs' Parquet files to Parquet files.
    Relational(relational::Arguments),
}

fn main() -> ExitCode {
    let measured = match Arguments::parse().case {
        Case::DpoStep(arguments) => dpo_step::run(&arguments),
        Case::Generate(arguments) => generate::equal(&arguments),
        Case::Workload(arguments) => generate::workload(&arguments),
        Case::Products(arguments) => products::run(&arguments),
        Case::Relational(arguments) => relational::measure(&arguments),
    };
    match measured {
        Ok(measurement) => {
            println!("{measurement}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
