"""Cases of reward functions: prompts, responses, and the rewards of the functions called here.

    python reward_functions.py DATA FOLDER

DATA has gsm8k_test.jsonl and ifeval_prompts.jsonl. Each case is a folder of FOLDER: `prompts.jsonl`,
`responses.jsonl`, `reward.json` (the keys of the reward in a pipeline file), `rewards.json` (500
numbers or nulls, in the order of the responses), and perhaps `rewards.py`. The functions are those
of TRL, math-verify and lm-evaluation-harness, unchanged.
"""

import json
import random
import re
import sys
from pathlib import Path

import langdetect
from lm_eval.tasks.ifeval.utils import process_results
from math_verify import parse, verify
from trl.rewards import accuracy_reward, get_cosine_scaled_reward, get_soft_overlong_punishment, think_format_reward

COUNT = 500

MATH_VERIFY = '''from math_verify import parse, verify


def equal(completions, reference_answer, **kwargs):
    """1 where the response's answer is the reference answer."""
    print("scoring", len(completions))
    return [float(verify(parse(gold), parse(text))) for text, gold in zip(completions, reference_answer)]
'''

# The detection of a language draws random numbers, and so does a checker that is given "#" as a letter.
IFEVAL = '''import random

import langdetect
from lm_eval.tasks.ifeval.utils import process_results

langdetect.DetectorFactory.seed = 0


def followed(prompts, completions, key, instruction_id_list, kwargs, **columns):
    """The share of the instructions that a response follows, strictly."""
    rewards = []
    for prompt, completion, number, ids, arguments in zip(prompts, completions, key, instruction_id_list, kwargs):
        doc = {"key": number, "prompt": prompt[0]["content"], "instruction_id_list": ids, "kwargs": arguments}
        random.seed(number)
        results = process_results(doc, [completion[0]["content"]])["inst_level_strict_acc"]
        rewards.append(sum(results) / len(results))
    return rewards
'''

ASYNC = '''import asyncio


async def length(completions, completion_ids, **kwargs):
    await asyncio.sleep(0.001)
    return [None if not ids else len(ids) / 7 for ids in completion_ids]
'''


def rows(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def write(path, items):
    path.write_text("".join(json.dumps(item) + "\n" for item in items))


def case(folder, name, reward, prompts, texts, token_ids, rewards, file=None):
    """Writes a case; prompts are dictionaries with prompt_id."""
    assert len(prompts) == len(texts) == len(token_ids) == len(rewards) == COUNT
    known = [value for value in rewards if value is not None]
    assert len(set(known)) > 1, f"{name}: all rewards are {set(known)}"
    folder = folder / name
    folder.mkdir(parents=True)
    write(folder / "prompts.jsonl", prompts)
    responses = [{"prompt_id": p["prompt_id"], "text": t, "token_ids": i} for p, t, i in zip(prompts, texts, token_ids)]
    write(folder / "responses.jsonl", responses)
    (folder / "reward.json").write_text(json.dumps(reward))
    (folder / "rewards.json").write_text(json.dumps([None if value is None else float(value) for value in rewards]))
    if file is not None:
        (folder / "rewards.py").write_text(file)


def runs(task):
    """Whether the checkers of a task have the data that they download."""
    try:
        process_results(task, ["Some words."])
        return True
    except LookupError:
        return False


def main(data, folder):
    rng = random.Random(3)
    problems = rows(f"{data}/gsm8k_test.jsonl")[:COUNT]
    answers = [re.search(r"#### (.*)", problem["answer"]).group(1).replace(",", "") for problem in problems]
    ids = [f"q-{index:03}" for index in range(COUNT)]
    token_ids = [[rng.randrange(3, 90) for _ in range(rng.randrange(0, 150))] for _ in range(COUNT)]

    def response(index):
        right, other = answers[index], answers[(index + 1) % COUNT]
        forms = [
            rf"So it is \boxed{{{right}}}.",
            rf"So it is \boxed{{{other}}}.",
            rf"<think>{other} is too many…</think>The answer is ${right}$.",
            rf"<think>\nhm\n</think>\n\boxed{{\frac{{{int(right) * 3}}}{{3}}}}",
            f"I do not know “{right}”\u2028\n",
            "",
            rf"\boxed{{{right}",
            f"The final answer is {right} eggs.",
        ]
        return forms[index % len(forms)]

    texts = [response(index) for index in range(COUNT)]
    messages = [[{"role": "user", "content": problem["question"]}] for problem in problems]
    completions = [[{"role": "assistant", "content": text}] for text in texts]

    # Every seventh solution cannot be parsed: None.
    solutions = ["no number at all" if index % 7 == 3 else f"${answer}$" for index, answer in enumerate(answers)]
    prompts = [dict(prompt_id=i, messages=m, solution=s) for i, m, s in zip(ids, messages, solutions)]
    rewards = accuracy_reward(completions=completions, solution=solutions)
    assert None in rewards
    case(folder, "accuracy", {"python": "trl.rewards:accuracy_reward"}, prompts, texts, token_ids, rewards)

    rewards = think_format_reward(completions=completions, prompts=messages)
    case(folder, "think_format", {"python": "trl.rewards:think_format_reward"}, prompts, texts, token_ids, rewards)

    arguments = {"max_completion_len": 100, "soft_punish_cache": 30}
    rewards = get_soft_overlong_punishment(**arguments)(completion_ids=token_ids)
    reward = {"python": "trl.rewards:get_soft_overlong_punishment", "arguments": arguments}
    case(folder, "soft_overlong", reward, prompts, texts, token_ids, rewards)

    rewards = get_cosine_scaled_reward(max_len=100)(completions=completions, solution=solutions, completion_ids=token_ids)
    reward = {"python": "trl.rewards:get_cosine_scaled_reward", "arguments": {"max_len": 100}, "workers": 2, "batch_size": 7}
    case(folder, "cosine_scaled", reward, prompts, texts, token_ids, rewards)

    plain = [dict(prompt_id=i, prompt=p["question"], reference_answer=a) for i, p, a in zip(ids, problems, answers)]
    rewards = [float(verify(parse(gold), parse(text))) for text, gold in zip(texts, answers)]
    case(folder, "math_verify", {"python": "rewards.py:equal"}, plain, texts, token_ids, rewards, MATH_VERIFY)

    rewards = [len(row) / 7 if row else None for row in token_ids]
    case(folder, "async", {"python": "rewards.py:length"}, plain, texts, token_ids, rewards, ASYNC)

    langdetect.DetectorFactory.seed = 0
    tasks = [task for task in rows(f"{data}/ifeval_prompts.jsonl") if runs(task)]
    # Without nltk's data there are fewer than 500; some then have a second response.
    tasks = (tasks + tasks)[:COUNT]
    written = []
    for index, task in enumerate(tasks):
        forms = [
            task["prompt"] + "\n\n* one\n* two\n* three\n\n*a* *b* *c* [x] [y]",
            "no commas here at all. " * (index % 60),
            '{"title": "<<A Song>>", "words": ["one", "two"]}',
            "THIS IS ALL CAPITAL LETTERS. IS THERE ANYTHING ELSE I CAN HELP WITH?",
            "Paragraph one.\n\n***\n\nParagraph two, with a comma.\n\nP.S. that was it",
        ]
        written.append(forms[index % len(forms)])
    rewards = []
    for task, text in zip(tasks, written):
        random.seed(task["key"])
        results = process_results(task, [text])["inst_level_strict_acc"]
        rewards.append(sum(results) / len(results))
    keep = ["instruction_id_list", "kwargs", "key"]
    asked = [
        dict(prompt_id=i, messages=[{"role": "user", "content": t["prompt"]}], **{name: t[name] for name in keep})
        for i, t in zip(ids, tasks)
    ]
    case(folder, "ifeval", {"python": "rewards.py:followed"}, asked, written, token_ids, rewards, IFEVAL)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
