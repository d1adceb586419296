//! The queries of addresses, hidden from what a run keeps: they may hold keys.
//!
//! Knows the types of the pipeline file. Knows no run folder.

use super::address::{Address, is_recorded, recorded};
use super::spec::input::Input;
use super::spec::{Param, Spec};

/// A shorter param counts as a key only if it is the whole query.
const SHORTEST_KEY: usize = 8;
/// In the place of a param with a key.
const HIDDEN: &str = "hidden";

/// The pipeline with hashes in place of the queries of its addresses, in params too.
pub(super) fn without_queries(spec: &Spec) -> Spec {
    let mut spec = spec.clone();
    let mut queries = Vec::new();
    for input in spec.inputs.values_mut() {
        let Input::Table(table) = input else { continue };
        for path in &mut table.table.0 {
            if let Some((url, query)) = with_query(&path.value) {
                queries.push(query);
                path.value = recorded(&url);
            }
        }
    }
    for value in spec.params.values_mut() {
        let Param::Text(text) = value else { continue };
        let is_key = |query: &String| text.contains(query) || (text.len() >= SHORTEST_KEY && query.contains(text.as_str()));
        if let Some((url, _)) = with_query(text) {
            *text = recorded(&url);
        } else if queries.iter().any(is_key) {
            *text = HIDDEN.to_string();
        }
    }
    spec
}

/// The address of a web server and its query, unless that is a hash already.
fn with_query(written: &str) -> Option<(String, String)> {
    let Some(Ok(Address::Web { url })) = Address::parse(written) else { return None };
    let (_, query) = url.split_once('?').filter(|(_, query)| !query.is_empty() && !is_recorded(&url))?;
    let query = query.to_string();
    Some((url, query))
}
