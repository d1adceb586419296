"""Makes tests/golden/sampling.json: what transformers samples from, and where vLLM ends and cuts a response.

    python tests/python/sampling.py FOLDER          # from the repository's root; FOLDER is vLLM 0.33.0's source archive, unpacked

Needs torch, transformers and tokenizers. `distributions`: for the tiny model of tests/families/llama2 and several settings, the logprobs of all
tokens that may be the first of a response, and of all that may be the second behind each of these, after the processors that transformers'
own `generate` makes of the settings, in its order. transformers has no presence penalty: vLLM's subtraction stands behind the repetition
penalty, as there. `greedy`: ids of `generate` without sampling. `stop_strings`: for ids of words and bytes, the number of tokens and the text
that vLLM's incremental detokenizer, run as it is, leaves of a response.
"""

import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import tokenizers.decoders
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import GenerationConfig, LlamaForCausalLM, RepetitionPenaltyLogitsProcessor

MODEL = Path("tests/families/llama2")
PROMPTS = [[1, 5, 9, 9, 20, 33], [1, 40, 41, 42, 7, 7, 7, 8]]
SETTINGS = [
    {"min_p": 0.3},
    {"temperature": 0.7, "min_p": 0.15, "top_k": 20, "top_p": 0.9},
    {"temperature": 1.5, "min_p": 0.6},
    {"repetition_penalty": 1.7, "top_k": 12},
    {"repetition_penalty": 0.6, "top_k": 8, "temperature": 0.8},
    {"presence_penalty": 1.5, "top_k": 10},
    {"presence_penalty": -1.0, "top_k": 6},
    {"repetition_penalty": 1.3, "presence_penalty": 0.7, "min_p": 0.2, "temperature": 0.9, "top_p": 0.95, "top_k": 16},
    {"min_new_tokens": 1, "top_k": 12},
    {"min_new_tokens": 2, "top_k": 12, "eos": [2, 11, 30]},
]
GREEDY = [{"repetition_penalty": 1.4}, {"min_new_tokens": 12, "eos": [2, 5, 10, 20, 30, 40, 50, 60]}, {"repetition_penalty": 0.7, "min_new_tokens": 3}]


def processors(model, settings, prompt_length):
    config = GenerationConfig(
        do_sample=True, temperature=settings.get("temperature", 1.0), top_k=settings.get("top_k", 0), top_p=settings.get("top_p", 1.0),
        min_p=settings.get("min_p"), repetition_penalty=settings.get("repetition_penalty", 1.0), min_new_tokens=settings.get("min_new_tokens"),
        eos_token_id=settings.get("eos", [2]), pad_token_id=0,
    )
    model._prepare_special_tokens(config, device="cpu")
    return model._get_logits_processor(generation_config=config, input_ids_seq_length=prompt_length, device="cpu")


def logprobs(model, settings, prompt, response):
    ids = torch.tensor([prompt + response])
    with torch.no_grad():
        scores = model(ids).logits[:, -1].double()
    chain = list(processors(model, settings, len(prompt)))
    if chain and isinstance(chain[0], RepetitionPenaltyLogitsProcessor):
        scores = chain.pop(0)(ids, scores)
    for token in set(response):
        scores[0, token] -= settings.get("presence_penalty", 0.0)
    for processor in chain:
        scores = processor(ids, scores)
    found = scores.log_softmax(-1)[0]
    return {token: round(value, 9) for token, value in enumerate(found.tolist()) if value != float("-inf")}


def distributions(model):
    cases = []
    for settings in SETTINGS:
        for prompt in PROMPTS:
            first = logprobs(model, settings, prompt, [])
            second = {token: logprobs(model, settings, prompt, [token]) for token in first if token not in settings.get("eos", [2])}
            cases.append({"settings": settings, "prompt": prompt, "first": first, "second": second})
    return cases


def greedy(model):
    cases = []
    for settings in GREEDY:
        for prompt in PROMPTS:
            arguments = {name: value for name, value in settings.items() if name != "eos"}
            ids = model.generate(
                torch.tensor([prompt]), do_sample=False, max_new_tokens=20, eos_token_id=settings.get("eos", [2]), pad_token_id=0, **arguments
            )
            cases.append({"settings": settings, "prompt": prompt, "response": ids[0, len(prompt):].tolist()})
    return cases


def detokenizer(folder):
    """vLLM's classes, without the imports of its other modules."""
    source = (Path(folder) / "vllm/v1/engine/detokenizer.py").read_text()
    kept = [line for line in source.splitlines() if not line.startswith(("from vllm", "from transformers"))]
    start = next(at for at, line in enumerate(source.splitlines()) if line.startswith("from vllm.tokenizers.detokenizer_utils import ("))
    dropped = source.splitlines()[start + 1 : start + 4]
    text = "from __future__ import annotations\n" + "\n".join(line for line in kept if line not in dropped)
    names = {"init_logger": lambda _: SimpleNamespace(warning=print, exception=print), "TokenizersBackend": object}
    exec(compile(text, "detokenizer.py", "exec"), names)
    return names["FastIncrementalDetokenizer"]


def byte_tokenizer():
    """Tokens of one byte, of some words, and an end token."""
    vocabulary = {"</s>": 0}
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    for word in ["\u2581###", "\u2581Human", "Human:", "\n\n", "##", "#", "a#", "\u2581b", "stop", "st", "op", "op\u2581st", "\u00e9", ":"]:
        vocabulary[word] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="</s>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer


def stop_strings(folder):
    cls, tokenizer = detokenizer(folder), byte_tokenizer()
    draw, vocabulary = random.Random(3), tokenizer.get_vocab()
    words = [index for token, index in vocabulary.items() if not token.startswith("<")]
    pieces = words * 6 + [vocabulary[f"<0x{byte:02X}>"] for byte in "\u00e9\u20ac#:\n".encode()] * 2 + [0]
    stops = [["###"], ["Human:"], ["\n\n"], ["stop", "op"], ["op", "stop"], ["\u00e9"], ["# "], ["\u20ac"], [" b", "#"], ["ststop", "p s"]]
    cases = []
    for number in range(400):
        stop, least = stops[number % len(stops)], draw.choice([0, 0, 0, 1, 3, 6])
        prompt, response = [[draw.choice(pieces) for _ in range(draw.randrange(low, high))] for low, high in ((1, 8), (1, 25))]
        parameters = SimpleNamespace(stop=stop, min_tokens=least, include_stop_str_in_output=False, skip_special_tokens=True, spaces_between_special_tokens=True)
        request = SimpleNamespace(sampling_params=parameters, prompt_token_ids=prompt, request_id=str(number))
        stream = cls(SimpleNamespace(_tokenizer=tokenizer), request)
        ended = None
        for count, token in enumerate(response, 1):
            # Here an end token is one like others: the detokenizer alone is compared.
            if stream.update([token], False) is not None:
                ended = count
                break
        cases.append([stop, least, prompt, response, ended, stream.get_next_output_text(True, False) if ended else None])
    return {"tokenizer": json.loads(tokenizer.to_str()), "cases": cases}


def main():
    model = LlamaForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    golden = {"distributions": distributions(model), "greedy": greedy(model), "stop_strings": stop_strings(sys.argv[1])}
    Path("tests/golden/sampling.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    ended = sum(case[4] is not None for case in golden["stop_strings"]["cases"])
    print(len(golden["distributions"]), [len(case["first"]) for case in golden["distributions"]], ended)


main()
