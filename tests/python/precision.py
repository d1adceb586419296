"""Logprobs and gradients of tiny models under torch.autocast in bf16, and logprobs in float64: what tests/it/training/precision.rs compares with.

    python tests/python/precision.py > tests/golden/precision.json

The models are those of tests/families. Of each row the logprob from the third token on counts with a derivative. Gradients are those of the first layer, the
furthest from the loss, by our names and in our layout: weights of projections are transposed, weights of norms are called gamma.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

FAMILIES = Path(__file__).parent.parent / "families"
PROMPT = 2
LAYER = "model.layers.0."


def logprobs(model, rows):
    found = []
    for row in rows:
        tokens = torch.tensor([row])
        logits = model(tokens).logits[0, PROMPT - 1 : -1]
        logits = logits.float() if logits.dtype == torch.bfloat16 else logits
        found.append(logits.log_softmax(-1).gather(1, tokens[0, PROMPT:, None]).sum())
    return found


def derivative(at):
    return [-0.8, 0.3, 0.5, -0.25, 1.0][at % 5]


def named(name, gradient):
    if name.endswith("norm.weight"):
        name = name.removesuffix("weight") + "gamma"
    elif name.endswith("_proj.weight") or name == "lm_head.weight":
        gradient = gradient.T
    return name, [float(f"{number:.4g}") for number in gradient.flatten().tolist()]


def passed_back(model, rows):
    model.zero_grad()
    found = logprobs(model, rows)
    sum(derivative(at) * logprob for at, logprob in enumerate(found)).backward()
    gradients = dict(named(name, parameter.grad) for name, parameter in model.named_parameters() if name.startswith(LAYER))
    return [logprob.item() for logprob in found], gradients


def golden(name):
    folder = FAMILIES / name
    rows = [row for row in json.loads((folder / "golden.json").read_text())["rows"] if len(row) > PROMPT]
    with torch.no_grad():
        exact = [logprob.item() for logprob in logprobs(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval(), rows)]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, gradients = passed_back(model, rows)
    derivatives = [derivative(at) for at in range(len(rows))]
    return {"family": name, "rows": rows, "prompt": PROMPT, "derivatives": derivatives, "exact": exact, "autocast": found, "gradients": gradients}


json.dump([golden(name) for name in ("llama3", "qwen2")], sys.stdout, separators=(",", ":"))
