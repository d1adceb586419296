//! A report: one HTML file about a run, or about several compared.
//!
//! ```text
//! run folder ─▶ Source (SQL, manifests, journal, pipeline.yaml) ─▶ sections of blocks ─▶ page/page.html ─▶ one file
//! ```
//! The file loads nothing: style, charts and their library are in it. Its policy
//! (`Content-Security-Policy`) forbids every request and every script but its own. Tables are found
//! by their kind and by their inputs in the pipeline, never by a name. Only committed data are
//! read, so a run can be reported while it goes on; the report names missing parts. Its bytes
//! depend on the runs alone: no clock, no random seed from outside.
//!
//! # The charts' library
//! Observable Plot 0.6.17 on D3 7.9.2 (ISC), and dagre 3.1.3 (MIT) for the layout of the graph, as
//! npm publishes them, in `page/vendor` with their licences. Weighed against:
//! - SVG made here. `plotters` has had no release since September 2024; `kuva` is younger than a
//!   year and breaks its interface every month; `charming` needs ECharts' megabyte or a JavaScript
//!   engine. All draw at one width: on a narrow screen the letters shrink with the picture. They
//!   know the browser's own tooltips only (slow, and none on a touch screen).
//! - uPlot 1.6 (50 kB) and Chart.js 4.6 (200 kB) draw on a canvas: its colours do not follow light
//!   and dark or the printer by themselves, and letters are blurred on paper.
//!
//! Plot makes SVG at the available width, with CSS variables as colours: light, dark and print are
//! a matter of the style sheet. It costs half a megabyte a report. Without scripts, the tables
//! still show the numbers of the charts.
//!
//! Knows nothing of tensors, of how a node runs or of the terminal.

mod alarms;
mod benchmark;
mod block;
mod card;
mod compare;
mod cost;
mod error;
mod evaluation;
mod expected_gain;
mod graph;
mod groups;
mod judge;
mod outline;
mod overview;
mod page;
mod pairs;
mod prompts;
mod quality;
mod ranking;
mod regeneration;
mod rewards;
mod settings;
mod source;
mod spending;
pub mod statistics;
mod training;
mod trend;
mod words;

use crate::store::Run;
use crate::tables::TableKind;

pub use block::Section;
pub use card::{dataset_card, model_card};
pub use error::ReportError;
pub use judge::{Verdicts, verdicts};
pub use outline::{Expected, Node, Outline, Part, Read};
use page::Heading;
pub use page::{Script, scripts};
use source::Source;

/// The HTML of a report: one run in full, or several compared by their results.
///
/// # Errors
/// A run cannot be read.
pub fn html(runs: &[Run]) -> Result<String, ReportError> {
    let sources: Vec<Source> = runs.iter().map(Source::open).collect::<Result<_, _>>()?;
    match sources.as_slice() {
        [source] => {
            let iterations = source.iterations();
            let loops = if iterations > 0 { format!("{}, ", words::counted(i64::from(iterations), "iteration")) } else { String::new() };
            let subtitle = format!("{loops}seed {}", source.spec.seed);
            let heading = Heading { title: source.name().to_string(), subtitle, state: overview::state(source).to_string() };
            page::render(&heading, &one(source)?)
        }
        several => {
            let names: Vec<&str> = several.iter().map(Source::name).collect();
            let subtitle = match names.as_slice() {
                [first, .., last] if names.len() > 6 => format!("{first} to {last}"),
                _ => names.join(", "),
            };
            let heading = Heading { title: format!("{} runs compared", names.len()), subtitle, state: String::new() };
            page::render(&heading, &compare::sections(several)?)
        }
    }
}

/// The sections of a report about one run, to be shown elsewhere: text and numbers, no HTML.
///
/// # Errors
/// The run cannot be read.
pub fn sections(run: &Run) -> Result<Vec<Section>, ReportError> {
    one(&Source::open(run)?)
}

/// The sections about one run, as far as its tables are there.
fn one(source: &Source) -> Result<Vec<Section>, ReportError> {
    let mut sections = vec![overview::section(source)?];
    for (index, table) in source.tables(TableKind::Evaluation).into_iter().enumerate() {
        let id = if index == 0 { "evaluation".to_string() } else { format!("evaluation-{}", index + 1) };
        sections.extend(evaluation::section(source, table, &id)?);
    }
    sections.extend(quality::section(source)?);
    sections.extend(benchmark::section(source)?);
    sections.extend(judge::section(source)?);
    sections.extend(rewards::section(source)?);
    sections.extend(regeneration::section(source)?);
    sections.extend(expected_gain::section(source)?);
    sections.extend(pairs::section(source)?);
    sections.extend(training::section(source)?);
    sections.extend(ranking::section(source)?);
    sections.extend(cost::section(source)?);
    sections.push(graph::section(source));
    sections.extend(settings::own_tables(source));
    sections.push(settings::section(source)?);
    Ok(sections)
}
