"""Asks a run's folder the questions of questions.sql with DuckDB, reading the Parquet files as they lie.

    python tests/python/read_with_duckdb.py runs/NAME [prompts.parquet]

Without a file of prompts, those that the run keeps are used. Prints one CSV table a question, with an empty line between them. Needs the package duckdb and nothing of optune.
"""

import csv
import sys
from pathlib import Path

import duckdb


def main(run: Path, prompts: Path | None) -> None:
    connection = duckdb.connect()
    for table in sorted((run / "tables").iterdir()):
        for files in ("*.parquet", "*/*.parquet"):
            if any(table.glob(files)):
                connection.read_parquet(str(table / files), hive_partitioning=True).create_view(table.name)
    if prompts:
        connection.read_parquet(str(prompts)).create_view("prompts", replace=True)
    questions = (Path(__file__).parent / "questions.sql").read_text()
    out = csv.writer(sys.stdout, lineterminator="\n")
    for number, question in enumerate(duckdb.extract_statements(questions)):
        answer = connection.execute(question)
        if number:
            print()
        out.writerow(column[0] for column in answer.description)
        out.writerows(answer.fetchall())


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else None)
