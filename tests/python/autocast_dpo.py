"""DPO in bf16 by PyTorch's autocast, and the same steps by optune: the losses must agree within 2 % at each step.

    python tests/python/autocast_dpo.py make MODEL_DIR PAIRS.json FOLDER
    optune run FOLDER/pipeline.yaml
    optune sql autocast-dpo "SELECT loss FROM policy_training ORDER BY step" --format csv | python tests/python/autocast_dpo.py compare FOLDER

MODEL_DIR is a Hugging Face directory, PAIRS.json a list of preferences in the form of ShareGPT (conversations, chosen, rejected). `make` takes the shortest of one
turn, cuts their answers to a few words, writes FOLDER/pairs.jsonl and FOLDER/pipeline.yaml, and trains on them: 50 steps of two pairs in optune's order, weights and
AdamW in f32, forward passes under torch.autocast on the CPU. Losses go to FOLDER/losses.json. Ends with 1 if a step differs.

Where PyTorch has no fast bf16 products (before AVX-512), `make` takes hours. With --f32-products after it, projections multiply the same bf16 factors in f32 and round
the result to bf16, forward and backward: the numbers of autocast but for the order of sums. The first response is computed both ways, and the difference is printed.
"""

import json
import sys
from pathlib import Path

STEPS, BATCH, SEED = 50, 2, 17
BETA, RATE, CLIP = 0.1, 5e-6, 1.0
WORDS = 40
TOLERANCE = 0.02

PIPELINE = """optune: 1
name: autocast-dpo
seed: {seed}
precision: bf16
inputs:
  pairs: {{ table: "{folder}/pairs.jsonl" }}
  base: {{ model: "{model}" }}
nodes:
  policy:
    train: {{ from: base, reference: base, pairs: pairs, beta: {beta}, learning_rate: {rate:.1e}, schedule: constant, warmup_ratio: 0, optimizer: adamw, batch_size: {batch}, max_gradient_norm: {clip} }}
"""


def shortest(path):
    """The pairs with the shortest prompts, their answers cut to the first words."""
    rows = []
    for row in json.loads(Path(path).read_text()):
        if len(row["conversations"]) != 1:
            continue
        prompt = row["conversations"][0]["value"]
        answers = [" ".join(row[side]["value"].split()[:WORDS]) for side in ("chosen", "rejected")]
        if answers[0] != answers[1]:
            rows.append((len(prompt), prompt, *answers))
    rows.sort()
    if len(rows) < STEPS * BATCH:
        sys.exit(f"{path}: expected {STEPS * BATCH} pairs of one turn, found {len(rows)}")
    said = lambda role, text: [{"role": role, "content": text}]
    return [
        {"prompt_id": f"p{at:03}", "prompt": said("user", prompt), "chosen": said("assistant", chosen), "rejected": said("assistant", rejected)}
        for at, (_, prompt, chosen, rejected) in enumerate(rows[: STEPS * BATCH])
    ]


def shuffled(pairs):
    """optune's order of the first epoch: by a hash of purpose, id, seed, iteration and epoch."""
    from blake3 import blake3

    def number(pair):
        texts = b"".join(len(text).to_bytes(8, "little") + text for text in (b"shuffle", pair["prompt_id"].encode()))
        digest = blake3(texts + SEED.to_bytes(8, "little") + (0).to_bytes(4, "little") + (0).to_bytes(4, "little")).digest()
        return int.from_bytes(digest[:8], "little")

    return sorted(pairs, key=number)


def multiply_in_f32():
    """Replaces autocast's linear by one with the same roundings."""
    import torch

    class Linear(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            ctx.dtype = x.dtype
            ctx.save_for_backward(x.bfloat16(), weight.bfloat16())
            with torch.autocast("cpu", enabled=False):
                return (x.bfloat16().float() @ weight.bfloat16().float().T).bfloat16()

        @staticmethod
        def backward(ctx, by):
            x, weight = (tensor.float() for tensor in ctx.saved_tensors)
            by = by.bfloat16().float()
            by_weight = by.flatten(0, -2).T @ x.flatten(0, -2)
            return (by @ weight).bfloat16().to(ctx.dtype), by_weight.bfloat16().float()

    plain = torch.nn.functional.linear
    torch.nn.functional.linear = lambda x, weight, bias=None: plain(x, weight, bias) if bias is not None else Linear.apply(x, weight)


def make(model_folder, pairs_file, folder, *options):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pairs = shortest(pairs_file)
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (folder / "pipeline.yaml").write_text(PIPELINE.format(folder=folder, model=model_folder, seed=SEED, beta=BETA, rate=RATE, batch=BATCH, clip=CLIP))
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")

    def logprob(prompt, answer):
        text = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
        whole = tokenizer.apply_chat_template(prompt + answer, tokenize=False)
        assert whole.startswith(text), (text, whole)
        start = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
        # The end of the turn belongs to the answer, the newline behind it does not.
        ids = ids[: start + ids[start:].index(end) + 1]
        tokens = torch.tensor([ids])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(tokens).logits[0, start - 1 : -1]
        return logits.float().log_softmax(-1).gather(1, tokens[0, start:, None]).sum()

    order = shuffled(pairs)
    if options == ("--f32-products",):
        first = lambda: logprob(order[0]["prompt"], order[0]["chosen"]).item()
        with torch.no_grad():
            real = first()
            multiply_in_f32()
            print(f"first response: logprob {real:.4f} under autocast, {first():.4f} with its products in f32", file=sys.stderr, flush=True)
    with torch.no_grad():
        reference = {pair["prompt_id"]: [logprob(pair["prompt"], pair[side]) for side in ("chosen", "rejected")] for pair in order}
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        total = 0.0
        for pair in order[step * BATCH : (step + 1) * BATCH]:
            chosen, rejected = (logprob(pair["prompt"], pair[side]) - before for side, before in zip(("chosen", "rejected"), reference[pair["prompt_id"]]))
            loss = -torch.nn.functional.logsigmoid(BETA * (chosen - rejected)) / BATCH
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        losses.append(total)
        print(f"step {step + 1}: {total:.6f}", file=sys.stderr, flush=True)
    (folder / "losses.json").write_text(json.dumps(losses))


def compare(folder):
    expected = json.loads((Path(folder) / "losses.json").read_text())
    found = [float(line) for line in sys.stdin.read().split()[1:]]
    assert len(found) == len(expected) == STEPS, (len(found), len(expected))
    differences = [abs(ours - theirs) / theirs for ours, theirs in zip(found, expected)]
    for step, (ours, theirs, difference) in enumerate(zip(found, expected, differences), 1):
        print(f"step {step:2}: {ours:.6f}, under autocast {theirs:.6f}, {100 * difference:.2f} %")
    worst = max(differences)
    print(f"losses from {min(expected):.4f} to {max(expected):.4f}; largest difference {100 * worst:.2f} %, mean {100 * sum(differences) / STEPS:.2f} %")
    sys.exit(0 if worst <= TOLERANCE else 1)


{"make": make, "compare": compare}[sys.argv[1]](*sys.argv[2:])
