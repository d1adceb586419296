"""Makes tests/golden/reward_model: a tiny random reward model, and what TRL's RewardTrainer and PyTorch's AdamW make of it.

    python tests/python/reward_model.py

Needs torch, transformers, trl and datasets. The model is drawn from a seed and saved in float32; all numbers are computed in float64 from
those weights: the rewards of eight token sequences, and for each of three forms of the loss the loss of four steps and the rewards after
them. `conversation` holds the token ids that transformers' chat template gives, and their reward.
"""

import json
import os
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast
from trl import RewardConfig, RewardTrainer
from weight_decay import groups

FOLDER = Path(__file__).parent.parent / "golden" / "reward_model"
WORDS = "the a red green cat dog sat ran on under mat tree and quickly slowly".split()
SPECIAL = ["<unk>", "<s>", "</s>", "<user>", "<assistant>"]
TEMPLATE = "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} </s> {% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}"
CHOSEN = [[1, 5, 9, 11, 13, 5, 15, 2], [1, 6, 10, 2], [1, 7, 9, 12, 14, 6, 16, 17, 19, 2], [1, 8]]
REJECTED = [[1, 5, 9, 2], [1, 6, 10, 12, 18, 2], [1, 7, 9, 11, 2, 2], [1, 8, 10, 12, 19]]
MARGINS = [0.5, 0.0, 2.0, 0.25]
FORMS = [
    {"name": "plain", "margins": None, "center_rewards_coefficient": None},
    {"name": "margin", "margins": MARGINS, "center_rewards_coefficient": None},
    {"name": "centred", "margins": None, "center_rewards_coefficient": 0.05},
]
CONVERSATION = [{"role": "user", "content": "the red cat"}, {"role": "assistant", "content": "sat on a mat"}]


def tokenizer():
    vocabulary = {word: index for index, word in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>",
        additional_special_tokens=["<user>", "<assistant>"],
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def load():
    return LlamaForSequenceClassification.from_pretrained(FOLDER, dtype=torch.float64).train()


def rewards(model):
    with torch.no_grad():
        return [model(torch.tensor([ids])).logits.item() for ids in CHOSEN + REJECTED]


def steps(form, tokenizer):
    rows = {"chosen_ids": CHOSEN, "rejected_ids": REJECTED}
    if form["margins"]:
        rows["margin"] = form["margins"]
    arguments = RewardConfig(
        output_dir="/tmp/reward_model", report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False,
        center_rewards_coefficient=form["center_rewards_coefficient"],
    )
    model = load()
    trainer = RewardTrainer(model=model, args=arguments, train_dataset=Dataset.from_dict(rows), processing_class=tokenizer)
    trainer.current_gradient_accumulation_steps = 1
    optimizer = torch.optim.AdamW(groups(model, 0.01), lr=1e-2)
    losses = []
    for _ in range(4):
        batch = trainer.data_collator([trainer.train_dataset[row] for row in range(4)])
        if "margin" in batch:
            batch["margin"] = batch["margin"].double()
        loss = trainer.compute_loss(model, dict(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {**form, "losses": losses, "rewards_after": rewards(model)}


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=len(SPECIAL + WORDS), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.4, num_labels=1,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )
    LlamaForSequenceClassification(config).save_pretrained(FOLDER)
    names = tokenizer()
    names.save_pretrained(FOLDER)
    model = load()
    conversation = names.apply_chat_template(CONVERSATION, tokenize=True, return_dict=True)["input_ids"]
    with torch.no_grad():
        conversation_reward = model(torch.tensor([conversation])).logits.item()
    golden = {
        "chosen": CHOSEN, "rejected": REJECTED, "rewards": rewards(model), "forms": [steps(form, names) for form in FORMS],
        "conversation": {"messages": CONVERSATION, "token_ids": conversation, "reward": conversation_reward},
    }
    (FOLDER / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
