"""Makes tests/golden/weight_decay.json: what the optimizers of PyTorch make of tiny models, with the Hugging Face Trainer's groups of parameters.

    python tests/python/weight_decay.py

The models are some of `tests/families/`, with biases and with norms of several names. Four steps on the rows of their golden.json, in float64 from
the saved float32 weights. The loss is the mean over all tokens but each row's first. A large `eps` makes updates smooth, and a large weight decay
shows which parameters decay. For every parameter: its sum and its L2 norm afterwards.
"""

import json
import os
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
from transformers import AutoModelForCausalLM, Trainer

TESTS = Path(__file__).resolve().parent.parent
FAMILIES = ["gemma3", "llama3", "olmo2", "qwen2", "qwen3"]
SETTINGS = {
    "adamw": {"lr": 0.05, "betas": (0.9, 0.999), "eps": 1.0, "weight_decay": 0.5},
    "rmsprop": {"lr": 0.05, "alpha": 0.99, "eps": 1.0, "weight_decay": 0.5},
}
STEPS = 4


def groups(model, weight_decay):
    """The groups of the Trainer: without weight decay are norms and biases."""
    decayed = Trainer.get_decay_parameter_names(None, model)
    parameters = dict(model.named_parameters())
    return [
        {"params": [parameter for name, parameter in parameters.items() if name in decayed], "weight_decay": weight_decay},
        {"params": [parameter for name, parameter in parameters.items() if name not in decayed], "weight_decay": 0.0},
    ]


def steps(family, name):
    folder = TESTS / "families" / family
    rows = json.loads((folder / "golden.json").read_text())["rows"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").train()
    settings = dict(SETTINGS[name])
    parameters = groups(model, settings.pop("weight_decay"))
    optimizer = torch.optim.AdamW(parameters, **settings) if name == "adamw" else torch.optim.RMSprop(parameters, **settings)
    losses = []
    for _ in range(STEPS):
        terms = []
        for row in rows:
            logprobs = model(torch.tensor([row])).logits[0, :-1].log_softmax(-1)
            terms.append(-logprobs[range(len(row) - 1), row[1:]])
        loss = torch.cat(terms).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    after = {name: [parameter.sum().item(), parameter.norm().item()] for name, parameter in model.named_parameters()}
    return {"losses": losses, "after": after}


def main():
    golden = {"steps": STEPS, "settings": SETTINGS, "models": {}}
    for family in FAMILIES:
        golden["models"][family] = {name: steps(family, name) for name in SETTINGS}
        print(family, golden["models"][family]["adamw"]["losses"])
    (TESTS / "golden" / "weight_decay.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
