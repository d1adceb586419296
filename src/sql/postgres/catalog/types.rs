//! The types of PostgreSQL: oids, names, and what `pg_type` says of them.
//!
//! Source: `pg_type` in PostgreSQL's documentation of the system catalogs. Knows no tables.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int16Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Schema;
use arrow::error::ArrowError;

use crate::sql::postgres::rows::AS_TYPE;

/// A type of PostgreSQL.
pub(super) struct TypeRow {
    /// Its oid.
    pub oid: i64,
    /// Its name in `pg_type`.
    pub name: &'static str,
    /// Its name in SQL.
    pub sql: &'static str,
    /// Its size in bytes; -1 for values of different sizes.
    length: i16,
    category: &'static str,
    /// The oid of lists of it; 0 for none.
    list: i64,
}

const fn row(oid: i64, name: &'static str, sql: &'static str, length: i16, category: &'static str, list: i64) -> TypeRow {
    TypeRow { oid, name, sql, length, category, list }
}

/// The types by oid.
pub(super) const TYPES: [TypeRow; 46] = [
    row(16, "bool", "boolean", 1, "B", 1000),
    row(17, "bytea", "bytea", -1, "U", 1001),
    row(18, "char", "\"char\"", 1, "Z", 1002),
    row(19, "name", "name", 64, "S", 1003),
    row(20, "int8", "bigint", 8, "N", 1016),
    row(21, "int2", "smallint", 2, "N", 1005),
    row(22, "int2vector", "int2vector", -1, "A", 1006),
    row(23, "int4", "integer", 4, "N", 1007),
    row(24, "regproc", "regproc", 4, "N", 1008),
    row(25, "text", "text", -1, "S", 1009),
    row(26, "oid", "oid", 4, "N", 1028),
    row(27, "tid", "tid", 6, "U", 1010),
    row(28, "xid", "xid", 4, "U", 1011),
    row(29, "cid", "cid", 4, "U", 1012),
    row(30, "oidvector", "oidvector", -1, "A", 1013),
    row(114, "json", "json", -1, "U", 199),
    row(142, "xml", "xml", -1, "U", 143),
    row(194, "pg_node_tree", "pg_node_tree", -1, "Z", 0),
    row(650, "cidr", "cidr", -1, "I", 651),
    row(700, "float4", "real", 4, "N", 1021),
    row(701, "float8", "double precision", 8, "N", 1022),
    row(705, "unknown", "unknown", -2, "X", 0),
    row(790, "money", "money", 8, "N", 791),
    row(829, "macaddr", "macaddr", 6, "U", 1040),
    row(869, "inet", "inet", -1, "I", 1041),
    row(1033, "aclitem", "aclitem", 16, "U", 1034),
    row(1042, "bpchar", "character", -1, "S", 1014),
    row(1043, "varchar", "character varying", -1, "S", 1015),
    row(1082, "date", "date", 4, "D", 1182),
    row(1083, "time", "time without time zone", 8, "D", 1183),
    row(1114, "timestamp", "timestamp without time zone", 8, "D", 1115),
    row(1184, "timestamptz", "timestamp with time zone", 8, "D", 1185),
    row(1186, "interval", "interval", 16, "T", 1187),
    row(1266, "timetz", "time with time zone", 12, "D", 1270),
    row(1700, "numeric", "numeric", -1, "N", 1231),
    row(2202, "regprocedure", "regprocedure", 4, "N", 2207),
    row(2205, "regclass", "regclass", 4, "N", 2210),
    row(2206, "regtype", "regtype", 4, "N", 2211),
    row(2249, "record", "record", -1, "P", 2287),
    row(2275, "cstring", "cstring", -2, "P", 1263),
    row(2277, "anyarray", "anyarray", -1, "P", 0),
    row(2278, "void", "void", 4, "P", 0),
    row(2950, "uuid", "uuid", 16, "U", 2951),
    row(3802, "jsonb", "jsonb", -1, "U", 3807),
    row(4089, "regnamespace", "regnamespace", 4, "N", 4090),
    row(4096, "regrole", "regrole", 4, "N", 4097),
];

/// The name of a type in SQL: `integer[]` for a list; `None` for an unknown oid.
pub(super) fn sql_name(oid: i64) -> Option<String> {
    let single = TYPES.iter().find(|row| row.oid == oid).map(|row| row.sql.to_string());
    single.or_else(|| TYPES.iter().find(|row| row.list == oid && oid != 0).map(|row| format!("{}[]", row.sql)))
}

/// The oid of a type by one of its names; `None` for an unknown name.
pub(super) fn oid(name: &str) -> Option<i64> {
    let name = name.trim().to_ascii_lowercase();
    let name = name.strip_prefix("pg_catalog.").unwrap_or(&name).trim_matches('"');
    let (single, is_list) = match (name.strip_suffix("[]"), name.strip_prefix('_')) {
        (Some(single), _) | (None, Some(single)) => (single, true),
        (None, None) => (name, false),
    };
    let single = match single {
        "int" => "int4",
        "decimal" => "numeric",
        "float" => "float8",
        other => other,
    };
    let found = TYPES.iter().find(|row| row.name == single || row.sql.trim_matches('"') == single)?;
    if is_list { (found.list != 0).then_some(found.list) } else { Some(found.oid) }
}

/// The table behind `pg_type`: a row for each type and for each type of lists.
pub(super) fn batch() -> Result<RecordBatch, ArrowError> {
    let single =
        TYPES.iter().map(|row| (row.oid, row.name.to_string(), row.length, row.category, 0, row.list, functions(row.name), row.sql));
    let lists = TYPES.iter().filter(|row| row.list != 0);
    let lists = lists.map(|row| (row.list, format!("_{}", row.name), -1, "A", row.oid, 0, "array_".to_string(), "ARRAY"));
    let rows: Vec<_> = single.chain(lists).collect();
    let kinds = rows.iter().map(|row| if row.3 == "P" { "p" } else { "b" });
    let columns: [(&str, ArrayRef); 9] = [
        ("oid", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)))),
        ("name", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.1)))),
        ("length", Arc::new(Int16Array::from_iter_values(rows.iter().map(|row| row.2)))),
        ("kind", Arc::new(StringArray::from_iter_values(kinds))),
        ("category", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.3)))),
        ("item", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.4)))),
        ("list", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.5)))),
        ("functions", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.6)))),
        ("sql", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.7)))),
    ];
    let batch = RecordBatch::try_from_iter(columns)?;
    // asyncpg compares a kind as a byte.
    let schema = batch.schema();
    let fields = schema.fields().iter().map(|field| {
        let field = field.as_ref().clone();
        if field.name() == "kind" { field.with_metadata([(AS_TYPE.to_string(), "char".to_string())].into()) } else { field }
    });
    let schema = Schema::new(fields.collect::<Vec<_>>());
    RecordBatch::try_new(Arc::new(schema), batch.columns().to_vec())
}

/// What the names of a type's four functions begin with: `bool` for `boolin`, `boolout`, `boolrecv`
/// and `boolsend`.
fn functions(name: &str) -> String {
    let separated = ["date", "time", "timestamp", "timestamptz", "interval", "timetz", "numeric", "uuid", "json", "jsonb", "xml", "inet"];
    let separated = separated.contains(&name) || ["cidr", "macaddr", "cash", "record", "cstring", "void"].contains(&name);
    if separated { format!("{name}_") } else { name.to_string() }
}

#[cfg(test)]
mod tests {
    use super::{TYPES, batch, oid, sql_name};

    #[test]
    fn types_have_the_oids_of_the_protocol() {
        for row in TYPES {
            let known = pgwire::api::Type::from_oid(u32::try_from(row.oid).unwrap()).unwrap();
            assert_eq!(known.name(), row.name);
            assert_eq!(oid(row.name), Some(row.oid));
            if row.list != 0 {
                let list = pgwire::api::Type::from_oid(u32::try_from(row.list).unwrap()).unwrap();
                assert_eq!(list.name(), format!("_{}", row.name));
                assert_eq!(oid(&format!("{}[]", row.name)), Some(row.list));
            }
        }
        assert_eq!(batch().unwrap().num_rows(), TYPES.len() + TYPES.iter().filter(|row| row.list != 0).count());
        assert_eq!(sql_name(1016).as_deref(), Some("bigint[]"));
        assert_eq!((sql_name(1), oid("nothing")), (None, None));
        assert_eq!(oid("pg_catalog.\"char\""), Some(18));
        assert_eq!(oid("Double Precision"), Some(701));
    }
}
