"""Compares two run folders of one pipeline, made by two versions of the program: same rows, same model files.

python compare_runs.py OLD NEW [old_column=new_column ...]

Columns and their order are compared after the given renames. Fingerprints name recipes, and recipes
contain names: a fingerprint may differ, but only by a one-to-one mapping for the whole run. Needs pyarrow.
"""

import hashlib
import os
import sys

import pyarrow.parquet as parquet


def files(folder, ending):
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            if name.endswith(ending):
                path = os.path.join(place, name)
                found[os.path.relpath(path, folder)] = path
    return found


def main():
    old, new = sys.argv[1:3]
    renames = dict(argument.split("=", 1) for argument in sys.argv[3:])
    forward, backward = {}, {}
    problems, rows, values = [], 0, 0

    def compare(left, right, ending, one):
        left, right = files(left, ending), files(right, ending)
        for path in sorted(set(left) ^ set(right)):
            problems.append(f"{path}: only in {'the old' if path in left else 'the new'} run")
        for path in sorted(set(left) & set(right)):
            one(path, left[path], right[path])
        return len(set(left) & set(right))

    def table(path, left, right):
        nonlocal rows, values
        # partitioning=None: the folder iteration=1 must not become a column.
        left, right = (parquet.ParquetFile(file).read() for file in (left, right))
        names = [renames.get(name, name) for name in left.column_names]
        if names != right.column_names:
            problems.append(f"{path}: columns {names}, found {right.column_names}")
            return
        rows += left.num_rows
        for name, before, after in zip(names, left.columns, right.columns):
            values += len(before)
            if name.endswith("fingerprint"):
                for a, b in zip(before.to_pylist(), after.to_pylist()):
                    if forward.setdefault(a, b) != b or backward.setdefault(b, a) != a:
                        problems.append(f"{path}: {name}: {a} became {b} and {forward[a]}")
                        break
            # Bits, so that NaN equals NaN and 0 differs from -0.
            elif before.type != after.type or before.combine_chunks().to_pylist().__repr__() != after.combine_chunks().to_pylist().__repr__():
                problems.append(f"{path}: {name} differs")

    def model(path, left, right):
        hashes = [hashlib.sha256(open(file, "rb").read()).hexdigest() for file in (left, right)]
        if hashes[0] != hashes[1]:
            problems.append(f"{path}: other bytes")

    tables = compare(os.path.join(old, "tables"), os.path.join(new, "tables"), ".parquet", table)
    models = compare(os.path.join(old, "models"), os.path.join(new, "models"), ".safetensors", model)
    models += compare(os.path.join(old, "models"), os.path.join(new, "models"), "config.json", model)
    print("\n".join(problems))
    print(f"{tables} parts of tables with {rows} rows and {values} values, {models} model files: {len(problems)} differences")
    if problems or not tables or not models:
        sys.exit(1)


main()
