//! SQL over a run: committed parts and nothing else, queries and nothing else.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use arrow::util::pretty::pretty_format_batches;
use optune::sql::Session;
use optune::store::{Event, EventKind, OutputKey, StoreError};
use optune::tables::TableKind;

use crate::fixtures::store::{Space, counts, locked, make_table, part, recipe, rows_of, snapshot};
use optune::store::Run;
use optune::store::Runs;
use optune::tables::pool;

/// A run with the pool of two iterations, the second unfinished, and a table of the user's own.
fn run_with_tables(space: &Space) -> Run {
    let lock = space.lock("run");
    make_table(&lock, &OutputKey::table("pool", Some(1)), 0.5, 9).unwrap();
    make_table(&lock, &OutputKey::table("pool", Some(2)), 0.7, 1).unwrap();
    let mut writer = lock.write_table(&OutputKey::table("mine", None), &recipe(0.1), None, 3, 3).unwrap();
    let batch = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef)]).unwrap();
    writer.commit(0, &batch).unwrap();
    writer.finish(counts()).unwrap();
    lock.write_table(&OutputKey::table("pairs", Some(1)), &recipe(0.2), Some(TableKind::Pairs), 3, 3).unwrap();
    lock.record(Event::new(EventKind::NodeDone, "pool", Some(1))).unwrap();
    drop(lock);
    space.run("run")
}

fn number(session: &Session, query: &str) -> i64 {
    let batches = session.query(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    assert_eq!(rows_of(&batches), 1, "{query}");
    batches.iter().find(|batch| batch.num_rows() == 1).unwrap().column(0).as_primitive::<Int64Type>().value(0)
}

fn refused(session: &Session, query: &str) -> String {
    match session.query(query) {
        Err(StoreError::Sql { message }) => message,
        other => panic!("{query}: expected an error, found {other:?}"),
    }
}

#[test]
fn iterations_are_numbers_and_a_filter_on_them_finds_rows() {
    let space = Space::new();
    let session = Session::over_run(&run_with_tables(&space)).unwrap();
    assert_eq!(number(&session, "SELECT count(*) FROM pool"), 28);
    assert_eq!(number(&session, "SELECT count(*) FROM pool WHERE iteration = 1"), 20);
    assert_eq!(number(&session, "SELECT count(*) FROM pool WHERE iteration = 2 AND token_count >= 0"), 8);
    assert_eq!(number(&session, "SELECT count(*) FROM pool WHERE iteration > 2"), 0);
    assert_eq!(number(&session, "SELECT sum(iteration) FROM pool"), 20 + 16);
    let schema = session.query("SELECT iteration, prompt_id FROM pool LIMIT 1").unwrap()[0].schema();
    assert_eq!((schema.field(0).data_type(), schema.field(1).data_type()), (&DataType::Int32, &DataType::Utf8));
    // The user's own table, an empty one with a fixed schema, and the journal.
    assert_eq!(number(&session, "SELECT sum(n) FROM mine"), 6);
    assert_eq!(number(&session, "SELECT count(*) FROM pairs WHERE weight > 0"), 0);
    assert_eq!(number(&session, "SELECT sum(rows) FROM journal WHERE event = 'part_committed' AND node = 'pool'"), 28);
    assert_eq!(number(&session, "SELECT count(*) FROM journal WHERE event = 'node_done' AND iteration = 1 AND seconds IS NULL"), 1);
}

#[test]
fn parts_in_flight_are_invisible() {
    let space = Space::new();
    let run = run_with_tables(&space);
    let folder = run.path(&OutputKey::table("pool", Some(2)));
    std::fs::copy(folder.join("part-00000.parquet"), folder.join("part-00001.parquet")).unwrap();
    std::fs::write(folder.join("part-00002.parquet"), b"PAR1 half of a fi").unwrap();
    assert_eq!(number(&Session::over_run(&run).unwrap(), "SELECT count(*) FROM pool"), 28);
}

#[test]
fn rows_come_in_the_order_of_the_parts_every_time() {
    let space = Space::new();
    let run = run_with_tables(&space);
    let print = || pretty_format_batches(&Session::over_run(&run).unwrap().query("SELECT * FROM pool").unwrap()).unwrap().to_string();
    let first = print();
    for _ in 0..5 {
        assert_eq!(print(), first);
    }
    let expected: Vec<String> = pool::rows(&part(0.5, 0)).unwrap().into_iter().map(|row| row.prompt_id).collect();
    let batches = Session::over_run(&run).unwrap().query("SELECT prompt_id FROM pool").unwrap();
    let found: Vec<&str> = batches.iter().flat_map(|batch| batch.column(0).as_string::<i32>().iter().flatten()).take(8).collect();
    assert_eq!(found, expected);
}

#[test]
fn only_queries_are_answered() {
    let space = Space::new();
    let run = run_with_tables(&space);
    let session = Session::over_run(&run).unwrap();
    let before = snapshot(space.path());
    let target = space.path().join("out.parquet");
    for statement in [
        "DROP TABLE pool".to_string(),
        "CREATE TABLE x AS SELECT 1".to_string(),
        "CREATE VIEW x AS SELECT 1".to_string(),
        "INSERT INTO mine VALUES (4)".to_string(),
        "DELETE FROM mine".to_string(),
        "UPDATE mine SET n = 0".to_string(),
        "SET datafusion.execution.target_partitions = 4".to_string(),
        format!("COPY pool TO '{}'", target.display()),
        format!("CREATE EXTERNAL TABLE x STORED AS PARQUET LOCATION '{}'", space.path().display()),
        "SELECT 1; SELECT 2".to_string(),
    ] {
        refused(&session, &statement);
    }
    assert!(
        !refused(&session, &format!("SELECT * FROM '{}'", run.path(&OutputKey::table("mine", None)).join("part-00000.parquet").display()))
            .is_empty()
    );
    assert_eq!(snapshot(space.path()), before);
    assert_eq!(number(&session, "SELECT count(*) FROM pool"), 28);
    session.query("EXPLAIN SELECT * FROM pool").unwrap();
    assert!(rows_of(&session.query("SHOW TABLES").unwrap()) >= 4);
}

#[test]
fn errors_keep_the_engines_words() {
    let space = Space::new();
    let session = Session::over_run(&run_with_tables(&space)).unwrap();
    let error = refused(&session, "SELECT rewards FROM pool");
    assert!(error.contains("rewards") && error.contains("reward"), "{error}");
    let error = refused(&session, "SELECT * FROM pol");
    assert!(error.contains("pol' not found"), "{error}");
    let error = refused(&session, "SELEC 1");
    assert!(error.contains("SELEC"), "{error}");
    let error = refused(&session, "SELECT count(* FROM pool");
    assert!(error.contains("Line: 1"), "{error}");
}

/// DuckDB counts 21 and 3 rows for the texts without parentheses.
#[test]
fn a_comparison_that_the_engine_reads_in_another_way_is_refused() {
    let session = Session::new().unwrap();
    let table = "WITH v(x) AS (VALUES (true), (false), (NULL)) SELECT count(*) FROM v AS a, v AS b, v AS c WHERE ";
    for (text, fixed, expected) in [
        ("a.x IS DISTINCT FROM b.x OR c.x", "(a.x IS DISTINCT FROM b.x) OR c.x", 21),
        ("a.x IS NOT DISTINCT FROM b.x AND c.x", "(a.x IS NOT DISTINCT FROM b.x) AND c.x", 3),
    ] {
        let message = refused(&session, &format!("{table}{text}"));
        assert!(message.contains(&format!("write {fixed} at Line: 1, Column: ")), "{message}");
        assert_eq!(number(&session, &format!("{table}{fixed}")), expected);
        // Each operand first, where nothing follows it.
        assert_eq!(number(&session, &format!("{table}{}", swapped(text))), expected);
    }
}

/// `a OR b` as `b OR a`.
fn swapped(text: &str) -> String {
    let word = if text.contains(" OR ") { " OR " } else { " AND " };
    let (first, second) = text.rsplit_once(word).unwrap();
    format!("{second}{word}{first}")
}

#[test]
fn batches_files_and_places_can_be_registered_and_empty_results_have_columns() {
    let space = Space::new();
    let run = run_with_tables(&space);
    let session = Session::with_memory_limit(64 << 20, space.path()).unwrap();
    session.register_batches("a", vec![part(0.5, 0), part(0.5, 1)]).unwrap();
    session.register_outputs("b", &run, &[OutputKey::table("pool", Some(1)), OutputKey::table("pool", Some(2))]).unwrap();
    session.register_files("c", &[(None, run.path(&OutputKey::table("mine", None)).join("part-00000.parquet"))]).unwrap();
    assert_eq!(number(&session, "SELECT count(*) FROM a JOIN b USING (prompt_id, response_index) WHERE iteration = 1"), 16);
    assert_eq!(number(&session, "SELECT max(n) FROM c"), 3);
    let none = session.query("SELECT * FROM c WHERE n > 3").unwrap();
    assert_eq!((rows_of(&none), none[0].schema().field(0).name().as_str()), (0, "n"));
    assert!(refused(&session, "SELECT iteration FROM c").contains("iteration"));
    assert!(session.register_batches("d", Vec::new()).unwrap_err().to_string().contains("table d: expected at least one batch"));
    assert!(session.register_files("d", &[]).is_err());
    assert!(matches!(session.register_outputs("d", &run, &[OutputKey::table("none", None)]), Err(StoreError::Missing { .. })));
}

#[cfg(unix)]
#[test]
fn a_run_folder_with_odd_characters_can_be_queried() {
    let space = Space::new();
    let odd = space.path().join("a b%20[x]*?#é");
    let run = Runs::open(&odd).unwrap().run("run").unwrap();
    make_table(&locked(&run).unwrap(), &OutputKey::table("pool", Some(1)), 0.5, 9).unwrap();
    assert_eq!(number(&Session::over_run(&run).unwrap(), "SELECT count(*) FROM pool WHERE iteration = 1"), 20);
}

#[test]
fn the_expressions_of_rewards_over_text_work() {
    let session = Session::new().unwrap();
    let query = "SELECT CAST(length(regexp_replace('a-b-c', '-', '', 'g')) + array_length(string_to_array('x y z', ' ')) + abs(-2) + strpos('abc', 'c') AS BIGINT)";
    assert_eq!(number(&session, query), 3 + 3 + 2 + 3);
}

#[test]
fn views_counts_and_columns_of_queries() {
    let space = Space::new();
    let session = Session::over_run(&run_with_tables(&space)).unwrap();
    session.register_view("good", "SELECT prompt_id, reward FROM pool WHERE iteration = 1 AND token_count >= 25").unwrap();
    assert_eq!(
        session.count("SELECT count(*) FROM good").unwrap(),
        session.count("SELECT count(*) FROM pool WHERE iteration = 1 AND token_count >= 25").unwrap()
    );
    assert_eq!(session.tables(), ["annotations", "cost_by_stage", "good", "journal", "mine", "outputs", "pairs", "pool"]);
    let names: Vec<String> =
        session.schema_of("SELECT n, n / 2 AS half FROM mine").unwrap().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["n", "half"]);
    session.register_empty("none", TableKind::Rewards.schema()).unwrap();
    assert_eq!(session.count("SELECT count(*) FROM none WHERE reward > 0").unwrap(), 0);
    assert!(session.count("SELECT prompt_id FROM pool").unwrap_err().to_string().contains("expected one whole number"));
    assert!(session.register_view("bad", "DROP TABLE pool").is_err());
    assert!(session.schema_of("SELECT missing FROM pool").unwrap_err().is_input());
}
