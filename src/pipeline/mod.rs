//! The pipeline file: YAML to a checked, unrolled graph.
//!
//! ```text
//! text ─▶ tree (positions) ─▶ params filled in ─▶ Spec (types, ranges) ─▶ names, slots, files, cycles checked ─▶ Graph
//! ```
//! Knows names, settings and which files must be there; nothing of Arrow or burn, of how a node runs or of what is already done.

pub mod graph;
pub mod position;
mod range;
pub mod spec;

pub use graph::{Graph, Input, Slot, Source, SourceKind, Task};
pub use spec::Spec;
pub use spec::operator::{Device, Operator, Output, Resources};
