//! An input of a node, resolved.
//!
//! Knows names and places, not kinds.

use crate::pipeline::position::Span;
use crate::pipeline::scope::Target;
use crate::pipeline::slot::Slot;

/// One input of a node: the slot, the name as written, and the thing behind the name.
#[derive(Clone, Debug)]
pub(in crate::pipeline) struct Link {
    pub(in crate::pipeline) slot: Slot,
    pub(in crate::pipeline) name: String,
    pub(in crate::pipeline) target: Target,
    pub(super) span: Span,
}
