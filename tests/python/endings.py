"""Makes tests/golden/endings.json: how transformers reads the ends of texts and conversations.

    python tests/python/endings.py          # from the repository's root

Needs torch and transformers. `rewards` are those of tests/golden/reward_model in float64 with several `pad_token_id`, the padding and the end
token of rows among them, each row alone and all in one right-padded batch. `tokenizers` are folders of a tokenizer of single letters whose
settings name special tokens in all the places where published models have them, with the ids of texts, and of a prompt with its response and
the end that TRL appends (`response + tokenizer.eos_token`).
"""

import json
import tempfile
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForSequenceClassification

REWARD_MODEL = Path("tests/golden/reward_model")
ROWS = [[1, 5, 9, 11, 2], [1, 6, 10, 2, 2, 2], [1, 7, 9, 12, 14], [1, 2, 8, 0, 0], [2, 2, 2], [1], [0, 0, 5, 2]]
PADS = [None, 0, 1, 2, 8, -1]

LETTERS = "abcdefghijklmnopqrstuvwxyz<>|_/ [PAD]"
IM_END = {"content": "<|im_end|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
PLAIN = {**IM_END, "special": False}
TEXTS = ["hi<|im_end|>", "a <|im_end|> b</s>", "<s>x[PAD]", "<tool>y<tool>", "<s>", "ab cd"]
CASES = [
    {"name": "in the file", "added": [IM_END], "tokenizer_config.json": {"eos_token": "<|im_end|>"}},
    {"name": "nowhere", "added": [], "tokenizer_config.json": {}},
    {"name": "by name only", "added": [], "tokenizer_config.json": {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}},
    {"name": "by name, with its content", "added": [], "tokenizer_config.json": {"eos_token": {"__type": "AddedToken", **IM_END, "lstrip": True}}},
    {"name": "by id", "added": [], "tokenizer_config.json": {"added_tokens_decoder": {"40": IM_END}, "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}},
    {"name": "by id, not special", "added": [], "tokenizer_config.json": {"added_tokens_decoder": {"40": {**PLAIN, "rstrip": True}}}},
    {"name": "by id in another way than in the file", "added": [IM_END], "tokenizer_config.json": {"added_tokens_decoder": {"40": {**IM_END, "lstrip": True, "rstrip": True}}}},
    {"name": "plain in the file, special by name", "added": [PLAIN], "tokenizer_config.json": {"eos_token": "<|im_end|>"}},
    {"name": "in the older map", "added": [], "tokenizer_config.json": {"eos_token": "</s>"}, "special_tokens_map.json": {"eos_token": {**IM_END}, "pad_token": "[PAD]"}},
    {"name": "in the older map, which does not count", "added": [], "tokenizer_config.json": {"added_tokens_decoder": {}, "eos_token": "</s>"}, "special_tokens_map.json": {"eos_token": "<|im_end|>"}},
    {"name": "in the older list", "added": [], "tokenizer_config.json": {}, "added_tokens.json": {"<|im_end|>": 40, "<tool>": 41}},
    {"name": "without a name", "added": [], "tokenizer_config.json": {"additional_special_tokens": ["<|im_end|>", "<tool>"]}},
    {"name": "with a name of its own", "added": [], "tokenizer_config.json": {"extra_special_tokens": {"tool_token": "<tool>"}, "end_token": "<|im_end|>"}},
    {"name": "beyond the model", "added": [], "tokenizer_config.json": {"pad_token": "[PAD]"}},
    {"name": "bos before a text", "added": [], "tokenizer_config.json": {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}},
    {"name": "eos behind a text", "added": [], "tokenizer_config.json": {"bos_token": "<s>", "eos_token": "<|im_end|>", "add_bos_token": True, "add_eos_token": True}},
    {"name": "no bos although the file has one", "added": [], "processor": True, "tokenizer_config.json": {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": False}},
    {"name": "bos by the file", "added": [], "processor": True, "tokenizer_config.json": {"bos_token": "<s>", "eos_token": "</s>"}},
    {"name": "split", "added": [IM_END], "tokenizer_config.json": {"eos_token": "<|im_end|>", "split_special_tokens": True}},
]


def rewards():
    found = []
    for pad in PADS:
        model = LlamaForSequenceClassification.from_pretrained(REWARD_MODEL, dtype=torch.float64).eval()
        model.config.pad_token_id = pad
        with torch.no_grad():
            alone = [model(torch.tensor([row])).logits.item() for row in ROWS]
            together = None
            if pad is not None and pad >= 0:
                longest = max(map(len, ROWS))
                ids = torch.tensor([row + [pad] * (longest - len(row)) for row in ROWS])
                mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ROWS])
                together = model(ids, attention_mask=mask).logits[:, 0].tolist()
        found.append({"pad_token_id": pad, "alone": alone, "together": together})
    return {"rows": ROWS, "cases": found}


def tokenizer_json(case):
    vocabulary = {token: index for index, token in enumerate(["<unk>", "<s>", "</s>"])}
    for letter in LETTERS:
        vocabulary.setdefault(letter, len(vocabulary))
    special = [{"id": index, **IM_END, "content": token} for token, index in list(vocabulary.items())[:3]]
    added = [{"id": len(vocabulary) + index, **token} for index, token in enumerate(case["added"])]
    single = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    processor = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special + added, "normalizer": None, "pre_tokenizer": None,
        "post_processor": processor if case.get("processor") else None, "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "vocab": vocabulary, "merges": []},
    }


def tokenizers():
    found = []
    for case in CASES:
        files = {name: value for name, value in case.items() if name.endswith(".json")}
        files["tokenizer_config.json"] = {"tokenizer_class": "PreTrainedTokenizerFast", **files["tokenizer_config.json"]}
        with tempfile.TemporaryDirectory() as folder:
            for name, value in {**files, "tokenizer.json": tokenizer_json(case)}.items():
                (Path(folder) / name).write_text(json.dumps(value))
            tokenizer = AutoTokenizer.from_pretrained(folder)
            texts = [{"text": text, "ids": tokenizer(text)["input_ids"]} for text in TEXTS]
            for text in texts:
                text["decoded"] = tokenizer.decode(text["ids"], skip_special_tokens=True)
            pair = None
            if tokenizer.eos_token is not None:
                pair = tokenizer("ab" + "cd" + tokenizer.eos_token)["input_ids"]
        found.append({"name": case["name"], "added": case["added"], "processor": case.get("processor", False), "files": files, "texts": texts, "pair": pair})
    return {"tokenizer": tokenizer_json({"added": []}), "processor": tokenizer_json({"added": [], "processor": True})["post_processor"], "cases": found}


def main():
    golden = {"rewards": rewards(), "tokenizers": tokenizers()}
    Path("tests/golden/endings.json").write_text(json.dumps(golden, indent=None, separators=(",", ":")).replace('{"name"', '\n{"name"') + "\n")


main()
