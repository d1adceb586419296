"""Curves of a run in trackio and in Weights & Biases, both offline, against TensorBoard's own reader.

    python tests/python/import_curves.py runs/NAME/tensorboard FOLDER

FOLDER receives the files of both. The last line of the output is {"trackio": <values>, "wandb": <values>}.
Needs tensorboard, trackio with tbparse, and wandb (see requirements.txt). tests/it/interop/tracking.rs runs it.
"""

import json
import os
import struct
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def read(folder):
    """All scalars as {(node, tag): {step: value}}."""
    found = {}
    for path in sorted({path.parent for path in folder.rglob("events.out.tfevents.*")}):
        curves = EventAccumulator(str(path), size_guidance={"scalars": 0})
        curves.Reload()
        for tag in curves.Tags()["scalars"]:
            found[path.name, tag] = {event.step: event.value for event in curves.Scalars(tag)}
    return found


def run_documented(program, folder):
    """Runs the lines of docs/guide/reports-and-tracking.md about a program, for this folder."""
    page = Path(__file__).parents[2] / "docs/guide/reports-and-tracking.md"
    blocks = [block.split("```")[0] for block in page.read_text().split("```python\n")[1:]]
    (block,) = [block for block in blocks if f"import {program}" in block]
    shown = '"runs/quickstart/tensorboard"'
    assert block.count(shown) == 1
    exec(block.replace(shown, repr(str(folder))), {})


def by_trackio(folder, name):
    """What trackio has after its import, as `read` gives it: the folders of the nodes are its runs."""
    import tbparse  # trackio's reader
    import trackio

    assert tbparse
    run_documented("trackio", folder)
    found = {}
    for run in trackio.Api().runs(name):
        for row in trackio.sqlite_storage.SQLiteStorage.get_logs(name, run.name):
            for tag, value in row.items():
                if isinstance(value, float):
                    found.setdefault((run.name, tag), {})[row["step"]] = value
    return found


def records(file):
    """Records of an offline run: LevelDB's log format, with a header of seven bytes."""
    data, place, parts = Path(file).read_bytes(), 7, []
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        if kind == 0:
            break
        parts.append(data[place + 7 : place + 7 + length])
        place += 7 + length
        # Whole, or the last of several.
        if kind in (1, 4):
            yield b"".join(parts)
            parts = []


def by_wandb(folder, files):
    """What the offline run has, as `read` gives it."""
    from wandb.proto import wandb_internal_pb2

    os.environ |= {"WANDB_MODE": "offline", "WANDB_DIR": str(files), "WANDB_SILENT": "true"}
    run_documented("wandb", folder)
    (file,) = files.glob("wandb/offline-run-*/run-*.wandb")
    found = {}
    for data in records(file):
        record = wandb_internal_pb2.Record.FromString(data)
        if record.WhichOneof("record_type") != "history":
            continue
        row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for key, value in row.items():
            node, _, tag = key.partition("/")
            if tag and tag != "step":
                found.setdefault((node, tag), {})[row[f"{node}/step"]] = value
    return found


def compare(who, found, expected):
    assert found.keys() == expected.keys(), (who, sorted(found.keys() ^ expected.keys()))
    for key, values in expected.items():
        assert found[key] == values, (who, key, found[key], values)
    return sum(len(values) for values in found.values())


def main(folder, files):
    folder, files = Path(folder), Path(files)
    os.environ["TRACKIO_DIR"] = str(files / "trackio")
    expected = read(folder)
    assert expected
    counts = {
        "trackio": compare("trackio", by_trackio(folder, "quickstart"), expected),
        "wandb": compare("wandb", by_wandb(folder, files), expected),
    }
    print(json.dumps(counts))


if __name__ == "__main__":
    main(*sys.argv[1:])
