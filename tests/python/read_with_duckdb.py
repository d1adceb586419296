"""Asks a run's folder the questions of questions.sql with DuckDB, reading the Parquet files as they lie.

    python tests/python/read_with_duckdb.py runs/NAME prompts.parquet

Prints one CSV table a question, with an empty line between them. Needs the package duckdb and nothing of optune.
"""

import csv
import sys
from pathlib import Path

import duckdb


def main(run: Path, prompts: Path) -> None:
    connection = duckdb.connect()
    connection.read_parquet(str(prompts)).create_view("prompts")
    for table in sorted((run / "tables").iterdir()):
        if any(table.glob("iteration=*")):
            connection.read_parquet(str(table / "*" / "*.parquet"), hive_partitioning=True).create_view(table.name)
    questions = (Path(__file__).parent / "questions.sql").read_text()
    out = csv.writer(sys.stdout, lineterminator="\n")
    for number, question in enumerate(duckdb.extract_statements(questions)):
        answer = connection.execute(question)
        if number:
            print()
        out.writerow(column[0] for column in answer.description)
        out.writerows(answer.fetchall())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
