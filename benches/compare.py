"""Runs our side and its peers alternately and prints ratios (benches/README.md).

    python benches/compare.py /tmp/inputs generate --model llama-15m --batch 8 --peer transformers --peer llama.cpp --runs 5
    python benches/compare.py /tmp/inputs workload --model llama-15m --batch 64 --peer "transformers --batch 32"

What stands behind a peer's name are arguments for it alone. `--device cuda` has all sides compute on a graphics card, in bf16. Knows the contract and how much
work a case is at least; nothing of how it is done.
"""

import argparse
import json
import math
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import median

FOLDER = Path(__file__).resolve().parent
PEERS = {
    ("generate", "transformers"): "transformers_generate.py",
    ("workload", "transformers"): "transformers_generate.py",
    ("generate", "llama.cpp"): "llama_cpp_generate.py",
    ("dpo-step", "torch"): "torch_dpo.py",
    ("relational", "duckdb"): "duckdb_relational.py",
    ("relational", "polars"): "polars_relational.py",
}
OPTIONS = {
    "generate": ["model", "batch", "tokens", "threads"],
    "workload": ["model", "batch", "prompts", "threads"],
    "dpo-step": ["model", "steps", "threads"],
    "relational": ["prompts", "write", "threads"],
}
DEFAULTS = {
    "generate": {"tokens": 128}, "workload": {"prompts": 256}, "dpo-step": {"steps": 3}, "relational": {"prompts": 1_000_000},
}
# Bytes of a number, and what else peers are told, on each device.
BYTES = {"cpu": 4, "cuda": 2}
PEER_ARGUMENTS = {
    ("cuda", "transformers"): ["--device", "cuda", "--dtype", "bfloat16"],
    ("cuda", "torch"): ["--device", "cuda", "--autocast", "1"],
}


def main():
    asked = arguments()
    commands = {"optune": our_command(asked)} if asked.ours != "none" else {}
    for peer in asked.peer:
        commands[peer] = peer_command(asked, *shlex.split(peer))
    lines, limits = {name: [] for name in commands}, {1: [], None: []} if asked.device == "cpu" else {None: []}
    for number in range(asked.runs):
        for name, command in commands.items():
            lines[name].append(run(command, asked.lines))
            print(f"run {number + 1} of {asked.runs}: {name} {lines[name][-1]['seconds']:.3f} s", file=sys.stderr)
        if asked.case != "relational":
            for threads, found in limits.items():
                found.append(run(limits_command(asked, threads), asked.lines))
    print_table(asked, lines, limits)
    problems = disagreements(list(lines.values()), asked.device)
    print("\n".join(problems) or "all sides computed the same")
    sys.exit(1 if problems else 0)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("inputs", type=Path, help="what make_inputs.py wrote")
    parser.add_argument("case", choices=OPTIONS)
    for name in sorted({name for names in OPTIONS.values() for name in names}):
        parser.add_argument(f"--{name}", help=f"for {', '.join(case for case, names in OPTIONS.items() if name in names)}")
    parser.add_argument("--peer", action="append", default=[], help="a peer's name, and arguments for it alone; may be given several times")
    parser.add_argument("--ours", help="the program that is our side, with arguments for it alone, instead of cargo's bench; none: only peers")
    parser.add_argument("--our-arguments", default="", help="arguments for our side alone")
    parser.add_argument("--device", choices=BYTES, default="cpu", help="where all sides compute")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--lines", type=Path, help="a file to which every line of every side is added")
    asked = parser.parse_args()
    for name, value in DEFAULTS[asked.case].items():
        setattr(asked, name, getattr(asked, name) or value)
    for peer in asked.peer:
        known = [name for case, name in PEERS if case == asked.case]
        if shlex.split(peer)[0] not in known:
            parser.error(f"--peer {peer}: expected one of {', '.join(known)} for {asked.case}")
    return asked


def case_arguments(asked):
    given = [(name, getattr(asked, name)) for name in OPTIONS[asked.case] if getattr(asked, name) is not None]
    return [asked.case, "--inputs", str(asked.inputs), *(word for name, value in given for word in (f"--{name}", str(value)))]


def our_command(asked):
    program = shlex.split(asked.ours) if asked.ours else [bench_program(asked.device)]
    device = ["--device", asked.device, "--precision", "bf16"] if asked.device != "cpu" and asked.case != "relational" else []
    return [*program, *case_arguments(asked), *device, *shlex.split(asked.our_arguments)]


def bench_program(device):
    """Builds the bench and returns its path: cargo itself is not to be measured."""
    features = ["--features", "cuda"] if device == "cuda" else []
    build = ["cargo", "bench", "--bench", "optune", *features, "--no-run", "--message-format", "json"]
    messages = subprocess.run(build, cwd=FOLDER.parent, stdout=subprocess.PIPE, text=True, check=True).stdout
    built = [message for message in map(json.loads, messages.splitlines()) if message.get("executable") and "bench" in message["target"]["kind"]]
    return built[-1]["executable"]


def peer_command(asked, name, *own):
    return [sys.executable, str(FOLDER / "peers" / PEERS[asked.case, name]), *case_arguments(asked), *PEER_ARGUMENTS.get((asked.device, name), []), *own]


def limits_command(asked, threads):
    threads = threads or asked.threads
    device = ["--device", "cuda", "--dtype", "bfloat16"] if asked.device == "cuda" else []
    threads = ["--threads", str(threads)] if threads else []
    return [sys.executable, str(FOLDER / "peers" / "limits.py"), "limits", "--inputs", str(asked.inputs), *device, *threads]


def run(command, keep):
    """One measurement: the line that a side prints."""
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{shlex.join(command)} ended with {result.returncode}:\n{result.stderr}")
    text = result.stdout.strip()
    if "\n" in text or not text.startswith("{"):
        sys.exit(f"{shlex.join(command)}: expected one JSON object on one line, found {text[:200]!r}")
    if keep:
        with keep.open("a") as file:
            file.write(text + "\n")
    return json.loads(text)


def print_table(asked, lines, limits):
    print(shlex.join(case_arguments(asked)), f"runs: {asked.runs}")
    limit = None
    if asked.case != "relational":
        for found in limits.values():
            reads, flops = [[line[key] / 1e9 for line in found] for key in ("read_bytes_per_second", "matrix_flops_per_second")]
            of = f"{found[0]['threads']} threads" if asked.device == "cpu" else asked.device
            print(f"limits of {of}: reads {spread(reads)} GB/s, matrix products {spread(flops)} Gflop/s")
        limit = [least_seconds(asked, line) for line in limits[None]]
    header = ["side", "seconds", "tokens/s", "CPU seconds", "peak MiB", "share of the limit", f"speed of {next(iter(lines))} to it"]
    rows = [header]
    ours = next(iter(lines.values()))
    for name, found in lines.items():
        seconds = [line["seconds"] for line in found]
        rows.append([
            name,
            spread(seconds),
            spread([line["tokens"] / line["seconds"] for line in found]) if "tokens" in found[0] else "-",
            spread([line["cpu_seconds"] for line in found]) if "cpu_seconds" in found[0] else "-",
            spread([line["peak_rss_bytes"] / 2**20 for line in found]),
            spread([least / taken for least, taken in zip(limit, seconds)]) if limit else "-",
            spread([taken / line["seconds"] for taken, line in zip(seconds, ours)]) if found is not ours else "-",
        ])
    widths = [max(map(len, column)) for column in zip(*rows)]
    print("\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows))


def spread(values):
    """Median (least to greatest)."""
    digits = lambda value: f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{digits(median(values))} ({digits(min(values))} to {digits(max(values))})"


def least_seconds(asked, machine):
    """How long a case takes at least: where all its weights must be read once for each token of a batch, and each be multiplied with each position. Attention,
    norms and sampling are left out. A side may be faster than this if its caches hold the weights."""
    config = json.loads((asked.inputs / asked.model / "config.json").read_text())
    hidden, head_dim = config["hidden_size"], config["head_dim"]
    attention = 2 * hidden * head_dim * (config["num_attention_heads"] + config["num_key_value_heads"])
    layers = config["num_hidden_layers"] * (attention + 3 * hidden * config["intermediate_size"])
    head = config["vocab_size"] * hidden
    reading = (layers + head) * BYTES[asked.device] / machine["read_bytes_per_second"]
    products = lambda positions, predicted: 2 * (layers * positions + head * predicted) / machine["matrix_flops_per_second"]
    if asked.case == "generate":
        batch, tokens = int(asked.batch), int(asked.tokens)
        prompt_tokens = len(json.loads((asked.inputs / "prompts.json").read_text())["prompts"][0])
        return max(reading, products(batch * prompt_tokens, batch)) + (tokens - 1) * max(reading, products(batch, batch))
    if asked.case == "workload":
        prompts = json.loads((asked.inputs / "workload.json").read_text())["prompts"][: int(asked.prompts)]
        prompt_tokens = sum(len(prompt["token_ids"]) for prompt in prompts)
        tokens = sum(sum(prompt["response_tokens"]) for prompt in prompts)
        return max(math.ceil(tokens / int(asked.batch)) * reading, products(prompt_tokens + tokens, tokens))
    pairs = json.loads((asked.inputs / asked.model / "pairs.json").read_text())
    prompt, chosen, rejected = [sum(map(len, pairs[name])) for name in ("prompt", "chosen", "rejected")]
    # Forward, and backward to weights and to inputs; a pair's prompt once.
    return int(asked.steps) * 3 * products(prompt + chosen + rejected, chosen + rejected)


def disagreements(lines, device):
    """What the sides did not compute alike, as sentences: all runs are compared with the first side's first. Greedy ids part sooner or later, where two
    tokens are as good as equally probable; they should not do so in the first half, or, in bf16, among the first eight."""
    first, problems = lines[0][0], []
    count, losses = len(first.get("token_ids", [])), 1e-3 if device == "cpu" else 1e-2
    least = count / 2 if device == "cpu" else min(count, 8)
    for line in (line for found in lines for line in found):
        sides = f"{first['side']} and {line['side']}"
        ids = [line.get("token_ids", []) for line in (first, line)]
        alike = next((at for at, (left, right) in enumerate(zip(*ids)) if left != right), len(ids[0]))
        if len(ids[0]) != len(ids[1]) or alike < least:
            problems.append(f"{sides} differ in token_ids from number {alike} of {len(ids[0])} and {len(ids[1])} on")
        for key in ("selected", "pool", "pairs"):
            if first.get(key) != line.get(key):
                problems.append(f"{sides} differ in {key}: {first.get(key)} and {line.get(key)}")
        for key, tolerance in (("losses", losses), ("weight_sum", 1e-9)):
            values = [value if isinstance(value, list) else [value] for value in (first.get(key, 0), line.get(key, 0))]
            close = len(values[0]) == len(values[1]) and all(math.isclose(*both, rel_tol=tolerance) for both in zip(*values))
            if not close:
                problems.append(f"{sides} differ in {key}: {first.get(key)} and {line.get(key)}")
    return problems


if __name__ == "__main__":
    main()
