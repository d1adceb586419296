//! `docs/reference/tables.md`, from the tables' own definitions.

use std::fmt::Write;

use arrow::datatypes::{DataType, Field};
use optune::tables::{SCHEMA_VERSION_KEY, TableKind};

use super::cell;

const HEAD: &str = "# Tables

All tables with a fixed schema, in the order of the data flow. They are Parquet files. Each write and each read checks
the schema and the rows. The partition folder adds the column `iteration`. [The run folder](../concepts/run-folder.md)
has the files and the joins.

This page is made from the code by a test.
";

/// The whole page.
pub fn page() -> String {
    let mut page = HEAD.to_string();
    for kind in TableKind::ALL {
        table(&mut page, kind);
    }
    page
}

fn table(page: &mut String, kind: TableKind) {
    let schema = kind.schema();
    let version = schema.metadata().get(SCHEMA_VERSION_KEY).map_or("", String::as_str);
    let names = |columns: &[&str]| columns.iter().map(|column| format!("`{column}`")).collect::<Vec<_>>().join(", ");
    writeln!(page, "\n## {kind}\n\n{}\n", cell(kind.row_meaning())).unwrap();
    writeln!(page, "Key: {}. Order: {}. Schema version: {version}.\n", names(kind.key()), names(kind.order())).unwrap();
    page.push_str("| column | type | meaning |\n|---|---|---|\n");
    let columns = kind.columns();
    assert_eq!(columns.len(), schema.fields().len(), "{kind}: columns without a meaning");
    for (column, field) in columns.iter().zip(schema.fields()) {
        assert_eq!(column.name, field.name(), "{kind}");
        writeln!(page, "| `{}` | {} | {} |", column.name, cell(&optional(field)), cell(column.meaning)).unwrap();
    }
}

/// The type of a column, and whether it may be null.
fn optional(field: &Field) -> String {
    let kind = type_name(field.data_type());
    if field.is_nullable() { format!("{kind} or null") } else { kind }
}

/// A type's name in Arrow, in small letters; lists and structs with their contents.
fn type_name(kind: &DataType) -> String {
    match kind {
        DataType::Utf8 => "text".to_string(),
        DataType::List(item) | DataType::LargeList(item) => format!("list of {}", optional(item)),
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields.iter().map(|field| format!("{}: {}", field.name(), optional(field))).collect();
            format!("struct of {}", fields.join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => format!("map from {} to {}", optional(&fields[0]), optional(&fields[1])),
            other => format!("map of {}", type_name(other)),
        },
        other => other.to_string().to_lowercase(),
    }
}
