//! The tables behind the catalog: schemas, relations and their columns, with stable oids.
//!
//! Knows names and columns, not the catalog's views over them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int16Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, SchemaRef};
use arrow::error::ArrowError;

use crate::sql::TableInfo;
use crate::sql::postgres::rows::postgres_type;

/// The schemas with the oids of their namespaces. The first two are PostgreSQL's.
pub(super) const SCHEMAS: [(&str, i64); 3] = [("pg_catalog", 11), ("public", 2200), ("information_schema", 13000)];

/// The least oid of an object of a user.
const FIRST_OID: i64 = 16_384;

/// The number of oids above it, so that each fits into 31 bits.
const OIDS: i64 = (1 << 31) - FIRST_OID;

/// A table or view.
pub(super) struct Relation {
    pub oid: i64,
    pub schema: &'static str,
    pub name: String,
    /// Whether it is a view.
    view: bool,
    /// The text of a view, if it is known.
    pub definition: Option<String>,
    columns: SchemaRef,
}

/// The tables and views of each schema, with their oids. An oid is a hash of the name, so it stays
/// the same while the run makes tables and at the next start.
pub(super) fn with_oids(tables: Vec<(&'static str, TableInfo)>) -> Vec<Relation> {
    let named: BTreeMap<String, _> =
        tables.into_iter().map(|(schema, table)| (format!("{schema}.{}", table.name), (schema, table))).collect();
    let mut taken = HashSet::new();
    let relation = |(full, (schema, table)): (String, (&'static str, TableInfo))| {
        let [a, b, c, d, ..] = *blake3::hash(full.as_bytes()).as_bytes();
        let mut oid = FIRST_OID + i64::from(u32::from_le_bytes([a, b, c, d])) % OIDS;
        while !taken.insert(oid) {
            oid = FIRST_OID + (oid + 1 - FIRST_OID) % OIDS;
        }
        Relation { oid, schema, name: table.name, view: table.view, definition: table.definition, columns: table.schema }
    };
    named.into_iter().map(relation).collect()
}

/// The table `schemas`: oid, name.
pub(super) fn schemas() -> Result<RecordBatch, ArrowError> {
    let columns: [(&str, ArrayRef); 2] = [
        ("oid", Arc::new(Int64Array::from_iter_values(SCHEMAS.map(|(_, oid)| oid)))),
        ("name", Arc::new(StringArray::from_iter_values(SCHEMAS.map(|(name, _)| name)))),
    ];
    RecordBatch::try_from_iter(columns)
}

/// The table `relations`: oid, schema (an oid), name, kind (`r` for tables, `v` for views), the
/// number of columns, definition (of views).
pub(super) fn relations(relations: &[Relation]) -> Result<RecordBatch, ArrowError> {
    let schema = |relation: &Relation| SCHEMAS.iter().find(|(name, _)| *name == relation.schema).map_or(0, |(_, oid)| *oid);
    let number = |relation: &Relation| i16::try_from(relation.columns.fields().len()).unwrap_or(i16::MAX);
    let columns: [(&str, ArrayRef, bool); 6] = [
        ("oid", Arc::new(Int64Array::from_iter_values(relations.iter().map(|relation| relation.oid))), false),
        ("schema", Arc::new(Int64Array::from_iter_values(relations.iter().map(schema))), false),
        ("name", Arc::new(StringArray::from_iter_values(relations.iter().map(|relation| &relation.name))), false),
        ("kind", Arc::new(StringArray::from_iter_values(relations.iter().map(|relation| if relation.view { "v" } else { "r" }))), false),
        ("columns", Arc::new(Int16Array::from_iter_values(relations.iter().map(number))), false),
        ("definition", Arc::new(StringArray::from_iter(relations.iter().map(|relation| relation.definition.as_deref()))), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns)
}

/// The table `columns`: relation (an oid), name, number (from 1), type (an oid), nullable.
pub(super) fn columns(relations: &[Relation]) -> Result<RecordBatch, ArrowError> {
    let fields = relations.iter().flat_map(|relation| {
        let fields = relation.columns.fields().iter().enumerate();
        fields.map(|(index, field)| (relation.oid, i16::try_from(index + 1).unwrap_or(i16::MAX), field.as_ref()))
    });
    let fields: Vec<(i64, i16, &Field)> = fields.collect();
    let kind = |field: &Field| i64::from(postgres_type(field.data_type()).oid());
    let columns: [(&str, ArrayRef); 5] = [
        ("relation", Arc::new(Int64Array::from_iter_values(fields.iter().map(|(oid, _, _)| *oid)))),
        ("name", Arc::new(StringArray::from_iter_values(fields.iter().map(|(_, _, field)| field.name())))),
        ("number", Arc::new(Int16Array::from_iter_values(fields.iter().map(|(_, number, _)| *number)))),
        ("type", Arc::new(Int64Array::from_iter_values(fields.iter().map(|(_, _, field)| kind(field))))),
        ("nullable", Arc::new(BooleanArray::from_iter(fields.iter().map(|(_, _, field)| Some(field.is_nullable()))))),
    ];
    RecordBatch::try_from_iter(columns)
}
