"""Writes tests/golden/sft_tokens.json: the token ids and labels of TRL's SFTTrainer for rows of text, of prompt and completion, and of whole
conversations whose every assistant message is trained on.

    python tests/python/sft_tokens.py            # from the repository's root, after published_datasets.py; needs datasets and trl

The model is tests/golden/datasets/model. `assistant_only_loss` needs a template with generation blocks: those below.
"""

import json
from pathlib import Path

from datasets import Dataset
from published_datasets import CHAT, MARV, FOLDER, assistant, user
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

END = "<|im_end|>"
TEXTS = [
    "Once upon a time.",
    " a space in front, and behind ",
    "it ends itself" + END,
    "it ends itself, and the line" + END + "\n",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\nBye<|im_end|>",
    "two ends" + END + END,
    "another one<|endoftext|>",
    "世界 🙂",
    "x",
]
COMPLETIONS = [("Question: 1+1?\nAnswer:", " 2"), ("a", "b"), ("The end", " is here" + END), ("Name:", " Ann<|endoftext|>"), ("n\n", "m\n")]
CONVERSATIONS = CHAT + [MARV, [user("a"), assistant("b"), user("c"), assistant("")], [user("q"), assistant("two\nlines\n"), user("r"), assistant(" s ")]]
CHATML = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{{ '\n' }}{% else %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATES = {
    "chatml": CHATML,
    "trimmed": CHATML.replace("m['content']", "m['content']|trim"),
    "line in the block": CHATML.replace("+ '<|im_end|>' }}{% endgeneration %}{{ '\n' }}", "+ '<|im_end|>\n' }}{% endgeneration %}"),
    # Two added tokens end a turn, as in Cohere's templates; one of them is the tokenizer's eos_token.
    "two ends": CHATML.replace("m['content'] + '<|im_end|>' }}{% endgeneration %}", "m['content'] + '<|endoftext|><|im_end|>' }}{% endgeneration %}"),
    # Another token ends the turn than the conversation, as in Phi's templates.
    "closed": CHATML.replace("m['content'] + '<|im_end|>' }}{% endgeneration %}", "m['content'] + '<|endoftext|>' }}{% endgeneration %}")
    + "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}",
    # Nothing ends a turn, as in GLM's templates.
    "no end": CHATML.replace("m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}", "m['content'] }}{% endgeneration %}"),
}


def ids_and_labels(rows, template=None, **settings):
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "model")
    tokenizer.chat_template = template or tokenizer.chat_template
    policy = AutoModelForCausalLM.from_pretrained(FOLDER / "model")
    config = SFTConfig(output_dir="/tmp/trl", report_to="none", use_cpu=True, bf16=False, max_length=None, **settings)
    trainer = SFTTrainer(policy, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    made = []
    for row in trainer.train_dataset:
        batch = trainer.data_collator([row])
        made.append({"ids": batch["input_ids"][0].tolist(), "labels": batch["labels"][0].tolist()})
    return made


def main():
    texts = ids_and_labels([{"text": text} for text in TEXTS])
    completions = ids_and_labels([{"prompt": prompt, "completion": completion} for prompt, completion in COMPLETIONS])
    golden = {
        "texts": [{"text": text} | made for text, made in zip(TEXTS, texts)],
        "completions": [{"prompt": prompt, "completion": completion} | made for (prompt, completion), made in zip(COMPLETIONS, completions)],
        "conversations": [],
    }
    for name, template in TEMPLATES.items():
        made = ids_and_labels([{"messages": messages} for messages in CONVERSATIONS], template, assistant_only_loss=True)
        rows = [{"messages": messages} | row for messages, row in zip(CONVERSATIONS, made)]
        golden["conversations"].append({"name": name, "template": template, "rows": rows})
    (FOLDER.parent / "sft_tokens.json").write_text(json.dumps(golden) + "\n", encoding="utf-8")
    print(len(texts), "texts,", len(completions), "completions,", sum(len(case["rows"]) for case in golden["conversations"]), "conversations")


if __name__ == "__main__":
    main()
