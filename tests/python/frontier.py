"""Sweeps compared at equal distance from the base: held-out reward against the NLL of the responses under the base.

    python frontier.py OPTUNE RUNS NAME…

Reads every finished run of the sweeps NAME in the folder RUNS by the program OPTUNE. The last part of a run's name is
its seed; runs that differ in it only are one setting. Each iteration of a run is a point (NLL, reward), and between two
points the reward is interpolated. Printed are, for each setting, the share of the most sampled tokens, reward, win
score and NLL after the last iteration, and the reward at two distances that most runs reach, each with a 95 % interval
over the seeds (Student's t). Nothing is chosen here: all settings are printed.
"""

import csv
import io
import math
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, median, stdev

T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
QUERY = """
SELECT 0 AS iteration, avg(baseline_reward) AS reward, 50.0 AS score, CAST(NULL AS DOUBLE) AS nll FROM evaluation WHERE iteration = 1
UNION ALL
SELECT iteration, avg(reward), 50 + 50 * avg(CASE outcome WHEN 'win' THEN 1.0 WHEN 'loss' THEN -1.0 ELSE 0.0 END), avg(nll_initial)
FROM evaluation GROUP BY iteration ORDER BY 1
"""
TOKENS = "SELECT sum(sampled_tokens) AS tokens FROM cost_by_stage"


def rows(optune, run, query):
    found = subprocess.run([optune, "sql", str(run), query, "--format", "csv"], capture_output=True, text=True, check=True).stdout
    return list(csv.DictReader(io.StringIO(found)))


def number(text):
    return float(text) if text else None


def at(points, nll):
    """The reward at an NLL: on the first stretch of the path that crosses it."""
    for (one, before), (other, after) in zip(points, points[1:]):
        if min(one, other) <= nll <= max(one, other) and one != other:
            return before + (after - before) * (nll - one) / (other - one)
    return None


def interval(values):
    values = [value for value in values if value is not None]
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.3f}"
    half = T.get(len(values), 2.0) * stdev(values) / math.sqrt(len(values))
    return f"{mean(values):.3f} ± {half:.3f}" + ("" if len(values) >= 3 else f" ({len(values)})")


def main(optune, folder, names):
    settings = defaultdict(list)
    for run in sorted(Path(folder).iterdir()):
        if not any(run.name.startswith(name + "-") and run.name[len(name) + 1].isdigit() for name in names):
            continue
        found = rows(optune, run, QUERY)
        points = [(number(row["nll"]), float(row["reward"])) for row in found if row["nll"]]
        last = found[-1]
        settings[run.name.rsplit("-", 1)[0]].append({
            "points": points,
            "tokens": float(rows(optune, run, TOKENS)[0]["tokens"]),
            "reward": float(last["reward"]),
            "score": float(last["score"]),
            "nll": float(last["nll"]),
        })
    ends = [run["points"][-1][0] for runs in settings.values() for run in runs]
    starts = [run["points"][0][0] for runs in settings.values() for run in runs]
    near, far = median(starts) + 0.35 * (median(ends) - median(starts)), median(starts) + 0.8 * (median(ends) - median(starts))
    most = max(mean(run["tokens"] for run in runs) for runs in settings.values())
    print(f"| setting | tokens | reward | win score | NLL | reward at NLL {near:.3f} | at NLL {far:.3f} |\n|---|---|---|---|---|---|---|")
    for name, runs in sorted(settings.items(), key=lambda item: -mean(run["tokens"] for run in item[1])):
        column = lambda key: interval([run[key] for run in runs])
        tokens = mean(run["tokens"] for run in runs) / most
        crossed = [interval([at(run["points"], nll) for run in runs]) for nll in (near, far)]
        print(f"| {name} | {tokens:.2f} | {column('reward')} | {column('score')} | {column('nll')} | {crossed[0]} | {crossed[1]} |")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
