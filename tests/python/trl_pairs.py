"""Trains on exported pairs with TRL's DPOTrainer: it must read texts and messages, as JSON lines and as Parquet.

    OPTUNE_EXPORT_DIR=DIR cargo test --release -- given_pairs_feed_train_and_are_exported
    python tests/python/trl_pairs.py DIR MODEL

MODEL is a Hugging Face directory of a small model; a chat template is given where pairs are messages. Exits with 1 if something differs.
"""

import sys
import tempfile
from pathlib import Path

from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer
from trl.data_utils import is_conversational

TEMPLATE = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"


def train(folder, file, loader, model):
    rows = load_dataset(loader, data_files=str(folder / file), split="train")
    expected = folder.name == "pairs_messages"
    assert is_conversational(rows[0]) == expected, (folder, rows[0])
    assert set(rows.column_names) == {"prompt", "chosen", "rejected", "weight", "margin"}, rows.column_names
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.unk_token
    tokenizer.chat_template = TEMPLATE
    with tempfile.TemporaryDirectory() as output:
        config = DPOConfig(output_dir=output, max_steps=1, per_device_train_batch_size=4, report_to="none", use_cpu=True, bf16=False)
        trainer = DPOTrainer(AutoModelForCausalLM.from_pretrained(model), args=config, train_dataset=rows, processing_class=tokenizer)
        loss = trainer.train().training_loss
    assert abs(loss - 0.693147) < 1e-3, loss
    print(f"{folder.name}/{file}: {len(rows)} pairs, first loss {loss:.6f}")


def main():
    for name in ["pairs_text", "pairs_messages"]:
        for file, loader in [("pairs.jsonl", "json"), ("pairs.parquet", "parquet")]:
            train(Path(sys.argv[1]) / name, file, loader, sys.argv[2])


main()
