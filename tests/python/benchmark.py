"""The answers and scores that lm-evaluation-harness gives on local tables, for tests/it/interop/benchmark.rs.

    python tests/python/benchmark.py items REAL DIR        tables of items, from OPTUNE_REAL_DIR's data
    python tests/python/benchmark.py golden DIR            tests/golden/benchmark: a tiny model, tiny tables, and the answers
    python tests/python/benchmark.py answers MODEL DIR OUT [TASK=LIMIT ...]

`answers` runs the tasks of `TASKS` on the tables in DIR, each on its first LIMIT items, and writes OUT: by task, one row an item with its
logprobs, its answer and its scores. Nothing is downloaded. Few-shot examples are the first ones of a table.
"""

import json
import random
import re
import sys
from pathlib import Path

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks.truthfulqa.utils import process_results_mc2
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ITEMS = 200


def accuracies(*names):
    return [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in names]


# The settings of GSM8K in lm-evaluation-harness.
IGNORED = [",", "\\$", "(?s).*#### ", "\\.$"]


def matched(name, pattern, select):
    steps = [{"function": "regex", "regex_pattern": pattern, "group_select": select}, {"function": "take_first"}]
    return {"name": name, "filter": steps}


# By name: the table, the settings, and whether it goes through the chat template.
TASKS = {
    "numbers": ("numbers", False, {
        "output_type": "multiple_choice", "doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_choice": "choices", "doc_to_target": "answer",
        "metric_list": accuracies("acc", "acc_norm", "acc_bytes"),
    }),
    "replies": ("replies", False, {
        "output_type": "multiple_choice", "doc_to_text": "User: {{question.strip()}}\nAssistant:", "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{choices.index(right)}}", "num_fewshot": 2, "description": "A conversation.\n\n",
        "fewshot_config": {"sampler": "first_n"}, "fewshot_split": "test", "metric_list": accuracies("acc", "acc_norm", "acc_bytes"),
    }),
    "replies_chat": ("replies", True, {
        "output_type": "multiple_choice", "doc_to_text": "question", "doc_to_choice": "choices", "doc_to_target": "{{choices.index(right)}}",
        "num_fewshot": 1, "description": "You are helpful.", "fewshot_config": {"sampler": "first_n"}, "fewshot_split": "test",
        "metric_list": accuracies("acc", "acc_norm", "acc_bytes"),
    }),
    "truths": ("truths", False, {
        "output_type": "multiple_choice", "doc_to_text": "{{question + '\n\nA: '}}", "doc_to_choice": "{{targets.choices}}", "doc_to_target": 0,
        "target_delimiter": "", "metric_list": accuracies("mc2"),
        "process_results": lambda doc, results: {"mc2": process_results_mc2({"mc2_targets": doc["targets"]}, results)["acc"]},
    }),
    "gsm8k": ("gsm8k", False, {
        "output_type": "generate_until", "doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_target": "{{answer}}", "num_fewshot": 2,
        "fewshot_config": {"sampler": "first_n"}, "fewshot_split": "test",
        "generation_kwargs": {"until": ["Question:", "</s>", "<|im_end|>"], "do_sample": False, "temperature": 0.0, "max_gen_toks": 128},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True, "regexes_to_ignore": IGNORED}],
        "filter_list": [matched("strict", "#### (\\-?[0-9\\.\\,]+)", 0), matched("flexible", "(-?[$0-9.,]{2,})|(-?[0-9]+)", -1)],
    }),
    "gsm8k_chat": ("gsm8k", True, {
        "output_type": "generate_until", "doc_to_text": "question", "doc_to_target": "{{answer.split('#### ')[-1]}}",
        "generation_kwargs": {"until": ["\n\n"], "do_sample": False, "temperature": 0.0, "max_gen_toks": 48},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_punctuation": True}],
        "filter_list": [matched("last", "(-?[0-9.,]*[0-9])", -1)],
    }),
}


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def numbers(problems):
    """Word problems with the right number and three others."""
    draw = random.Random(7)
    rows = []
    for problem in problems:
        right = problem["answer"].split("#### ")[-1].replace(",", "")
        if not re.fullmatch(r"\d+", right):
            continue
        right = int(right)
        others = {right + 1, max(right - 1, 0), right * 2, right + 10, right * 10, right // 2, right + 100} - {right}
        choices = [str(number) for number in [right, *draw.sample(sorted(others), 3)]]
        draw.shuffle(choices)
        rows.append({"question": problem["question"], "choices": choices, "answer": choices.index(str(right))})
    return rows[:ITEMS]


def replies(conversations):
    """The last question of real conversations, with the beginnings of its reply and of three others."""
    draw = random.Random(8)
    turns = [(row["conversations"][-1]["value"], row["chosen"]["value"].strip()) for row in conversations]
    turns = [(question, reply) for question, reply in turns if 0 < len(question) < 600 and len(reply) > 40]
    beginnings = [reply[: 30 + 7 * (index % 9)].rstrip() for index, (_, reply) in enumerate(turns)]
    rows = []
    for index, (question, _) in enumerate(turns):
        others = sorted(set(beginnings) - {beginnings[index]})
        choices = [beginnings[index], *draw.sample(others, 3)]
        draw.shuffle(choices)
        rows.append({"question": question, "choices": choices, "right": beginnings[index]})
    return rows[:ITEMS]


def truths(rows):
    """The same numbers in digits and with a unit are right, as in TruthfulQA's MC2: the right ones come first."""
    return [
        {
            "question": row["question"],
            "targets": {
                "choices": [row["choices"][row["answer"]], row["choices"][row["answer"]] + ".0"]
                + [choice for index, choice in enumerate(row["choices"]) if index != row["answer"]],
                "labels": [1, 1, 0, 0, 0],
            },
        }
        for row in rows
    ]


def make_items(real, folder):
    problems = [json.loads(line) for line in (real / "data/gsm8k_test.jsonl").read_text(encoding="utf-8").splitlines()]
    conversations = json.loads((real / "data/sharegpt_dpo_300.json").read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "numbers.jsonl", numbers(problems))
    write(folder / "replies.jsonl", replies(conversations))
    write(folder / "truths.jsonl", truths(numbers(problems)[:50]))
    write(folder / "gsm8k.jsonl", problems[:ITEMS])


def make_golden_items(folder):
    """Sums and sayings of our own, in letters that a tiny tokenizer has."""
    folder.mkdir(parents=True, exist_ok=True)
    sums = [{"question": f"What is {a} plus {b}?", "answer": f"It is {a + b}.\n#### {a + b}"} for a, b in zip(range(1, 25), range(3, 75, 3))]
    words = ["the cat", "a small dog", "an old café", "two birds", "the sun", "rain"]
    sayings = [
        {"question": f"Who likes {word}? {number}", "answer": {"role": f"{words[(index + number) % 6]} does", "content": ""}}
        for number, (index, word) in enumerate([(index, word) for word in words for index in range(4)])
    ]
    write(folder / "numbers.jsonl", numbers(sums))
    talk = [{"conversations": [{"value": row["question"]}], "chosen": {"value": f"I think that {row['answer']['role']}, and it is so every day."}} for row in sayings]
    write(folder / "replies.jsonl", replies(talk))
    write(folder / "truths.jsonl", truths(numbers(sums)[:12]))
    write(folder / "gsm8k.jsonl", sums)


TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def make_golden_model(folder, tables):
    """A random Llama with a context of 160 tokens: long questions lose their beginning."""
    texts = [line for table in sorted(tables.glob("*.jsonl")) for line in table.read_text(encoding="utf-8").splitlines()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=160, initializer_range=0.2, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    model.save_pretrained(folder)


def answers(model, folder, limits):
    # Batches of one: padding changes the last digits of logprobs. Sums over tokens in float64: of 200 nats float32 has no fifth digit.
    lm = HFLM(pretrained=str(model), device="cpu", dtype="float32", softmax_dtype="float64", batch_size=1)
    torch.manual_seed(0)
    found = {}
    for name, limit in limits.items():
        table, chat, settings = TASKS[name]
        if chat and lm.tokenizer.chat_template is None:
            continue
        path = str(folder / f"{table}.jsonl")
        config = {
            "task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": path}}, "test_split": "test", **settings,
        }
        result = lm_eval.simple_evaluate(
            model=lm, tasks=[config], limit=limit, bootstrap_iters=0, log_samples=True, apply_chat_template=chat, fewshot_as_multiturn=chat,
            random_seed=0, numpy_random_seed=0, torch_random_seed=0, fewshot_random_seed=0,
        )
        rows = {}
        for sample in result["samples"][name]:
            row = rows.setdefault(sample["doc_id"], {"item": sample["doc_id"], "scores": {}})
            if settings["output_type"] == "multiple_choice":
                row["logprobs"] = [float(response[0][0]) for response in sample["resps"]]
                names = [metric["metric"] for metric in settings["metric_list"]]
                row["scores"] = {metric: float(sample[metric]) for metric in names}
            else:
                row["text"] = sample["resps"][0][0]
                row["scores"][sample["filter"]] = float(sample["exact_match"])
        found[name] = [rows[item] for item in sorted(rows)]
        print(name, {key: value for key, value in result["results"][name].items()}, file=sys.stderr)
    return found


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "items":
        make_items(*map(Path, arguments))
    elif command == "golden":
        (folder,) = map(Path, arguments)
        make_golden_items(folder)
        make_golden_model(folder / "model", folder)
        found = answers(folder / "model", folder, {name: None for name in TASKS})
        (folder / "lm_eval.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    else:
        model, folder, out, *limits = arguments
        limits = {name: int(limit) for name, limit in (limit.split("=") for limit in limits)} or {name: None for name in TASKS}
        Path(out).write_text(json.dumps(answers(Path(model), Path(folder), limits)) + "\n", encoding="utf-8")
