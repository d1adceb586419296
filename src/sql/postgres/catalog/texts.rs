//! The texts of the catalog's tables, and the names of their schemas.
//!
//! Knows no sessions.

use std::collections::HashSet;
use std::sync::LazyLock;

/// The schema of PostgreSQL's own tables.
pub(super) const CATALOG: &str = "pg_catalog";

/// The schema in place of `information_schema`, a name that belongs to the engine.
pub(super) const INFORMATION: &str = "information";

/// The tables with rows.
pub(super) const VIEWS: &str = include_str!("views.sql");
/// The tables without rows.
pub(super) const EMPTY: &str = include_str!("empty.sql");

/// The types that asyncpg looks up, in place of its recursive query.
pub(super) const ASYNCPG: &str = include_str!("asyncpg.sql");

/// The names of the tables without rows.
pub(super) static EMPTY_TABLES: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    let named = EMPTY.lines().filter_map(|line| line.strip_prefix("CREATE TABLE ")?.split(' ').next());
    named.map(|name| name.strip_prefix("information.").unwrap_or(name)).collect()
});
