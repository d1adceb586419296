//! The files of a node's program in its recipe.
//!
//! Knows names and hashes, not the program.

use crate::dag::fingerprint::Fingerprint;

/// Where a recipe has them among its inputs.
pub const FILES: &str = "files";

/// The fingerprint of a file with this content. Its name counts too: a program finds its files by
/// their names.
pub fn fingerprint(name: &str, content: &Fingerprint) -> Fingerprint {
    Fingerprint::from_contents(serde_json::json!([name, content]).to_string().as_bytes())
}
