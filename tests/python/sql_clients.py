"""Asks `optune sql RUN --serve` with PostgreSQL's clients: connect, list, describe, bind parameters, read rows.

    python tests/python/sql_clients.py PORT RUN EXPECTED [CLIENT...]

EXPECTED is a folder with the rows of some tables as `optune sql RUN` writes them, in TABLE.parquet; of the tables of a run that goes on it has none.
Prints a line for each client, and fails after all of them if one fails. Knows nothing of optune but its tables.
"""

import asyncio
import datetime
import decimal
import json
import pathlib
import shutil
import subprocess
import sys
import time
import traceback
import uuid

import adbc_driver_postgresql.dbapi
import asyncpg
import connectorx
import duckdb
import numpy
import pandas
import pg8000.dbapi
import pgcli.pgexecute
import pgspecial.main
import polars
import psycopg
import psycopg2
import psycopg2.extras
import pyarrow.parquet
import sqlalchemy
import sqlalchemy.ext.asyncio

HOST = "127.0.0.1"
UTC = datetime.timezone.utc

# Names in the query, values in Python, and what comes back where it is something else.
PARAMETERS = [
    ("bool", True, True),
    ("int2", 7, 7),
    ("int4", -70_000, -70_000),
    ("int8", 7_000_000_000, 7_000_000_000),
    ("float4", 0.25, 0.25),
    ("float8", 1.0 / 3.0, 1.0 / 3.0),
    ("numeric(12, 4)", decimal.Decimal("-12345.6789"), decimal.Decimal("-12345.6789")),
    ("text", "it's ü \\ \"x\"", "it's ü \\ \"x\""),
    ("date", datetime.date(2026, 2, 28), datetime.date(2026, 2, 28)),
    ("timestamp", datetime.datetime(2026, 2, 28, 1, 2, 3, 456789), datetime.datetime(2026, 2, 28, 1, 2, 3, 456789)),
    ("timestamptz", datetime.datetime(2026, 2, 28, 1, 2, 3, tzinfo=UTC), datetime.datetime(2026, 2, 28, 1, 2, 3, tzinfo=UTC)),
    # The engine has no such type: a text.
    ("uuid", uuid.UUID(int=0x1234567890), str(uuid.UUID(int=0x1234567890))),
    ("bytea", b"\x00\xff'\\", b"\x00\xff'\\"),
    ("int4[]", [1, 2, 3], [1, 2, 3]),
    ("int8[]", [1, 2**40], [1, 2**40]),
    ("float8[]", [0.5, 1.5], [0.5, 1.5]),
    ("text[]", ["a", "b c"], ["a", "b c"]),
]

THOUSAND = "SELECT value, value * 0.5 AS half, 'row ' || value AS name, value % 2 = 0 AS even FROM generate_series(1, 1000) ORDER BY value"
A_THOUSAND = [(value, value * 0.5, f"row {value}", value % 2 == 0) for value in range(1, 1001)]


class Run:
    """The served run and the rows that its tables have."""

    def __init__(self, port, name, expected):
        self.port = port
        self.name = name
        self.expected = {file.stem: pyarrow.parquet.read_table(file).to_pylist() for file in sorted(pathlib.Path(expected).glob("*.parquet"))}
        self.url = f"postgresql://any@{HOST}:{port}/{name}"

    def tables(self):
        """Tables that the run surely has."""
        return sorted(self.expected) or ["journal", "outputs", "prompts"]

    def check(self, read):
        """Compares the rows of each table, as a list of dictionaries, with those of its file."""
        for table, expected in self.expected.items():
            assert_same(read(f'SELECT * FROM "{table}"'), expected, table)
        if not self.expected:
            assert read("SELECT * FROM prompts"), "no prompts"


def plain(value):
    """A value in one form for all clients: numbers of pandas as Python's, nothing as None."""
    if isinstance(value, memoryview):
        value = bytes(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and value != value:
        return None
    if value is pandas.NaT:
        return None
    return value


def assert_same(rows, expected, table):
    assert len(rows) == len(expected), f"{table}: {len(rows)} rows, not {len(expected)}"
    for row, want in zip(rows, expected):
        assert list(row) == list(want), f"{table}: {list(row)}, not {list(want)}"
        for column, value in want.items():
            # Maps and lists of structs are texts for PostgreSQL's clients.
            if isinstance(value, list) and value and isinstance(value[0], (tuple, dict)):
                continue
            found, value = plain(row[column]), plain(value)
            # A float4 comes as its shortest text, which is another float8.
            if column == "token_logprobs" and found is not None and value is not None:
                found, value = (numpy.float32(numbers).tolist() for numbers in (found, value))
            assert found == value, f"{table}.{column}: {row[column]!r}, not {value!r}"


def check_thousand(rows):
    rows = [tuple(row) for row in rows]
    assert rows == A_THOUSAND, f"{len(rows)} rows, {rows[:2]}"


def check_cursor(run, connection, mark="%s", skip=()):
    """A connection as Python's database interface has it."""
    cursor = connection.cursor()

    def read(query):
        cursor.execute(query)
        return [dict(zip([column[0] for column in cursor.description], row)) for row in cursor.fetchall()]

    run.check(read)
    cursor.execute(THOUSAND)
    check_thousand(cursor.fetchall())
    for kind, value, expected in PARAMETERS:
        if kind in skip:
            continue
        cursor.execute(f"SELECT CAST({mark} AS {kind}) AS value", (value,))
        (found,) = cursor.fetchone()
        assert plain(found) == expected, f"{kind}: {found!r}, not {expected!r}"
        cursor.execute(f"SELECT CAST({mark} AS {kind}) AS value", (None,))
        assert cursor.fetchone()[0] is None, kind
    cursor.execute(f"SELECT count(*) FROM prompts WHERE prompt_id <> {mark} AND prompt_id IS NOT NULL", ("none",))
    assert cursor.fetchone()[0] > 0
    cursor.execute("SELECT EXTRACT(year FROM TIMESTAMP '2026-02-28 01:02:03.5'), EXTRACT(epoch FROM TIMESTAMP '1970-01-02 00:00:00.25')")
    assert [float(value) for value in cursor.fetchone()] == [2026.0, 86400.25]
    try:
        cursor.execute("SELECT * FROM promts")
    except Exception as error:
        assert "did you mean" in str(error), error
        connection.rollback()
    else:
        raise AssertionError("an unknown table was read")
    cursor.execute("SELECT 1")
    assert cursor.fetchone()[0] == 1


def of_psycopg2(run):
    psycopg2.extras.register_uuid()
    connection = psycopg2.connect(host=HOST, port=run.port, user="any", dbname=run.name)
    check_cursor(run, connection)
    with connection.cursor(name="some") as cursor:
        cursor.itersize = 100
        cursor.execute(THOUSAND)
        check_thousand(list(cursor))
    with connection.cursor() as cursor, open(pathlib.Path(run.folder) / "copied.csv", "w+") as file:
        cursor.copy_expert(f"COPY ({THOUSAND}) TO STDOUT WITH (FORMAT csv, HEADER)", file)
        file.seek(0)
        lines = file.read().splitlines()
        assert lines[0] == "value,half,name,even" and lines[1] == "1,0.5,row 1,f" and len(lines) == 1001, lines[:2]
        cursor.execute("SELECT 1; SELECT 2")
        assert cursor.fetchone()[0] == 2
        cursor.execute("SHOW server_version_num")
        assert int(cursor.fetchone()[0]) >= 120000
    connection.close()


def of_psycopg(run):
    with psycopg.connect(run.url) as connection:
        check_cursor(run, connection)
        with connection.cursor(binary=True) as cursor:
            cursor.execute(THOUSAND)
            check_thousand(cursor.fetchall())
            cursor.execute("SELECT CAST('-12.3400' AS numeric(8, 4)), CAST(NULL AS date)")
            assert cursor.fetchone() == (decimal.Decimal("-12.3400"), None)
        with connection.cursor(name="some") as cursor:
            cursor.execute(THOUSAND)
            assert len(cursor.fetchmany(10)) == 10 and len(cursor.fetchall()) == 990
        with connection.cursor() as cursor, cursor.copy(f"COPY ({THOUSAND}) TO STDOUT (FORMAT binary)") as copy:
            copy.set_types(["int8", "float8", "text", "bool"])
            check_thousand(list(copy.rows()))
        with connection.cursor() as cursor, cursor.copy(f"COPY ({THOUSAND}) TO STDOUT") as copy:
            copy.set_types(["int8", "float8", "text", "bool"])
            check_thousand(list(copy.rows()))


def of_pg8000(run):
    connection = pg8000.dbapi.connect(user="any", host=HOST, port=run.port, database=run.name)
    check_cursor(run, connection)
    connection.close()


def of_asyncpg(run):
    async def ask():
        connection = await asyncpg.connect(run.url)
        for table, expected in run.expected.items():
            assert_same([dict(row) for row in await connection.fetch(f'SELECT * FROM "{table}"')], expected, table)
        check_thousand([tuple(row) for row in await connection.fetch(THOUSAND)])
        for kind, value, expected in PARAMETERS:
            # A text for the server.
            value = str(value) if kind == "uuid" else value
            found = await connection.fetchval(f"SELECT CAST($1 AS {kind})", value)
            assert found == expected, f"{kind}: {found!r}, not {expected!r}"
            assert await connection.fetchval(f"SELECT CAST($1 AS {kind})", None) is None, kind
        async with connection.transaction():
            rows = [tuple(row) async for row in connection.cursor(THOUSAND, prefetch=90)]
            check_thousand(rows)
        file = pathlib.Path(run.folder) / "asyncpg.csv"
        await connection.copy_from_query(THOUSAND, output=str(file), format="csv", header=True)
        assert len(file.read_text().splitlines()) == 1001
        assert await connection.fetchval("SELECT current_database()") == run.name
        await connection.close()
        async with asyncpg.create_pool(run.url, min_size=2, max_size=4) as pool:
            counts = await asyncio.gather(*[pool.fetchval("SELECT count(*) FROM prompts") for _ in range(12)])
            assert len(set(counts)) == 1

    asyncio.run(ask())


def inspect(run, inspector):
    tables = inspector.get_table_names()
    assert set(run.tables()) <= set(tables), tables
    assert "journal" in tables and not any(name.startswith("pg_") for name in tables), tables
    views = inspector.get_view_names()
    assert not set(views) & set(tables), views
    if run.expected:
        assert {"reward_by_iteration", "cost_by_stage"} <= set(views), views
        assert "SELECT" in inspector.get_view_definition("reward_by_iteration")
    assert inspector.get_schema_names() and "public" in inspector.get_schema_names()
    assert inspector.default_schema_name == "public"
    for table in run.tables():
        columns = {column["name"]: column for column in inspector.get_columns(table)}
        assert columns and all(column["default"] is None for column in columns.values()), columns
        if run.expected and run.expected[table]:
            assert list(columns) == list(run.expected[table][0]), (table, list(columns))
        for ask in ["get_pk_constraint", "get_indexes", "get_foreign_keys", "get_unique_constraints", "get_check_constraints", "get_table_comment"]:
            found = getattr(inspector, ask)(table)
            assert not [value for value in (found.values() if isinstance(found, dict) else found) if value], (ask, found)
    kinds = {column["name"]: str(column["type"]) for column in inspector.get_columns("prompts")}
    assert kinds["prompt_id"] == "TEXT", kinds
    assert inspector.has_table("prompts") and not inspector.has_table("nothing")


def of_sqlalchemy(run):
    for driver in ["psycopg2", "psycopg", "pg8000"]:
        engine = sqlalchemy.create_engine(run.url.replace("postgresql", f"postgresql+{driver}"))
        with engine.connect() as connection:
            inspect(run, sqlalchemy.inspect(connection))
            check_thousand(connection.execute(sqlalchemy.text(THOUSAND)).all())
            metadata = sqlalchemy.MetaData()
            prompts = sqlalchemy.Table("prompts", metadata, autoload_with=connection)
            some = connection.execute(sqlalchemy.select(prompts.c.prompt_id).where(prompts.c.prompt_id.in_(["p-001", "p-002"]))).all()
            assert len(some) == 2, some
            metadata.reflect(connection)
            assert "journal" in metadata.tables
            run.check(lambda query: pandas.read_sql(query, connection).astype(object).to_dict("records"))
            frame = pandas.read_sql_table("prompts", connection)
            assert len(frame) >= 20
        engine.dispose()

    async def ask():
        engine = sqlalchemy.ext.asyncio.create_async_engine(run.url.replace("postgresql", "postgresql+asyncpg"))
        async with engine.connect() as connection:
            await connection.run_sync(lambda connection: inspect(run, sqlalchemy.inspect(connection)))
            check_thousand((await connection.execute(sqlalchemy.text(THOUSAND))).all())
        await engine.dispose()

    asyncio.run(ask())


def of_connectorx(run):
    frame = connectorx.read_sql(run.url, THOUSAND)
    check_thousand([(int(a), float(b), c, bool(d)) for a, b, c, d in frame.itertuples(index=False)])
    for protocol in ["binary", "csv", "cursor", "simple"]:
        table = connectorx.read_sql(run.url, "SELECT prompt_id FROM prompts ORDER BY prompt_id", protocol=protocol)
        assert len(table) >= 20 and table["prompt_id"][0] == "p-000", protocol
    parts = connectorx.read_sql(run.url, "SELECT value FROM generate_series(1, 1000)", partition_on="value", partition_num=3)
    assert sorted(parts["value"]) == list(range(1, 1001))


def of_polars(run):
    for engine in ["connectorx", "adbc"]:
        frame = polars.read_database_uri(THOUSAND, run.url, engine=engine)
        check_thousand(frame.rows())
        frame = polars.read_database_uri("SELECT prompt_id FROM prompts ORDER BY prompt_id", run.url, engine=engine)
        assert len(frame) >= 20 and frame["prompt_id"][0] == "p-000", engine


def of_adbc(run):
    with adbc_driver_postgresql.dbapi.connect(run.url) as connection:
        with connection.cursor() as cursor:
            cursor.execute(THOUSAND)
            table = cursor.fetch_arrow_table()
            check_thousand(zip(*[table[name].to_pylist() for name in table.column_names]))

            def read(query):
                cursor.execute(query)
                return cursor.fetch_arrow_table().to_pylist()

            run.check(read)
            for kind, value in [("int8", 7), ("float8", 0.5), ("text", "a"), ("bool", True)]:
                cursor.execute(f"SELECT CAST($1 AS {kind}) AS value", (value,))
                assert cursor.fetchone() == (value,), kind
        objects = connection.adbc_get_objects(depth="all", db_schema_filter="public").read_all().to_pylist()
        (catalog,) = [item for item in objects if item["catalog_name"] == run.name]
        (schema,) = catalog["catalog_db_schemas"]
        found = {table["table_name"]: [column["column_name"] for column in table["table_columns"]] for table in schema["db_schema_tables"]}
        assert set(run.tables()) <= set(found) and "prompt_id" in found["prompts"], found
        assert connection.adbc_get_table_schema("prompts").names[0] == "prompt_id"


def of_pgcli(run):
    asked = pgcli.pgexecute.PGExecute(run.name, "any", "", HOST, run.port, "")
    assert ("public" in asked.schemata()) and asked.search_path()
    tables = list(asked.tables())
    assert set(("public", table) for table in run.tables()) <= set(tables), tables
    views = list(asked.views())
    if run.expected:
        assert ("public", "reward_by_iteration") in views, views
    columns = [column for column in asked.table_columns() if column[:2] == ("public", "prompts")]
    assert columns[0][2:4] == ("prompt_id", "text"), columns
    list(asked.view_columns())
    assert list(asked.foreignkeys()) == []
    list(asked.functions())
    list(asked.datatypes())
    assert run.name in asked.databases()
    assert asked.server_version.startswith("1")
    if run.expected:
        assert "SELECT" in asked.view_definition("reward_by_iteration")
    for statement in ["SELECT 1 AS one", "\\d", "\\dt", "\\l", "\\dn", "\\d prompts"]:
        for title, rows, headers, status, sql, success, special in asked.run(statement, pgspecial=pgspecial.main.PGSpecial()):
            assert success, (statement, status)
            assert rows is None or list(rows), statement


def of_psql(run):
    if shutil.which("psql") is None:
        print("skipped: psql is not there")
        return

    def psql(*commands):
        arguments = [argument for command in commands for argument in ("-c", command)]
        done = subprocess.run(["psql", "-X", "-h", HOST, "-p", str(run.port), "-U", "any", "-d", run.name, *arguments], capture_output=True, text=True)
        assert done.returncode == 0 and "ERROR" not in done.stderr, (commands, done.stderr)
        return done.stdout

    for command in ["\\d", "\\dt", "\\dt+", "\\d+"]:
        listed = psql(command)
        assert all(f"| {table} " in listed for table in run.tables()), (command, listed)
    if run.expected:
        assert "reward_by_iteration" in psql("\\dv") and "reward_by_iteration" not in psql("\\dt")
        assert "reward_mean" in psql("\\d reward_by_iteration")
        assert "CREATE OR REPLACE VIEW public.reward_by_iteration" in psql("\\sv reward_by_iteration")
    assert run.name in psql("\\l") and run.name in psql("\\l+") and "public" in psql("\\dn") and "public" in psql("\\dn+")
    for command in ["\\d prompts", "\\d+ prompts"]:
        described = psql(command)
        assert 'Table "public.prompts"' in described and " prompt_id " in described and "text" in described, described
    assert "bigint" in psql("\\dS pg_class")
    for command in ["\\di", "\\df", "\\du", "\\dx", "\\db", "\\ds", "\\dm", "\\dT", "\\dC", "\\dD", "\\des", "\\dP", "\\dRp", "\\dy", "\\dL", "\\dX"]:
        psql(command)
    file = pathlib.Path(run.folder) / "copied.csv"
    psql(f"\\copy ({THOUSAND}) TO '{file}' WITH (FORMAT csv, HEADER)")
    assert len(file.read_text().splitlines()) == 1001
    psql("BEGIN", "DECLARE c CURSOR FOR SELECT * FROM prompts", "FETCH 3 FROM c", "CLOSE c", "COMMIT")
    assert psql("SELECT 1 AS one; SELECT 2 AS two").count("row)") >= 1
    assert "4" in psql("\\set FETCH_COUNT 2", "SELECT value FROM generate_series(1, 4)")


# What DuckDB's extension `postgres` sends: src/storage and src/postgres_connection.cpp of duckdb/duckdb-postgres. Tables, types of columns, then
# rows as PostgreSQL's binary copy.
DUCKDB = [
    "SELECT version(), (SELECT COUNT(*) FROM pg_settings WHERE name LIKE 'rds%')",
    "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "SELECT oid, nspname FROM pg_namespace ORDER BY oid",
    """SELECT pg_namespace.oid AS namespace_id, relname, relpages, attname, pg_type.typname type_name, atttypmod type_modifier,
       pg_attribute.attndims ndim, attnum, pg_attribute.attnotnull AS notnull, NULL constraint_id, NULL constraint_type, NULL constraint_key,
       type_ns.nspname AS type_schema, col_desc.description AS column_comment, tbl_desc.description AS table_comment
       FROM pg_class JOIN pg_namespace ON relnamespace = pg_namespace.oid JOIN pg_attribute ON pg_class.oid = pg_attribute.attrelid
       JOIN pg_type ON atttypid = pg_type.oid JOIN pg_namespace type_ns ON pg_type.typnamespace = type_ns.oid
       LEFT JOIN pg_description col_desc ON col_desc.objoid = pg_class.oid AND col_desc.objsubid = pg_attribute.attnum
       LEFT JOIN pg_description tbl_desc ON tbl_desc.objoid = pg_class.oid AND tbl_desc.objsubid = 0
       WHERE attnum > 0 AND relkind IN ('r', 'v', 'm', 'f', 'p') AND pg_namespace.nspname = 'public'
       UNION ALL
       SELECT pg_namespace.oid AS namespace_id, relname, NULL relpages, NULL attname, NULL type_name, NULL type_modifier, NULL ndim, NULL attnum,
       NULL AS notnull, pg_constraint.oid AS constraint_id, contype AS constraint_type, conkey AS constraint_key, NULL AS type_schema,
       NULL AS column_comment, NULL AS table_comment
       FROM pg_class JOIN pg_namespace ON relnamespace = pg_namespace.oid JOIN pg_constraint ON (pg_class.oid = pg_constraint.conrelid)
       WHERE relkind IN ('r', 'v', 'm', 'f', 'p') AND contype IN ('p', 'u') AND pg_namespace.nspname = 'public'
       ORDER BY namespace_id, relname, attnum, constraint_id""",
    """SELECT n.oid, enumtypid, typname, enumlabel FROM pg_enum e JOIN pg_type t ON e.enumtypid = t.oid
       JOIN pg_namespace AS n ON (typnamespace = n.oid) ORDER BY n.oid, enumtypid, enumsortorder""",
    """SELECT n.oid, t.typrelid AS id, t.typname as type, pg_attribute.attname, sub_type.typname, sub_type_ns.nspname AS sub_type_schema
       FROM pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace JOIN pg_class ON pg_class.oid = t.typrelid
       JOIN pg_attribute ON attrelid = t.typrelid JOIN pg_type sub_type ON (pg_attribute.atttypid = sub_type.oid)
       JOIN pg_catalog.pg_namespace sub_type_ns ON sub_type_ns.oid = sub_type.typnamespace
       WHERE pg_class.relkind IN ('c', 'r', 'v', 'm', 'f', 'p') AND t.typtype = 'c' AND pg_attribute.attnum > 0
       AND NOT pg_attribute.attisdropped ORDER BY n.oid, t.oid, attrelid, attnum""",
    "SELECT pg_namespace.oid, tablename, indexname FROM pg_indexes JOIN pg_namespace ON (schemaname = nspname) ORDER BY pg_namespace.oid",
    """SELECT pg_class.oid, relname, pg_class.xmin FROM pg_class JOIN pg_namespace ON relnamespace = pg_namespace.oid
       WHERE relkind IN ('r', 'v', 'm', 'f', 'p') AND pg_namespace.nspname = 'public' ORDER BY pg_class.oid""",
    """SELECT table_schema AS namespace_id, table_name AS relname, 0 AS relpages, column_name AS attname, data_type AS type_name,
       -1 AS type_modifier, 0 AS ndim, ordinal_position AS attnum, CASE WHEN is_nullable = 'NO' THEN 't' ELSE 'f' END AS notnull,
       NULL AS constraint_id, NULL AS constraint_type, NULL AS constraint_key, NULL AS type_schema, NULL AS column_comment,
       NULL AS table_comment FROM information_schema.columns WHERE table_schema NOT IN ('information_schema', 'pg_catalog', 'pg_toast')
       ORDER BY table_schema, table_name, ordinal_position""",
    'COPY (SELECT "prompt_id" FROM "public"."prompts") TO STDOUT (FORMAT "binary")',
    "COMMIT",
]

# What Grafana's query builder sends: public/app/plugins/datasource/grafana-postgresql-datasource/postgresMetaQuery.ts of grafana/grafana.
SEARCH_PATH = """quote_ident(table_schema) IN (SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
       FROM generate_series(array_lower(string_to_array(current_setting('search_path'),','),1),
       array_upper(string_to_array(current_setting('search_path'),','),1)) as i, string_to_array(current_setting('search_path'),',') s)"""
GRAFANA = [
    "SELECT 1",
    "SELECT current_setting('server_version_num')::int/100 as version",
    "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'",
    """SELECT schema_name AS "name" FROM information_schema.schemata WHERE schema_name NOT IN ('information_schema', 'pg_catalog', 'pg_toast')
       ORDER BY schema_name""",
    f"""SELECT CASE WHEN {SEARCH_PATH} THEN quote_ident(table_name) ELSE quote_ident(table_schema) || '.' || quote_ident(table_name) END AS "table"
       FROM information_schema.tables WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog')
       ORDER BY CASE WHEN {SEARCH_PATH} THEN 0 ELSE 1 END, 1""",
    f"""SELECT quote_ident(column_name) AS "column", data_type AS "type" FROM information_schema.columns WHERE
       CASE WHEN array_length(parse_ident('prompts'),1) = 2
       THEN quote_ident(table_schema) = (parse_ident('prompts'))[1] AND quote_ident(table_name) = (parse_ident('prompts'))[2]
       ELSE quote_ident(table_name) = 'prompts' AND {SEARCH_PATH} END""",
]

# What Metabase's driver sends beside JDBC's metadata: src/metabase/driver/postgres.clj and sql_jdbc of metabase/metabase.
METABASE = [
    "SELECT 1",
    "show timezone;",
    """SELECT "n"."nspname" AS "schema", "c"."relname" AS "name", CASE "c"."relkind" WHEN 'r' THEN 'TABLE' WHEN 'p' THEN 'PARTITIONED TABLE'
       WHEN 'v' THEN 'VIEW' WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE NULL END AS "type",
       "d"."description" AS "description", "stat"."n_live_tup" AS "estimated_row_count"
       FROM "pg_catalog"."pg_class" AS "c" INNER JOIN "pg_catalog"."pg_namespace" AS "n" ON "c"."relnamespace" = "n"."oid"
       LEFT JOIN "pg_catalog"."pg_description" AS "d" ON ("c"."oid" = "d"."objoid") AND ("d"."objsubid" = 0)
       AND ("d"."classoid" = 'pg_class'::regclass)
       LEFT JOIN "pg_stat_user_tables" AS "stat" ON ("n"."nspname" = "stat"."schemaname") AND ("c"."relname" = "stat"."relname")
       WHERE ("c"."relnamespace" = "n"."oid") AND ("n"."nspname" !~ '^pg_') AND ("n"."nspname" <> 'information_schema')
       AND c.relkind in ('r', 'p', 'v', 'f', 'm') AND ("n"."nspname" IN ('public')) ORDER BY "type" ASC, "schema" ASC, "name" ASC""",
    """SELECT "c"."column_name" AS "name", CASE WHEN "c"."udt_schema" IN ('public', 'pg_catalog') THEN FORMAT('%s', "c"."udt_name")
       ELSE FORMAT('"%s"."%s"', "c"."udt_schema", "c"."udt_name") END AS "database-type", "c"."ordinal_position" - 1 AS "database-position",
       "c"."table_schema" AS "table-schema", "c"."table_name" AS "table-name", "pk"."column_name" IS NOT NULL AS "pk?",
       COL_DESCRIPTION(CAST(CAST(FORMAT('%I.%I', CAST("c"."table_schema" AS TEXT), CAST("c"."table_name" AS TEXT)) AS REGCLASS) AS OID),
       "c"."ordinal_position") AS "field-comment",
       (("column_default" IS NULL) OR (LOWER("column_default") = 'null')) AND ("is_nullable" = 'NO')
       AND NOT ((("column_default" IS NOT NULL) AND ("column_default" LIKE '%nextval(%')) OR ("is_identity" <> 'NO')) AS "database-required",
       (("column_default" IS NOT NULL) AND ("column_default" LIKE '%nextval(%')) OR ("is_identity" <> 'NO') AS "database-is-auto-increment"
       FROM "information_schema"."columns" AS "c"
       LEFT JOIN (SELECT "tc"."table_schema", "tc"."table_name", "kc"."column_name" FROM "information_schema"."table_constraints" AS "tc"
       INNER JOIN "information_schema"."key_column_usage" AS "kc" ON ("tc"."constraint_name" = "kc"."constraint_name")
       AND ("tc"."table_schema" = "kc"."table_schema") AND ("tc"."table_name" = "kc"."table_name")
       WHERE "tc"."constraint_type" = 'PRIMARY KEY') AS "pk" ON ("c"."table_schema" = "pk"."table_schema")
       AND ("c"."table_name" = "pk"."table_name") AND ("c"."column_name" = "pk"."column_name")
       WHERE c.table_schema !~ '^information_schema|catalog_history|pg_' AND ("c"."table_schema" IN ('public'))
       UNION ALL SELECT "pa"."attname" AS "name", CASE WHEN "ptn"."nspname" IN ('public', 'pg_catalog') THEN FORMAT('%s', "pt"."typname")
       ELSE FORMAT('"%s"."%s"', "ptn"."nspname", "pt"."typname") END AS "database-type", "pa"."attnum" - 1 AS "database-position",
       "pn"."nspname" AS "table-schema", "pc"."relname" AS "table-name", FALSE AS "pk?", NULL AS "field-comment",
       FALSE AS "database-required", FALSE AS "database-is-auto-increment" FROM "pg_catalog"."pg_class" AS "pc"
       INNER JOIN "pg_catalog"."pg_namespace" AS "pn" ON "pn"."oid" = "pc"."relnamespace"
       INNER JOIN "pg_catalog"."pg_attribute" AS "pa" ON "pa"."attrelid" = "pc"."oid"
       INNER JOIN "pg_catalog"."pg_type" AS "pt" ON "pt"."oid" = "pa"."atttypid"
       INNER JOIN "pg_catalog"."pg_namespace" AS "ptn" ON "ptn"."oid" = "pt"."typnamespace"
       WHERE ("pc"."relkind" = 'm') AND ("pa"."attnum" >= 1) AND ("pn"."nspname" IN ('public'))
       ORDER BY "table-schema" ASC, "table-name" ASC, "database-position" ASC""",
    """SELECT "fk_ns"."nspname" AS "fk-table-schema", "fk_table"."relname" AS "fk-table-name", "fk_column"."attname" AS "fk-column-name",
       "pk_ns"."nspname" AS "pk-table-schema", "pk_table"."relname" AS "pk-table-name", "pk_column"."attname" AS "pk-column-name"
       FROM "pg_constraint" AS "c" INNER JOIN "pg_class" AS "fk_table" ON "c"."conrelid" = "fk_table"."oid"
       INNER JOIN "pg_namespace" AS "fk_ns" ON "c"."connamespace" = "fk_ns"."oid"
       INNER JOIN "pg_attribute" AS "fk_column" ON "c"."conrelid" = "fk_column"."attrelid"
       INNER JOIN "pg_class" AS "pk_table" ON "c"."confrelid" = "pk_table"."oid"
       INNER JOIN "pg_namespace" AS "pk_ns" ON "pk_table"."relnamespace" = "pk_ns"."oid"
       INNER JOIN "pg_attribute" AS "pk_column" ON "c"."confrelid" = "pk_column"."attrelid"
       WHERE fk_ns.nspname !~ '^information_schema|catalog_history|pg_' AND ("c"."contype" = 'f'::char)
       AND ("fk_column"."attnum" = ANY(c.conkey)) AND ("pk_column"."attnum" = ANY(c.confkey))
       ORDER BY "fk-table-schema" ASC, "fk-table-name" ASC""",
    """SELECT nspname, typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
       WHERE t.oid IN (SELECT DISTINCT enumtypid FROM pg_enum e)""",
    """select pg_catalog.has_schema_privilege('public', 'USAGE'), has_any_column_privilege('"public"."prompts"', 'select'),
       pg_catalog.has_table_privilege('"public"."prompts"', 'insert')""",
]


def of_queries(run):
    """The queries of programs that are no Python package."""
    with psycopg.connect(run.url) as connection:
        found = {}
        for client, queries in [("DuckDB", DUCKDB), ("Grafana", GRAFANA), ("Metabase", METABASE)]:
            for query in queries:
                cursor = connection.cursor()
                try:
                    if query.startswith("COPY"):
                        with cursor.copy(query) as copy:
                            copy.set_types(["text"])
                            rows = list(copy.rows())
                    else:
                        rows = cursor.execute(query).fetchall() if cursor.execute(query).description else []
                except psycopg.Error as error:
                    raise AssertionError(f"{client}: {query}: {error}") from error
                found.setdefault(client, []).append(rows)
        # DuckDB asks for what there is in one message.
        connection.execute("; ".join(query.rstrip(";") for query in DUCKDB[2:7]))
    duckdb_columns = {row[3]: row[4] for row in found["DuckDB"][3] if row[1] == "prompts"}
    assert duckdb_columns["prompt_id"] == "text", duckdb_columns
    assert ("p-000",) in found["DuckDB"][-2]
    assert ("prompts",) in found["Grafana"][-2] and ("prompt_id", "text") in found["Grafana"][-1], found["Grafana"][-2:]
    assert found["Grafana"][1] == [(1600,)] and found["Grafana"][3] == [("public",)]
    assert ("public", "prompts", "TABLE", None, None) in found["Metabase"][2], found["Metabase"][2]
    fields = {row[0]: row for row in found["Metabase"][3] if row[4] == "prompts"}
    assert fields["prompt_id"] == ("prompt_id", "text", 0, "public", "prompts", False, None, True, False), fields["prompt_id"]
    assert found["Metabase"][4:6] == [[], []]
    assert found["Metabase"][6] == [(True, True, False)]


def of_duckdb(run):
    """DuckDB's extension itself, where it is installed: it is no Python package."""
    connection = duckdb.connect()
    try:
        connection.execute("LOAD postgres")
    except duckdb.Error:
        print("skipped: DuckDB's extension postgres is not installed")
        return
    connection.execute(f"ATTACH '{run.url}' AS run (TYPE postgres, READ_ONLY)")
    run.check(lambda query: connection.execute(query.replace("FROM ", "FROM run.public.")).to_arrow_table().to_pylist())


def of_crowd(run):
    """64 clients at once; the next is told."""
    # A server notices only a moment later that an earlier client is gone.
    until = time.monotonic() + 20
    connections, told = [], ""
    while len(connections) <= 64 and (len(connections) < 64 and time.monotonic() < until or not told):
        try:
            connections.append(psycopg.connect(run.url))
        except psycopg.OperationalError as error:
            told = str(error)
            time.sleep(0.1)
    assert len(connections) == 64 and "too many clients" in told, (len(connections), told)
    for connection in connections:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        connection.close()


CLIENTS = {name[3:]: function for name, function in list(globals().items()) if name.startswith("of_")}


def main(port, name, expected, *chosen):
    run = Run(int(port), name, expected)
    run.folder = expected
    failed = []
    for client in chosen or CLIENTS:
        try:
            CLIENTS[client](run)
            print(f"{client}: right")
        except Exception:
            failed.append(client)
            print(f"{client}: {traceback.format_exc()}", file=sys.stderr)
    print(json.dumps({"right": len(chosen or CLIENTS) - len(failed), "failed": failed}))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
