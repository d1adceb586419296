"""Length-controlled win rates by the package alpaca_eval, for tests/it/judging/length_control.rs.

    python tests/python/length_control.py > tests/golden/length_control.json

The package's model length_controlled_minimal: it has no term of AlpacaEval's own prompts. The package still opens a file with their difficulties,
so it gets one without a meaning. `tol` and `max_iter` are raised so that liblinear's answer is the minimum and not a point near it.
"""

import json
import random
import sys
import tempfile
from pathlib import Path

import alpaca_eval.metrics.glm_winrate as glm
import pandas as pd

MINIMAL = glm.GLM_INFO["length_controlled_minimal"]
CONVERGED = {**MINIMAL, "kwargs": {**MINIMAL["kwargs"], "tol": 1e-12, "max_iter": 100_000}}


def case(name, count, seed, win, tie, effect):
    """Pairs whose preference depends on chance, and by `effect` on the difference of lengths."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        lengths = [draw.randint(1, 400), draw.randint(1, 400)]
        share = min(max(win + effect * (lengths[1] - lengths[0]) / 400, 0.02), 0.98)
        preference = 0.5 if draw.random() < tie else float(draw.random() < share)
        rows.append([preference, lengths[1], lengths[0]])
    return name, rows


def win_rates(rows, folder):
    annotations = pd.DataFrame(
        {
            "preference": [1 + preference for preference, _, _ in rows],
            "output_1": ["x" * baseline for _, _, baseline in rows],
            "output_2": ["x" * length for _, length, _ in rows],
            "index": range(len(rows)),
            "generator_1": "baseline",
            "generator_2": "policy",
            "annotator": "judge",
        }
    )
    unused = folder / "df_gamed.csv"
    pd.DataFrame({"index": range(len(rows)), "instruction_difficulty": 0.0, "model": "none", "preference": 0.5}).to_csv(unused, index=False)
    glm.hf_hub_download = lambda **_: str(unused)
    found = glm.get_length_controlled_winrate(annotations, "length_controlled_minimal", save_weights_dir=None, glm_info=CONVERGED)
    default = glm.get_length_controlled_winrate(annotations, "length_controlled_minimal", save_weights_dir=None)
    return {
        "win_rate": found["win_rate"],
        "length_controlled": found["length_controlled_winrate"],
        "length_controlled_by_default": default["length_controlled_winrate"],
    }


def main():
    cases = [
        case("no effect of length", 200, 1, 0.5, 0.2, 0.0),
        case("longer is better", 200, 2, 0.65, 0.1, 0.6),
        case("shorter is better", 100, 3, 0.6, 0.3, -0.6),
        case("a strong policy", 300, 4, 0.9, 0.05, 0.1),
        case("a weak policy", 805, 5, 0.15, 0.1, 0.3),
        case("few pairs", 16, 6, 0.85, 0.1, 0.4),
        case("the fewest pairs", 5, 7, 0.95, 0.0, 0.0),
        case("many ties", 150, 8, 0.5, 0.9, 0.5),
        case("more than half", 64, 9, 0.7, 0.2, -0.2),
        case("a whole benchmark", 805, 10, 0.42, 0.15, 0.5),
        ("only wins", [[1.0, 10 + 7 * index % 50, 30] for index in range(40)]),
        ("only ties", [[0.5, 10 + 7 * index % 50, 30] for index in range(20)]),
    ]
    with tempfile.TemporaryDirectory() as folder:
        found = [{"name": name, "pairs": rows, **win_rates(rows, Path(folder))} for name, rows in cases]
    json.dump(found, sys.stdout)
    sys.stdout.write("\n")


main()
