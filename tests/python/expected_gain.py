"""The expected gain of new responses, and the replay of selection strategies, with NumPy.

    python expected_gain.py golden > ../golden/expected_gain.json
    python expected_gain.py replay best_of_16.csv
    python expected_gain.py once best_of_16.csv

`golden` predicts gains for random pools. `replay` spends budgets as pipelines/replay_steps.yaml does, in the same
orders of responses, and prints the gain of the best reward for each strategy, number of steps and budget: its mean and
standard error over the orders, and the first two orders with all digits. `once` does the same for
pipelines/replay.yaml, and prints the mean over its repetitions. Random draws are optune's: hashes of seed, iteration
and prompt_id.

Written from the definition in docs/reference/strategies.md. The expected improvement is an integral here:
E[max(0, M - b)] = ∫_b^∞ P(M > x) dx, where M is the best of k draws. A distribution is a step function, so the
integral is a sum.
"""

import csv
import json
import sys
from collections import defaultdict

import numpy as np
from blake3 import blake3


def rise(rewards, best, draws):
    """E[max(0, best of `draws` - best)], for draws from `rewards`."""
    edges = np.unique(np.append(rewards[rewards > best], best))
    above = np.array([1 - np.mean(rewards <= edge) ** draws for edge in edges[:-1]])
    return float((above * np.diff(edges)).sum())


def gains(pool, objective, neighbors, draws):
    """The expected gain of each prompt of a pool {prompt: rewards}."""
    seen = np.concatenate([np.asarray(rewards, float) for rewards in pool.values()])
    low, width = seen.min(), np.ptp(seen)
    level = lambda mean: np.round((mean - low) / width * 1e9) if width > 0 else mean * 0
    others, held_out = [], []
    for rewards in pool.values():
        for index, reward in enumerate(rewards):
            rest = [other for place, other in enumerate(rewards) if place != index]
            if rest:
                others.append(np.mean(rest))
                held_out.append(reward)
    if not others:
        others, held_out = seen * 0, seen
    others, held_out = level(np.array(others)), np.array(held_out)
    result = {}
    for prompt, rewards in pool.items():
        distance = np.abs(others - level(np.mean(rewards)))
        last = min(neighbors, len(distance)) - 1
        limit = np.partition(distance, last)[last]
        near = held_out[distance <= limit]
        result[prompt] = rise(near, max(rewards), draws)
        if objective == "gap":
            result[prompt] += rise(-near, -min(rewards), draws)
    return result


def golden():
    rng = np.random.default_rng(20)
    draw = {
        "uniform": lambda count: rng.random(count),
        "two values": lambda count: rng.integers(0, 2, count).astype(float),
        "piled up at both ends": lambda count: np.clip(rng.normal(rng.random() * 2 - 0.5, 0.5, count), 0, 1),
        "tenths": lambda count: np.round(rng.random(count), 1) * 10 - 3,
        "large": lambda count: rng.normal(0, 1e12, count),
        "constant": lambda count: np.full(count, 0.1),
    }
    cases = []
    for name, rewards in draw.items():
        for prompts, counts in ((1, (3, 4)), (7, (1, 2)), (40, (1, 6)), (80, (2, 3))):
            pool = {f"p{index:03}": list(rewards(rng.integers(*counts))) for index in range(prompts)}
            settings = [("best", 60, 2), ("gap", 5, 1), ("gap", 60, 6)]
            found = [dict(zip(("objective", "neighbors", "draws"), one), gains=list(gains(pool, *one).values())) for one in settings]
            cases.append({"name": name, "rewards": list(pool.values()), "predictions": found})
    json.dump(cases, sys.stdout, separators=(",", ":"))


RESPONSES = 11
REPETITIONS = 200


def recorded(path):
    """Prompt, number and reward of each response that counts."""
    rows = [(int(row["prompt_id"]), int(row["k"]), row["gpt4_turbo_pref_minus1"]) for row in csv.DictReader(open(path))]
    return [(prompt, k, float(reward)) for prompt, k, reward in rows if k < RESPONSES and reward not in ("", "nan")]


def shuffled(responses, order):
    """The rewards of each prompt, in the order of the pipeline."""
    rows = defaultdict(list)
    for prompt, k, reward in responses:
        number = order * 1048576 + prompt * 16 + k
        for _ in range(2):
            number = (number ^ number >> 16) * 73244475 & 4294967295
        rows[prompt].append((number ^ number >> 16, k, reward))
    return {prompt: [reward for _, _, reward in sorted(rows[prompt])] for prompt in sorted(rows)}


def draw(seed, iteration, prompt_id):
    """The number by which a random selection orders a prompt."""
    texts = [text.encode() for text in ("select", prompt_id)]
    named = b"".join(len(text).to_bytes(8, "little") + text for text in texts)
    place = seed.to_bytes(8, "little") + iteration.to_bytes(4, "little") + (0).to_bytes(4, "little")
    return float(int.from_bytes(blake3(named + place).digest()[:8], "little", signed=True))


def beliefs(pool):
    """The key of `posterior` with its defaults, of each row of seen rewards: a Kalman filter on quantiles."""
    seen = np.sort(pool.ravel())
    quantiles = (np.searchsorted(seen, pool, "left") + np.searchsorted(seen, pool, "right")) / (2 * len(seen))
    noise = quantiles.var(axis=1, ddof=1).mean()
    variance = 1 / 12
    trust = variance / (variance + noise / pool.shape[1])
    mean = 0.5 + trust * (quantiles.mean(axis=1) - 0.5)
    return np.abs(mean - 0.5) - np.sqrt(variance * (1 - trust))


def once(responses, strategy, ratio):
    """The rise of the best reward in pipelines/replay.yaml, in the mean over prompts and repetitions."""
    rows = [
        (f"r{repetition:03} p{prompt:05}", rewards)
        for repetition in range(1, REPETITIONS + 1)
        for prompt, rewards in shuffled(responses, repetition).items()
    ]
    if strategy == "random":
        keys = [draw(0, 0, prompt_id) for prompt_id, _ in rows]
    elif strategy == "posterior":
        keys = beliefs(np.array([rewards[:2] for _, rewards in rows]))
    else:
        sign = {"lowest_reward": 1, "highest_reward": -1}[strategy]
        keys = [sign * (rewards[0] + rewards[1]) / 2 for _, rewards in rows]
    ranked = sorted(zip(keys, rows))
    selected = ranked[: int(np.ceil(round(ratio * len(ranked), 6)))]
    return sum(max(rewards[:4]) - max(rewards[:2]) for _, (_, rewards) in selected) / len(ranked)


def replay(responses, order, strategy, steps, each, tokens):
    """The rise of the best reward, in the mean over all prompts."""
    rewards = shuffled(responses, order)
    count = {prompt: 2 for prompt in rewards}
    for step in range(1, steps + 1):
        pool = {prompt: rewards[prompt][: count[prompt]] for prompt in rewards if count[prompt] < RESPONSES}
        if strategy == "random":
            key = {prompt: draw(order, step, f"p{prompt:05}") for prompt in pool}
        elif strategy == "lowest_reward":
            key = {prompt: np.mean(values) for prompt, values in pool.items()}
        else:
            key = {prompt: -round(gain * 1e12) for prompt, gain in gains(pool, "best", 60, each).items()}
        spent = 0
        for prompt in sorted(pool, key=lambda prompt: (key[prompt], prompt)):
            if spent < tokens:
                spent += each
                count[prompt] = min(count[prompt] + each, len(rewards[prompt]))
    return np.mean([max(values[: count[prompt]]) - max(values[:2]) for prompt, values in rewards.items()])


BUDGETS = [(1, 2, (483, 805, 1127, 1610)), (16, 1, (30, 50, 70, 100))]

if __name__ == "__main__" and sys.argv[1] == "golden":
    golden()
elif __name__ == "__main__" and sys.argv[1] == "once":
    for ratio in (1.0, 0.7, 0.5, 0.3):
        for strategy in ("lowest_reward", "random", "highest_reward", "posterior"):
            print(f"{ratio} {strategy:14} {once(recorded(sys.argv[2]), strategy, ratio):.12f}", flush=True)
elif __name__ == "__main__":
    for steps, each, budgets in BUDGETS:
        for tokens in budgets:
            for strategy in ("random", "lowest_reward", "expected_gain"):
                found = np.array([replay(recorded(sys.argv[2]), order, strategy, steps, each, tokens) for order in range(1, 17)])
                error = found.std(ddof=1) / np.sqrt(len(found))
                print(f"{steps:2} {each} {tokens:4} {strategy:13} {found.mean():.4f} ({error:.4f})  {found[0]:.12f} {found[1]:.12f}", flush=True)
