"""Compares saved models with Hugging Face transformers: same logits, same token ids.

    OPTUNE_EXPORT_DIR=DIR cargo test --release -- models_are_exported
    python tests/python/export_parity.py DIR

Every folder in DIR holds a saved model and a parity.json, written by the test above: token ids, the logits of every position, and
(where there is a tokenizer that transformers can load) a text with its ids. Exits with 1 if anything differs, and with 0 and a word
about it where transformers is not installed.
"""

import json
import sys
from pathlib import Path

TOLERANCE = 1e-4


def compare(folder, torch, transformers):
    """Returns what differs in one folder, as a list of sentences."""
    parity = json.loads((folder / "parity.json").read_text())
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    differences = []
    if model.dtype != torch.float32:
        differences.append(f"loaded as {model.dtype}, expected torch.float32")
    with torch.no_grad():
        logits = model(torch.tensor([parity["token_ids"]])).logits[0]
    largest = (logits - torch.tensor(parity["logits"])).abs().max().item()
    if not largest < TOLERANCE:
        differences.append(f"largest difference of a logit is {largest}, expected less than {TOLERANCE}")
    if "text" in parity:
        ids = transformers.AutoTokenizer.from_pretrained(folder)(parity["text"])["input_ids"]
        if ids != parity["text_ids"]:
            differences.append(f"{parity['text']!r} is {ids}, expected {parity['text_ids']}")
    print(f"{folder.name}: {model.num_parameters()} parameters, largest difference of a logit {largest:.1e}")
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
