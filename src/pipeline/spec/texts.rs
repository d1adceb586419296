//! `texts`: a table of the user's own texts as the responses of a baseline. Never written by a
//! user: every `evaluate` with such a baseline adds one.
//!
//! Knows no key: the columns of the table are fixed.

use serde::Serialize;

/// Texts as responses.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Texts {}
