"""Event files of TensorBoard: golden records by TensorBoard's own writer, and curves by its own reader.

    python tests/python/event_files.py golden       writes tests/golden/event_file.json
    python tests/python/event_files.py read DIR     prints {"<folder>": {"<tag>": [[step, value], ...]}} of the event files under DIR

Both need tensorboard (see requirements.txt). tests/it/interop/tracking.rs does the second with the interpreter in OPTUNE_PYTHON; src/tracking/event_file.rs has the golden records.
"""

import io
import json
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter


def record(event):
    """One event as the bytes of its record, in hexadecimal."""
    file = io.BytesIO()
    RecordWriter(file).write(event.SerializeToString())
    return file.getvalue().hex()


def golden():
    """Records of known events."""
    scalars = [(1.5e9 + 0.25, 1, "train/loss", 0.6931472), (0.0, 0, "reward", -1.5), (1.7e9, 300, "train/rewards/margins", 1e-7), (1.0, 2**40, "x", 0.0)]
    records = {
        "version": record(event_pb2.Event(wall_time=12.5, file_version="brain.Event:2")),
        "start": record(event_pb2.Event(wall_time=12.5, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))),
        "scalars": [],
    }
    for seconds, step, tag, value in scalars:
        summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, simple_value=value)])
        event = event_pb2.Event(wall_time=seconds, step=step, summary=summary)
        records["scalars"].append({"seconds": seconds, "step": step, "tag": tag, "value": value, "record": record(event)})
    path = Path(__file__).parent.parent / "golden" / "event_file.json"
    path.write_text(json.dumps(records, indent=1) + "\n")


def read(folder):
    """All scalars under a folder."""
    found = {}
    for path in sorted({path.parent for path in folder.rglob("events.out.tfevents.*")}):
        curves = EventAccumulator(str(path), size_guidance={"scalars": 0})
        curves.Reload()
        tags = curves.Tags()["scalars"]
        found[str(path.relative_to(folder))] = {tag: [[event.step, event.value] for event in curves.Scalars(tag)] for tag in tags}
    print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1] == "golden":
        golden()
    else:
        read(Path(sys.argv[2]))
