//! The pipeline file: YAML to a checked, unrolled graph.
//!
//! ```text
//! text ─▶ tree (positions) ─▶ one tree for each point of the matrix ─▶ params filled in
//!      ─▶ Spec (types, ranges) ─▶ short forms written out (adaptive)
//!      ─▶ names, slots, files, cycles checked ─▶ Graph
//! ```
//! Knows names, settings and required files; nothing of Arrow or burn, of running nodes, or of
//! finished outputs.

mod adaptive;
pub mod address;
mod check;
mod de;
mod error;
mod files;
pub mod graph;
mod hidden_queries;
mod load;
mod matrix;
mod params;
mod paths;
pub mod position;
mod precision;
mod process_files;
mod programs;
mod range;
mod relations;
mod schema;
mod scope;
pub mod slot;
pub mod spec;
mod tree;
mod unroll;

pub use error::{Mistake, PipelineError};
pub use graph::{Binding, Graph, Input, Source, SourceKind, Task};
pub use load::{Pipeline, Sweep};
pub use paths::{folder_of, seen_from};
pub use schema::schema;
pub use slot::Slot;
pub use spec::Spec;
pub use spec::operator::{Operator, Output};
pub use spec::precision::Precision;
pub use spec::resources::{Device, Resources};
