"""Reads exported pairs with tools by Hugging Face datasets, and gives them to TRL's DPOTrainer.

    python tests/python/tool_pairs.py FOLDER

FOLDER has `pairs.jsonl`, `pairs.parquet` and `given.json`, the list of the pairs that were exported. The pairs must be the same without nulls,
and the trainer's prompts must be the chat template's text of the given messages with the given tools. Exits with 1 if something differs.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""

from datasets import load_dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer
from trl.data_utils import is_conversational
from trl.trainer.utils import remove_none_values

TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}\n{% endif %}{% if enable_thinking is false %}no thinking{% endif %}\n{% for m in messages %}[{{ m.role }}] {{ m.content }}"
    "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}{{ m.reasoning_content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
MESSAGES = ["prompt", "chosen", "rejected"]


def byte_tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={character: index for index, character in enumerate(["</s>", *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def check(folder, file, loader, given):
    rows = load_dataset(loader, data_files=str(folder / file), split="train", cache_dir=str(folder / f"cache-{loader}"))
    assert set(rows.column_names) == {*MESSAGES, "tools", "chat_template_kwargs", "weight", "margin"}, rows.column_names
    assert len(rows) == len(given) and is_conversational(rows[0]), rows[0]
    for row, expected in zip(rows, given):
        for name in [*MESSAGES, "tools", "chat_template_kwargs"]:
            found = remove_none_values([row[name]])[0] if row[name] is not None else None
            wanted = expected.get(name, {} if name == "chat_template_kwargs" else None)
            assert found == wanted, (file, name, found, wanted)
    tokenizer = byte_tokenizer()
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    with tempfile.TemporaryDirectory() as output:
        arguments = DPOConfig(output_dir=output, max_steps=1, report_to="none", use_cpu=True, bf16=False, max_length=None)
        model = LlamaForCausalLM(config)
        trainer = DPOTrainer(model, ref_model=LlamaForCausalLM(config), args=arguments, train_dataset=rows, processing_class=tokenizer)
        for row, expected in zip(trainer.train_dataset, given):
            variables = expected.get("chat_template_kwargs") or {}
            text = tokenizer.apply_chat_template(
                expected["prompt"], tools=expected.get("tools"), tokenize=False, add_generation_prompt=True, **variables
            )
            assert tokenizer.decode(row["prompt_ids"]) == text, (file, tokenizer.decode(row["prompt_ids"]), text)
        trainer.train()


def main():
    folder = Path(sys.argv[1])
    given = json.loads((folder / "given.json").read_text(encoding="utf-8"))
    for file, loader in [("pairs.jsonl", "json"), ("pairs.parquet", "parquet")]:
        check(folder, file, loader, given)


main()
