//! `sql`: a table of the user's own.
//!
//! Knows the keys of the operator, not what the query means.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::query::Query;
use crate::pipeline::position::Name;

/// A table of your own, from one SQL query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sql {
    /// The query, or the path of a file with the extension `.sql`, from the folder of the file.
    pub query: Query,
    /// Names for tables inside the query, for tables not read by their own name:
    /// `{ previous: "pool[t-1]" }`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub tables: IndexMap<String, Name>,
}
