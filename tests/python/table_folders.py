"""Reads every table of a run as a folder, with pandas, pyarrow, Polars, DuckDB and Hugging Face's datasets.

    python tests/python/table_folders.py runs/NAME EXPECTED

EXPECTED is a folder with the rows of each table as `optune sql NAME 'SELECT * FROM TABLE'` gives them, in TABLE.parquet. Prints the readers' counts
of rows for each table as JSON, and fails at the first difference. Knows nothing of optune but these folders.
"""

import json
import math
import sys
import tempfile
from pathlib import Path

import datasets
import duckdb
import pandas
import polars
import pyarrow.dataset
import pyarrow.parquet


def plain(value):
    """A value in one form for all readers: dictionaries for maps, lists for arrays, None for what is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pandas.NA or value is pandas.NaT:
        return None
    if hasattr(value, "tolist"):
        value = value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, dict):
        if set(value) == {"key", "value"} and isinstance(value["key"], list):
            return {key: plain(item) for key, item in zip(value["key"], value["value"])}
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
            return {key: plain(item) for key, item in value}
        if value and all(isinstance(item, dict) and set(item) == {"key", "value"} for item in value):
            return {item["key"]: plain(item["value"]) for item in value}
        return [plain(item) for item in value]
    return value


def rows(dictionaries, columns):
    return sorted(json.dumps([plain(row.get(name)) for name in columns], default=str) for row in dictionaries)


def of_pandas(folder):
    return pandas.read_parquet(folder).to_dict("records")


def of_pyarrow(folder):
    return pyarrow.dataset.dataset(folder, partitioning="hive").to_table().to_pylist()


def of_polars(folder):
    return polars.read_parquet(folder).to_dicts()


def of_duckdb(folder):
    connection = duckdb.connect()
    return connection.execute(f"SELECT * FROM read_parquet('{folder}/**/*.parquet')").to_arrow_table().to_pylist()


def of_datasets(folder):
    with tempfile.TemporaryDirectory() as cache:
        loaded = datasets.load_dataset(str(folder), cache_dir=cache)
        assert list(loaded) == ["train"], list(loaded)
        return [row for row in loaded["train"]]


READERS = {"pandas": of_pandas, "pyarrow": of_pyarrow, "polars": of_polars, "duckdb": of_duckdb, "datasets": of_datasets}


def main(run: Path, expected: Path) -> None:
    counts = {}
    for folder in sorted((run / "tables").iterdir()):
        table = pyarrow.parquet.read_table(expected / f"{folder.name}.parquet")
        found = {}
        for name, read in READERS.items():
            # datasets does not make columns of the folders' names.
            columns = [column for column in table.column_names if not (name == "datasets" and column == "iteration")]
            if name == "datasets" and any(pyarrow.types.is_map(column.type) for column in table.schema):
                # It has no type for maps. When it gets one, this fails, and docs/guide/sql.md can say so.
                try:
                    read(folder)
                except ValueError as error:
                    assert "does not have a datasets dtype equivalent" in str(error), error
                    found[name] = None
                    continue
                raise AssertionError(f"datasets reads the maps of {folder.name}")
            there = rows(read(folder), columns)
            wanted = rows(table.to_pylist(), columns)
            assert there == wanted, f"{name} reads other rows of {folder.name}: {there[:2]} and not {wanted[:2]}"
            found[name] = len(there)
        counts[folder.name] = found
    print(json.dumps(counts))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
