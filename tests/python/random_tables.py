"""Random tables in files of other software's writers, with the values that other software reads.

Usage: random_tables.py FOLDER SEED COUNT

Writes the files of COUNT tables into FOLDER, and `cases.jsonl`: for each table its writer, its format,
its files, the names of its columns, and its rows as Python's json and csv or pyarrow read them back.
"""

import csv
import datetime
import decimal
import json
import math
import random
import sys
from pathlib import Path

import duckdb
import pandas
import polars
import pyarrow
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet

ALPHABET = ["a", "Z", "0", " ", ",", ";", '"', "'", "\n", "\r\n", "\t", "\\", "/", "{", "é", "ß", "中", "\u200b", "\u2028", "\U0001f600", "\U00020bb7", "\U0010ffff", "\x01", "\x7f"]
TEXTS = ["", " ", "007", "1e3", "1.50", "-0", "true", "False", "null", "NULL", "NaN", "None", "inf", "2024-01-05", "2024-01-05 10:00:00", "[1]", '{"a": 1}', "\ufeff", "#x", "%", "\\N", "\\ud842"]


def text(rng):
    if rng.random() < 0.4:
        return rng.choice(TEXTS)
    return "".join(rng.choice(ALPHABET) for _ in range(rng.randrange(12)))


def number(rng):
    return rng.choice([0.0, -0.0, 1.5, 1e300, -1e-300, 5e-324, 0.1, 1 / 3, 2.0**53, float("nan"), float("inf"), rng.uniform(-1e6, 1e6), rng.gauss(0, 1)])


def whole(rng, bits, signed):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return rng.choice([low, high, 0, 1, rng.randint(low, high), rng.randint(0, min(high, 1000))])


FLAT = {
    "bool": (pyarrow.bool_(), lambda rng: rng.random() < 0.5),
    "int8": (pyarrow.int8(), lambda rng: whole(rng, 8, True)),
    "int32": (pyarrow.int32(), lambda rng: whole(rng, 32, True)),
    "int64": (pyarrow.int64(), lambda rng: whole(rng, 64, True)),
    "uint16": (pyarrow.uint16(), lambda rng: whole(rng, 16, False)),
    "uint64": (pyarrow.uint64(), lambda rng: whole(rng, 64, False)),
    "float": (pyarrow.float32(), lambda rng: rng.choice([0.5, -1.25, 3.0, 65504.0])),
    "double": (pyarrow.float64(), number),
    "text": (pyarrow.string(), text),
    "large_text": (pyarrow.large_string(), text),
    "view": (pyarrow.string_view(), text),
    "dictionary": (pyarrow.dictionary(pyarrow.int32(), pyarrow.string()), lambda rng: rng.choice(TEXTS)),
    "date": (pyarrow.date32(), lambda rng: datetime.date(1970, 1, 1) + datetime.timedelta(rng.randrange(-20000, 20000))),
    "time": (pyarrow.timestamp("us"), lambda rng: datetime.datetime(2000, 1, 1) + datetime.timedelta(microseconds=rng.randrange(10**15))),
    "decimal": (pyarrow.decimal128(12, 3), lambda rng: decimal.Decimal(rng.randrange(-(10**9), 10**9)).scaleb(-3)),
    "binary": (pyarrow.binary(), lambda rng: rng.randbytes(rng.randrange(6))),
    "null": (pyarrow.null(), lambda rng: None),
}
PLAIN = ["bool", "int8", "int32", "int64", "double", "text", "text"]
JSON_KINDS = PLAIN + ["list", "struct"]


def kind(rng, names, depth=0):
    """A type and a generator of its values, without nulls."""
    name = rng.choice(names)
    if name in ("list", "large_list", "struct") and depth > 1:
        name = "text"
    if name in ("list", "large_list"):
        of, value = kind(rng, names, depth + 1)
        item = pyarrow.field(rng.choice(["item", "element"]), of)
        made = pyarrow.list_(item) if name == "list" else pyarrow.large_list(item)
        return made, lambda rng: [None if rng.random() < 0.1 else value(rng) for _ in range(rng.randrange(4))]
    if name == "struct":
        fields = [(f"f{i}", *kind(rng, names, depth + 1)) for i in range(rng.randrange(1, 4))]
        made = pyarrow.struct([pyarrow.field(field, of) for field, of, _ in fields])
        return made, lambda rng: {field: None if rng.random() < 0.2 else value(rng) for field, _, value in fields}
    return FLAT[name]


def schema_of(rng, names):
    columns = [(f"c{i}", *kind(rng, names)) for i in range(rng.randrange(1, 5))]
    return columns


def rows_of(rng, columns, count, nulls):
    return [{name: None if rng.random() < nulls else value(rng) for name, _, value in columns} for _ in range(count)]


def arrow(columns, rows):
    schema = pyarrow.schema([pyarrow.field(name, of) for name, of, _ in columns])
    return pyarrow.Table.from_pylist(rows, schema=schema)


def shards(rng, rows):
    """The rows in one to three pieces, some perhaps empty."""
    cuts = sorted(rng.randrange(len(rows) + 1) for _ in range(rng.choice([0, 0, 1, 2])))
    edges = [0, *cuts, len(rows)]
    return [rows[begin:end] for begin, end in zip(edges, edges[1:])]


def wider(rng, columns):
    """The same columns, as another shard may have them: in another order, with wider types."""
    widths = {pyarrow.int8(): pyarrow.int32(), pyarrow.int32(): pyarrow.int64(), pyarrow.float32(): pyarrow.float64(), pyarrow.string(): pyarrow.large_string()}
    changed = [(name, widths.get(of, of) if rng.random() < 0.5 else of, value) for name, of, value in columns]
    if rng.random() < 0.3:
        rng.shuffle(changed)
    return changed


CONNECTION = duckdb.connect()

# One writer: its name, its format, the types it gets, and the function that writes a file.


def pyarrow_parquet(rng, columns, rows, path):
    table = arrow(columns, rows)
    pyarrow.parquet.write_table(table, path, compression=rng.choice(["none", "snappy", "zstd"]), row_group_size=rng.choice([1, 3, 1000]), use_dictionary=rng.random() < 0.5, data_page_version=rng.choice(["1.0", "2.0"]), store_schema=rng.random() < 0.8)


def pyarrow_ipc(rng, columns, rows, path):
    table = arrow(columns, rows)
    make = rng.choice([pyarrow.ipc.new_file, pyarrow.ipc.new_stream])
    with make(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=rng.choice([1, 3, 1000]))


def pyarrow_csv(rng, columns, rows, path):
    pyarrow.csv.write_csv(arrow(columns, rows), path, pyarrow.csv.WriteOptions(quoting_style=rng.choice(["needed", "all_valid"])))


def frame(columns, rows):
    return polars.from_arrow(arrow(columns, rows))


def polars_parquet(rng, columns, rows, path):
    frame(columns, rows).write_parquet(path, compression=rng.choice(["uncompressed", "snappy", "zstd"]))


def polars_ipc(rng, columns, rows, path):
    frame(columns, rows).write_ipc(path)


def polars_csv(rng, columns, rows, path):
    frame(columns, rows).write_csv(path, quote_style=rng.choice(["necessary", "always", "non_numeric"]))


def polars_ndjson(rng, columns, rows, path):
    frame(columns, rows).write_ndjson(path)


def pandas_frame(columns, rows):
    return arrow(columns, rows).to_pandas(types_mapper=pandas.ArrowDtype)


def pandas_parquet(rng, columns, rows, path):
    pandas_frame(columns, rows).to_parquet(path, index=False)


def pandas_csv(rng, columns, rows, path):
    pandas_frame(columns, rows).to_csv(path, index=False, quoting=rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))


def pandas_json(rng, columns, rows, path):
    pandas_frame(columns, rows).to_json(path, orient="records", lines=True, force_ascii=rng.random() < 0.5)


def duckdb_write(options):
    def write(rng, columns, rows, path):
        CONNECTION.register("written", arrow(columns, rows))
        CONNECTION.execute(f"COPY written TO '{path}' ({options})")

    return write


def python_json(rng, columns, rows, path):
    ascii = rng.random() < 0.5
    leave_out = rng.random() < 0.3
    lines = [json.dumps({name: value for name, value in row.items() if value is not None or not leave_out}, ensure_ascii=ascii) for row in rows]
    if path.suffix == ".json":
        path.write_text("[" + ",\n".join(lines) + "]", encoding="utf-8", newline="")
    else:
        path.write_text("".join(line + rng.choice(["\n", "\r\n"]) for line in lines), encoding="utf-8", newline="")


def python_csv(rng, columns, rows, path):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), lineterminator=rng.choice(["\n", "\r\n"]))
        writer.writerow([name for name, _, _ in columns])
        writer.writerows([[row[name] for name, _, _ in columns] for row in rows])


ANY = [*FLAT, "list", "large_list", "struct"]
WRITERS = [
    ("pyarrow", "parquet", [kind for kind in ANY if kind not in ("null", "dictionary", "view")], pyarrow_parquet),
    ("pyarrow", "arrow", ANY, pyarrow_ipc),
    ("pyarrow", "csv", PLAIN, pyarrow_csv),
    ("polars", "parquet", [kind for kind in ANY if kind not in ("null", "binary", "dictionary")], polars_parquet),
    ("polars", "arrow", [kind for kind in ANY if kind not in ("null", "dictionary")], polars_ipc),
    ("polars", "csv", PLAIN, polars_csv),
    ("polars", "jsonl", JSON_KINDS, polars_ndjson),
    ("pandas", "parquet", PLAIN + ["date", "time"], pandas_parquet),
    ("pandas", "csv", PLAIN, pandas_csv),
    ("pandas", "jsonl", ["bool", "int32", "double", "text"], pandas_json),
    ("duckdb", "parquet", PLAIN + ["date", "time", "list", "struct"], duckdb_write("FORMAT parquet")),
    ("duckdb", "csv", PLAIN, duckdb_write("FORMAT csv, HEADER")),
    ("duckdb", "jsonl", ["bool", "int32", "int64", "text", "list", "struct"], duckdb_write("FORMAT json")),
    ("json", "jsonl", JSON_KINDS + ["uint64"], python_json),
    ("json", "json", JSON_KINDS + ["uint64"], python_json),
    ("csv", "csv", PLAIN, python_csv),
]


def read_back(path, format):
    """The names of the columns and the rows as Python or pyarrow reads them."""
    if format == "csv":
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file)]
        names = rows[0] if rows else []
        # A blank line is a row without its one value.
        return names, [dict(zip(names, row or [""])) for row in rows[1:]]
    if format == "jsonl":
        rows = [json.loads(line) for line in path.read_bytes().decode("utf-8").split("\n") if line.strip()]
        return None, rows
    if format == "json":
        return None, json.loads(path.read_text(encoding="utf-8"))
    table = pyarrow.parquet.ParquetFile(path).read() if format == "parquet" else pyarrow.feather.read_table(path) if path.read_bytes()[:6] == b"ARROW1" else pyarrow.ipc.open_stream(path.read_bytes()).read_all()
    return table.column_names, table.to_pylist()


def plain(value):
    """A value as JSON that every reader takes the same way."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else {"whole": str(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    raise TypeError(type(value))


def main():
    folder, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    with (folder / "cases.jsonl").open("w", encoding="utf-8") as cases:
        for number in range(count):
            rng = random.Random(f"{seed} {number}")
            writer, format, kinds, write = WRITERS[number % len(WRITERS)]
            columns = schema_of(rng, kinds)
            rows = rows_of(rng, columns, rng.choice([0, 1, 2, 5, 20]), rng.choice([0, 0.2, 0.9]))
            files, read, uniform = [], [], True
            try:
                for index, piece in enumerate(shards(rng, rows)):
                    path = folder / f"case-{number:06d}-{index}.{format}"
                    changed = columns
                    if index > 0 and format in ("parquet", "arrow") and rng.random() < 0.4:
                        changed, uniform = wider(rng, columns), False
                    write(rng, changed, piece, path)
                    files.append(path.name)
                    read.extend(read_back(path, format)[1])
            except pyarrow.ArrowException as error:
                # pyarrow can neither write a dictionary without values nor slice every type.
                failed += 1
                print(f"case {number} is left out: {error}", file=sys.stderr)
                continue
            case = {"writer": writer, "format": format, "files": files, "uniform": uniform, "columns": [name for name, _, _ in columns], "types": [str(of) for _, of, _ in columns], "rows": [plain(row) for row in read]}
            cases.write(json.dumps(case) + "\n")
    assert failed <= count // 20, f"{failed} of {count} tables were not written"


if __name__ == "__main__":
    main()
