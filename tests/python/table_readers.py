"""Makes tests/golden/readers/: files that other software writes, and what other software reads in them.

    python tests/python/table_readers.py          # from the repository's root

Needs pyarrow, polars and duckdb. Python's `json` writes and reads JSON, its `csv` in strict mode reads csv, DuckDB's `union_by_name` joins shards that pyarrow and
polars write.
"""

import csv
import datetime
import decimal
import io
import json
import shutil
from pathlib import Path

import duckdb
import polars
import pyarrow
import pyarrow.feather
import pyarrow.parquet

FOLDER = Path("tests/golden/readers")

# Texts with characters of every plane, of the borders of UTF-16 and of JSON's escapes.
PLANES = [chr(plane * 0x10000 + place) for plane in range(17) for place in (0x0020, 0x0BB7, 0xD7FF, 0xE000, 0xFFFD, 0xFFFF)]
TEXTS = ["".join(PLANES), "\U00020bb7", "\b\f\n\r\t\"\\/\x00\x1f\x7f", "", " \u2028\u2029\ufeff"]

# JSON lines that Python reads, or refuses. Lone surrogates and keys that occur twice are left to the tests: Python takes both.
JSON_LINES = [
    '{"a": 1}',
    '{"a": 18446744073709551615}',
    '{"a": -9223372036854775808}',
    '{"a": 1.50}',
    '{"a": 1e3}',
    '{"a": 0.1234567890123456789}',
    '{"a": "\\u00e9\\ud83d\\ude42"}',
    '{"a": [1, 2, null]}',
    '{"a": {"b": [{"c": "d"}]}}',
    ' {"a" : true } ',
    '{"a": 01}',
    '{"a": +1}',
    '{"a": .5}',
    '{"a": 5.}',
    '{"a": 1,}',
    '{"a": "\t"}',
    '{"a": "\\x"}',
    '{"a": "\\u12"}',
    "{'a': 1}",
    '{"a": tru}',
    '{"a": 1} {"a": 2}',
    '{"a": 1}]',
    '{"a": "b}',
    '{"a" 1}',
    '{1: 1}',
]

CSV = [
    "p,q\na,1\nb,2\n",
    "p,q\r\na,1\r\nb,2\r\n",
    "p,q\ra,1\rb,2\r",
    "p,q\na,1\nb,2",
    'p,q\n"a,\nb","c""d"\n',
    'p,q\n"a\r\nb",2\n',
    'p,q\na"b,c""d\n',
    'p,q\n"a,1\nb,2\n',
    'p,q\na,"1\n',
    'p,q\n"a"b,1\n',
    'p,q\n"a" ,1\n',
    'p,q\n"a""",1\n',
    'p,q\n""a,1\n',
    "p,q\n a , 1 \n",
    "p,q\n007,1.50\nTrue,1e5\n2024-01-05 10:00:00,NaN\n",
    "p,q\n\U0001f642,\u2028\n",
    "p\n7\n",
    "p,q\n'a,1\n",
    "p,q\na\\,1\n",
    'p,q\n"a\\",1\n',
]


def json_cases():
    cases = []
    for line in JSON_LINES:
        try:
            cases.append({"line": line, "value": json.loads(line)["a"]})
        except ValueError:
            cases.append({"line": line, "value": None, "refused": True})
    return cases


def csv_cases():
    cases = []
    for text in CSV:
        try:
            header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
            cases.append({"text": text, "rows": [dict(zip(header, row)) for row in rows]})
        except csv.Error:
            cases.append({"text": text, "rows": None})
    return cases


def shards():
    """By name: the tables of each shard, of pyarrow or polars."""
    pa = pyarrow
    table = lambda **columns: pa.table(columns)
    message = lambda *names: pa.struct([(name, pa.string()) for name in names])
    return {
        "null_and_text": [table(n=pa.array([1]), x=pa.nulls(1)), table(n=pa.array([2]), x=pa.array(["a"]))],
        "widths": [table(x=pa.array([1, None], pa.int32())), table(x=pa.array([2**62 + 1], pa.int64()))],
        "signs": [table(x=pa.array([-1], pa.int8())), table(x=pa.array([255], pa.uint8())), table(x=pa.array([70000], pa.uint32()))],
        "beyond_64_bits": [table(x=pa.array([-1], pa.int64())), table(x=pa.array([2**64 - 1], pa.uint64()))],
        "floats": [table(x=pa.array([0.5], pa.float32())), table(x=pa.array([0.1], pa.float64())), table(x=pa.array([3], pa.int32()))],
        "decimals": [
            table(x=pa.array([decimal.Decimal("1.25")], pa.decimal128(5, 2))),
            table(x=pa.array([decimal.Decimal("12345.6789")], pa.decimal128(9, 4))),
            table(x=pa.array([7], pa.int32())),
        ],
        "integer_and_text": [table(x=pa.array([7])), table(x=pa.array(["a7"]))],
        "dictionary": [table(x=pa.array(["a", "b", "a", None]).dictionary_encode()), table(x=pa.array(["c"]))],
        "dictionary_without_values": [table(x=pa.array([None, None], pa.string()).dictionary_encode()), table(x=pa.array(["c"]).dictionary_encode())],
        "kinds_of_text": [table(x=pa.array(["a"], pa.large_string())), table(x=pa.array(["b" * 20], pa.string_view())), table(x=pa.array(["c"]))],
        "kinds_of_list": [
            table(x=pa.array([[1, 2], None, []], pa.list_(pa.int32()))),
            table(x=pa.array([[3]], pa.large_list(pa.int64()))),
            table(x=pa.array([[4, 5], None], pa.list_(pa.int64(), 2))),
        ],
        "child_names": [
            table(x=pa.array([["a"]], pa.list_(pa.field("item", pa.string())))),
            table(x=pa.array([["b"]], pa.list_(pa.field("element", pa.string())))),
        ],
        "messages": [
            table(messages=pa.array([[{"role": "user", "content": "a"}]], pa.list_(message("role", "content")))),
            table(messages=pa.array([[{"content": "b", "role": "user"}]], pa.large_list(message("content", "role")))),
            table(messages=pa.array([[{"role": "user", "content": "c", "name": "n"}]], pa.list_(message("role", "content", "name")))),
        ],
        "polars": [
            polars.DataFrame({"messages": [[{"role": "user", "content": "a"}]], "n": [1]}),
            polars.DataFrame({"n": [2.5], "messages": [[{"role": "user", "content": "b"}]]}),
        ],
        "optional": [table(a=pa.array([1]), b=pa.array(["x"])), table(a=pa.array([2])), table(b=pa.array(["y"]), c=pa.array([True]))],
        "empty": [pa.table({"x": pa.array([], pa.null())}), table(x=pa.array([[1]]))],
        "times": [
            table(x=pa.array([datetime.datetime(2024, 1, 5, 10)], pa.timestamp("ms"))),
            table(x=pa.array([datetime.datetime(2024, 1, 5, 10, 0, 0, 7)], pa.timestamp("us"))),
            table(x=pa.array([datetime.date(2024, 1, 6)], pa.date32())),
        ],
        "maps": [
            table(x=pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int32()))),
            table(x=pa.array([[("b", 2**40)]], pa.map_(pa.string(), pa.int64()))),
        ],
    }


def plain(value):
    """A value of DuckDB as JSON: decimals as numbers, times in ISO 8601."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    return value


def union(paths):
    rows = duckdb.sql(f"SELECT * FROM read_parquet({[str(path) for path in paths]}, union_by_name = true, filename = true) ORDER BY filename, file_row_number")
    names = [name for name in rows.columns if name not in ("filename", "file_row_number")]
    return [{name: plain(row[rows.columns.index(name)]) for name in names if row[rows.columns.index(name)] is not None} for row in rows.fetchall()]


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    for name, ascii in [("escaped", True), ("plain", False)]:
        lines = [json.dumps({"prompt": text, text + "?": index}, ensure_ascii=ascii) for index, text in enumerate(TEXTS)]
        (FOLDER / f"{name}.jsonl").write_bytes(("\n".join(lines) + "\n").encode())
    golden = {"json": json_cases(), "csv": csv_cases(), "shards": {}}
    for name, tables in shards().items():
        paths = []
        for index, table in enumerate(tables):
            path = FOLDER / f"{name}.{index}.parquet"
            if isinstance(table, polars.DataFrame):
                table.write_parquet(path, compression="uncompressed", statistics=False)
                table.write_ipc(FOLDER / f"{name}.{index}.arrow")
            else:
                pyarrow.parquet.write_table(table, path, compression="none", write_statistics=False, write_page_index=False)
                pyarrow.feather.write_feather(table, str(FOLDER / f"{name}.{index}.arrow"), compression="uncompressed")
            paths.append(path)
        golden["shards"][name] = union(paths)
    # What Arrow holds and pyarrow writes to no Parquet file.
    views = pyarrow.table({"x": pyarrow.array([["a"], [], None, ["b", "c"]], pyarrow.list_view(pyarrow.string()))})
    with pyarrow.OSFile(str(FOLDER / "list_view.arrow"), "wb") as sink, pyarrow.ipc.new_file(sink, views.schema) as writer:
        writer.write_table(views)
    duckdb.sql(f"COPY (SELECT INTERVAL 14 MONTH AS x, 'a' AS prompt) TO '{FOLDER}/interval.parquet'")
    duckdb.sql(f"""COPY (SELECT * FROM (VALUES ('"yes"'::JSON), ('["yes", "no"]'::JSON)) t(response)) TO '{FOLDER}/json_column.parquet'""")
    old = pyarrow.table({"x": pyarrow.array([datetime.datetime(1600, 1, 1), datetime.datetime(2500, 1, 1)], pyarrow.timestamp("us"))})
    pyarrow.parquet.write_table(old, FOLDER / "int96.parquet", use_deprecated_int96_timestamps=True)
    nested = pyarrow.table({"x": pyarrow.array([[datetime.datetime(1600, 1, 1)]], pyarrow.list_(pyarrow.timestamp("us"))), "prompt": ["a"]})
    pyarrow.parquet.write_table(nested, FOLDER / "int96_nested.parquet", use_deprecated_int96_timestamps=True)
    (FOLDER / "expected.json").write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
