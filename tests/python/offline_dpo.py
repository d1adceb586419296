"""Offline DPO on four given pairs by PyTorch in float64: what tests/it/training/offline_dpo.rs compares with.

    python tests/python/offline_dpo.py REAL_DIR > tests/golden/offline_dpo.json

REAL_DIR holds stories260K (a Hugging Face directory), which is policy and reference. Each response ends with the end token of the tokenizer, as in TRL.
Two epochs of one step: weighted DPO with beta 0.1, AdamW with weight decay 0.01 at a constant learning rate of 1e-4, no clipping.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from weight_decay import groups

BETA = 0.1
PAIRS = [
    ("Once upon a time, there was a little girl named Lily.", " She loved to play outside in the park.", " She was sad and did not want to go home.", 2.0),
    ("One day, Tom found a big red ball.", " He was very happy and ran to show his mom.", " He was angry.", 0.5),
    ("The dog saw a cat in the garden.", " They became best friends.", " The cat ran away and the dog was very sad. He went home.", 1.0),
    ("Mia wanted to bake a cake.", " Her mom said yes and they baked it together.", " It was dark.", 1.5),
]


def main():
    folder = Path(sys.argv[1]) / "stories260K"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    end = tokenizer.eos_token_id
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()

    def logprob(prompt, response):
        prompt_ids = tokenizer(prompt)["input_ids"]
        ids = tokenizer(prompt + response)["input_ids"] + [end]
        assert ids[: len(prompt_ids)] == prompt_ids, (prompt, response)
        tokens = torch.tensor([ids])
        logprobs = model(tokens).logits[0, :-1].log_softmax(-1)
        return logprobs.gather(1, tokens[0, 1:, None])[len(prompt_ids) - 1 :].sum()

    with torch.no_grad():
        reference = [(logprob(p, chosen), logprob(p, rejected)) for p, chosen, rejected, _ in PAIRS]
    optimizer = torch.optim.AdamW(groups(model, 0.01), lr=1e-4, betas=(0.9, 0.999), eps=1e-8)
    losses, norms = [], []
    for _ in range(2):
        terms = []
        for (prompt, chosen, rejected, weight), (ref_chosen, ref_rejected) in zip(PAIRS, reference):
            margin = (logprob(prompt, chosen) - ref_chosen) - (logprob(prompt, rejected) - ref_rejected)
            terms.append(-weight * torch.nn.functional.logsigmoid(BETA * margin))
        loss = torch.stack(terms).mean()
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        norms.append(torch.sqrt(sum((p.grad**2).sum() for p in model.parameters() if p.grad is not None)).item())
        optimizer.step()
    pairs = [
        {"prompt": p, "chosen": c, "rejected": r, "weight": w, "reference_logprob_chosen": one.item(), "reference_logprob_rejected": other.item()}
        for (p, c, r, w), (one, other) in zip(PAIRS, reference)
    ]
    print(json.dumps({"pairs": pairs, "losses": losses, "gradient_norms": norms}, indent=1))


main()
