"""Compares saved models with Hugging Face transformers: same logits or reward, same token ids.

    OPTUNE_EXPORT_DIR=DIR cargo test --release -- exported
    python tests/python/export_parity.py DIR

Every folder in DIR holds a saved model and a parity.json, written by the tests above: token ids, the logits of every position or the
reward, and (where there is a tokenizer that transformers can load) a text with its ids; or conversations with their rewards. Exits with 1 if anything differs, and with 0 and a word
about it where transformers is not installed.
"""

import json
import sys
from pathlib import Path

TOLERANCE = 1e-4


def compare(folder, torch, transformers):
    """Returns what differs in one folder, as a list of sentences."""
    parity = json.loads((folder / "parity.json").read_text())
    is_reward = "reward" in parity or "conversations" in parity
    model_class = transformers.AutoModelForSequenceClassification if is_reward else transformers.AutoModelForCausalLM
    model, info = model_class.from_pretrained(folder, output_loading_info=True)
    differences = [f"{kind}: {sorted(keys)}" for kind, keys in info.items() if keys]
    if model.dtype != torch.float32:
        differences.append(f"loaded as {model.dtype}, expected torch.float32")
    if "conversations" in parity:
        # As a padded batch, in the tokens of the model's own chat template.
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        messages = [conversation["messages"] for conversation in parity["conversations"]]
        batch = tokenizer.apply_chat_template(messages, padding=True, return_tensors="pt", return_dict=True)
        expected = torch.tensor([[conversation["reward"]] for conversation in parity["conversations"]])
    else:
        batch = {"input_ids": torch.tensor([parity["token_ids"]])}
        expected = torch.tensor([[parity["reward"]]] if is_reward else [parity["logits"]])
    with torch.no_grad():
        results = model.eval()(**batch).logits
    largest = (results - expected).abs().max().item()
    what = "reward" if is_reward else "logit"
    if not largest < TOLERANCE:
        differences.append(f"largest difference of a {what} is {largest}, expected less than {TOLERANCE}")
    if "text" in parity:
        ids = transformers.AutoTokenizer.from_pretrained(folder)(parity["text"])["input_ids"]
        if ids != parity["text_ids"]:
            differences.append(f"{parity['text']!r} is {ids}, expected {parity['text_ids']}")
    print(f"{folder.name}: {type(model).__name__}, {model.num_parameters()} parameters, largest difference of a {what} {largest:.1e}")
    return differences


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        import torch
        import transformers
    except ImportError as error:
        print(f"skipped: {error}")
        return
    folders = sorted(path.parent for path in Path(sys.argv[1]).glob("*/parity.json"))
    if not folders:
        sys.exit(f"{sys.argv[1]}: expected folders with a parity.json, found none")
    failures = [f"{folder.name}: {text}" for folder in folders for text in compare(folder, torch, transformers)]
    print("\n".join(failures) or "all as expected")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
