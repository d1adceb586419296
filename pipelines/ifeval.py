"""Rewards of pipelines/ifeval.yaml: the share of its prompt's instructions that a response follows.

The checks are lm-evaluation-harness's, unchanged: pip install lm_eval langdetect immutabledict nltk
"""

import random

import langdetect
from lm_eval.tasks.ifeval.utils import process_results

# The detection of a language draws random numbers, and so do some of the checks.
langdetect.DetectorFactory.seed = 0


def followed(prompts, completions, key, instruction_id_list, kwargs, log_extra, **columns):
    """Between 0 and 1. The component `all` is 1 where a response follows all instructions."""
    rewards, whole = [], []
    for prompt, completion, number, instructions, settings in zip(prompts, completions, key, instruction_id_list, kwargs):
        item = {"key": number, "prompt": prompt[0]["content"], "instruction_id_list": instructions, "kwargs": settings}
        random.seed(number)
        results = process_results(item, [completion[0]["content"]])
        followed = results["inst_level_strict_acc"]
        rewards.append(sum(followed) / len(followed))
        whole.append(float(results["prompt_level_strict_acc"]))
    log_extra("all", whole)
    return rewards
