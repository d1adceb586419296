"""Writes tests/golden/datasets: rows in the layouts of published datasets, and what TRL makes of them, texts and token ids.

    python tests/python/published_datasets.py            # from the repository's root; needs datasets and trl

The rows are ours, their columns and types those of the datasets: HuggingFaceH4/ultrachat_200k and no_robots, trl-lib/Capybara,
HuggingFaceH4/ultrafeedback_binarized, Anthropic/hh-rlhf, Intel/orca_dpo_pairs. TRL's own preparation of its trainers makes the ids.
"""

import hashlib
import json
from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer, apply_chat_template, extract_prompt, maybe_apply_chat_template, maybe_extract_prompt

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "golden" / "datasets"

user = lambda text: {"content": text, "role": "user"}
assistant = lambda text: {"content": text, "role": "assistant"}
system = lambda text: {"content": text, "role": "system"}
hashed = lambda text: hashlib.sha256(text.encode()).hexdigest()

CHAT = [
    [user("How do plants drink?"), assistant("Through their roots.\n\nWater rises in the stem."), user("And at night?"), assistant("Slower.")],
    [user("Name a prime.\n"), assistant("Seven, 7.")],
    [user("Grüße! 世界?"), assistant(" Hallo 🙂 "), user("Bye"), assistant("Bye"), user("Again"), assistant("1. one\n2. two")],
]
ULTRACHAT = [{"prompt": turns[0]["content"], "prompt_id": hashed(turns[0]["content"]), "messages": turns} for turns in CHAT]
MARV = [system("Marv is a chatbot that reluctantly answers."), user("Pounds in a kilogram?"), assistant("This again? 2.2."), user("Thanks"), assistant("Sure.")]
NO_ROBOTS = [
    {"prompt": turns[0]["content"], "prompt_id": hashed(turns[0]["content"]), "messages": turns, "category": category}
    for turns, category in ((CHAT[0], "Open QA"), (MARV, "Chat"), (CHAT[1], "Generation"))
]
CAPYBARA = [{"source": "GOAT", "messages": turns, "num_turns": len(turns) // 2} for turns in CHAT]
ULTRAFEEDBACK = [
    {
        "prompt": question, "prompt_id": hashed(question), "chosen": [user(question), assistant(good)], "rejected": [user(question), assistant(bad)],
        "messages": [user(question), assistant(good)], "score_chosen": chosen, "score_rejected": rejected,
    }
    for question, good, bad, chosen, rejected in (
        ("Why is the sky blue?", "Short waves are scattered most.", "It is not.", 9.0, 3.5),
        ("Write\ntwo lines", "one\ntwo", "one two", 8.5, 8.0),
        ("Sort: b a", "a b", "b a", 7.0, 1.0),
    )
]
HH = [
    {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello, how can I help?", "rejected": "\n\nHuman: Hi\n\nAssistant: What?"},
    {
        "chosen": "\n\nHuman: Tell me a joke\n\nAssistant: Which kind?\n\nHuman: Any\n\nAssistant: Knock knock.",
        "rejected": "\n\nHuman: Tell me a joke\n\nAssistant: Which kind?\n\nHuman: Any\n\nAssistant: No.",
    },
    {"chosen": "\n\nHuman: Is 7 prime?\n\nAssistant: Yes", "rejected": "\n\nHuman: Is 7 prime?\n\nAssistant: Yes and no"},
]
ORCA = [
    {"system": "", "question": "Generate a sentence: Midsummer, food", "chosen": "Midsummer has good food.", "rejected": "Midsummer is a pub."},
    {"system": "You are an assistant.", "question": "What happens next?", "chosen": "The story ends.", "rejected": "The story? I do not know."},
]
DEMONSTRATIONS = {"ultrachat": ULTRACHAT, "no_robots": NO_ROBOTS, "capybara": CAPYBARA}
PREFERENCES = {"ultrafeedback": ULTRAFEEDBACK, "hh": HH, "orca": ORCA}


def model():
    """A model for conversations, as a Hugging Face directory."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("a", "n"), ("an", "d"), ("Ġ", "a"), ("Ċ", "Ċ"), ("Ġ", "t"), ("u", "s"), ("us", "e"), ("use", "r")]
    words = special + alphabet + [left + right for left, right in merges]
    tokenizer = Tokenizer(models.BPE(vocab={word: index for index, word in enumerate(words)}, merges=merges))
    split = pre_tokenizers.Split(Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    source = (ROOT / "chat_templates" / "smollm2_like.jinja").read_text(encoding="utf-8")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token="<|im_start|>", unk_token="<|endoftext|>", chat_template=source
    )
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=1024, bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=True,
    )
    torch.manual_seed(3)
    folder = FOLDER / "model"
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    return fast, LlamaForCausalLM.from_pretrained(folder)


def prepared(trainer, rows):
    """The rows as the trainer has them, without what it does not train on."""
    ours = ("input_ids", "prompt_ids", "chosen_ids", "rejected_ids", "completion_mask", "assistant_masks")
    return [{name: value for name, value in row.items() if name in ours} for row in trainer.train_dataset.select(range(len(rows)))]


def demonstrations(tokenizer, policy, rows):
    """Texts of whole conversations, and their ids in SFTTrainer."""
    texts = [apply_chat_template({"messages": row["messages"]}, tokenizer)["text"] for row in rows]
    config = SFTConfig(output_dir="/tmp/trl", report_to="none", use_cpu=True, bf16=False, max_length=None)
    messages = Dataset.from_list([{"messages": row["messages"]} for row in rows])
    trainer = SFTTrainer(policy, args=config, train_dataset=messages, processing_class=tokenizer)
    return [{"text": text} | row for text, row in zip(texts, prepared(trainer, rows))]


def as_trl(name, row):
    """A preference as a user hands it to TRL."""
    if name == "orca":
        before = [system(row["system"])] if row["system"] else []
        return {"prompt": before + [user(row["question"])], "chosen": [assistant(row["chosen"])], "rejected": [assistant(row["rejected"])]}
    return {key: row[key] for key in ("prompt", "chosen", "rejected") if key in row}


def preferences(tokenizer, policy, name, rows):
    """Prompts and answers, their texts, and their ids in DPOTrainer."""
    extracted = [maybe_extract_prompt(as_trl(name, row)) for row in rows]
    # TRL takes the columns alone.
    extracted = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in extracted]
    texts = [maybe_apply_chat_template(dict(row), tokenizer) for row in extracted]
    config = DPOConfig(output_dir="/tmp/trl", report_to="none", use_cpu=True, bf16=False, max_length=None)
    trainer = DPOTrainer(policy, args=config, train_dataset=Dataset.from_list(extracted), processing_class=tokenizer)
    return [{"of": row, "texts": text} | ids for row, text, ids in zip(extracted, texts, prepared(trainer, rows))]


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    tokenizer, policy = model()
    expected = {}
    for name, rows in (DEMONSTRATIONS | PREFERENCES).items():
        (FOLDER / f"{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        Dataset.from_list(rows).to_parquet(FOLDER / f"{name}.parquet")
        expected[name] = demonstrations(tokenizer, policy, rows) if name in DEMONSTRATIONS else preferences(tokenizer, policy, name, rows)
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
    print(", ".join(f"{name}: {len(rows)} rows" for name, rows in expected.items()))


if __name__ == "__main__":
    main()
