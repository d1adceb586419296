"""What every peer does alike: arguments, threads, the clock, and the line it prints (benches/README.md). Knows no peer."""

import argparse
import json
import os
import time
from pathlib import Path


class Stopwatch:
    """`with watch: work` adds the work's time to `watch.seconds`, and what all threads together worked to `watch.cpu_seconds`. `finish` waits for what was only
    begun, on a graphics card."""

    seconds = 0.0
    cpu_seconds = 0.0

    def __init__(self, finish=lambda: None):
        self.finish = finish

    def __enter__(self):
        self.finish()
        self.started = time.perf_counter(), time.process_time()

    def __exit__(self, *_):
        self.finish()
        self.seconds += time.perf_counter() - self.started[0]
        self.cpu_seconds += time.process_time() - self.started[1]


def arguments(description, cases):
    """The command line of a peer. `cases` maps each case to the names of its own arguments, which are numbers unless a default says otherwise."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    commands = parser.add_subparsers(dest="case", required=True)
    for case, options in cases.items():
        command = commands.add_parser(case)
        command.add_argument("--inputs", type=Path, required=True)
        command.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
        for name, default in options.items():
            kind = int if default is None else type(default)
            command.add_argument(f"--{name}", type=kind, default=default, required=default is None)
    return parser.parse_args()


def on_device(asked):
    """What `--device` says, as a stopwatch for it, and what to report of its memory."""
    import torch

    if asked.device == "cpu":
        return Stopwatch(), lambda: {}
    return Stopwatch(torch.cuda.synchronize), lambda: {"peak_device_bytes": torch.cuda.max_memory_reserved()}


def read_json(path):
    return json.loads(Path(path).read_text())


def peak_rss_bytes():
    """The highest resident set of this process so far. Unlike `ru_maxrss`, it knows nothing of the process that started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def report(side, asked, seconds, **found):
    """Prints the line: what was asked for, and what was found."""
    line = {"case": asked.case, "side": side, **{name: value for name, value in vars(asked).items() if name in ("model", "batch", "threads", "prompts", "device", "dtype")}}
    print(json.dumps({**line, "seconds": seconds, "peak_rss_bytes": peak_rss_bytes(), **found}), flush=True)
