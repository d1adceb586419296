"""Loads what the chain of tests/it/interop/chain.rs exported in Hugging Face transformers and compares rewards.

    OPTUNE_PYTHON=python cargo test --release -- preferences_become

DIR holds the exported models `policy`, `judge` and `manners`, and the run in `runs/chain`. The policy must continue a story, and both reward
models must give, alone and in a padded batch, the rewards that the run has as components. Exits with 1 if anything differs.
"""

import sys
from pathlib import Path

import pyarrow.dataset
import torch
import transformers

TOLERANCE = 1e-4
COUNT = 64


def table(run, name):
    return pyarrow.dataset.dataset(run / "tables" / name, format="parquet", exclude_invalid_files=True).to_table().to_pylist()


def ids_of(tokenizer, prompt, response):
    if tokenizer.chat_template is None:
        return tokenizer(prompt + response)["input_ids"]
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]


def rewards_differ(folder, rows):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = [ids_of(tokenizer, prompt, response) for prompt, response, _ in rows]
    longest, padding = max(map(len, ids)), model.config.pad_token_id
    padded = torch.tensor([row + [padding] * (longest - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
    with torch.no_grad():
        alone = torch.tensor([model(torch.tensor([row])).logits.item() for row in ids])
        together = model(padded, attention_mask=mask).logits[:, 0]
    expected = torch.tensor([reward for _, _, reward in rows])
    worst = max((alone - expected).abs().max().item(), (together - expected).abs().max().item())
    print(f"{folder.name}: {type(model).__name__}, largest difference of {len(rows)} rewards {worst:.1e}, spread {expected.std().item():.2f}")
    return [] if worst < TOLERANCE else [f"{folder.name}: largest difference of a reward is {worst}"]


def main():
    folder = Path(sys.argv[1])
    run = folder / "runs" / "chain"
    prompts = {row["prompt_id"]: row["prompt"] for row in table(run, "prompts")}
    texts = {(row["prompt_id"], row["sampled_iteration"], row["response_index"]): row["text"] for row in table(run, "responses")}
    rows = [(row["prompt_id"], texts[row["prompt_id"], row["sampled_iteration"], row["response_index"]], dict(row["components"])) for row in table(run, "rewards")]
    rows = rows[:: max(1, len(rows) // COUNT)]
    differences = []
    for name in ["judge", "manners"]:
        differences += rewards_differ(folder / name, [(prompts[prompt], text, components[name]) for prompt, text, components in rows])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "policy")
    policy = transformers.AutoModelForCausalLM.from_pretrained(folder / "policy").eval()
    asked = tokenizer(next(iter(prompts.values())), return_tensors="pt")["input_ids"]
    story = tokenizer.decode(policy.generate(asked, max_new_tokens=40, do_sample=False)[0], skip_special_tokens=True)
    print(f"policy: {story!r}")
    if len(story.split()) < 10:
        differences.append(f"policy: expected a story, found {story!r}")
    for difference in differences:
        print(difference, file=sys.stderr)
    sys.exit(1 if differences else 0)


if __name__ == "__main__":
    main()
