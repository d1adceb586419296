"""Hugging Face transformers: `generate` and `workload` (benches/README.md).

    python benches/peers/transformers_generate.py workload --inputs DIR --model llama-15m --batch 32 --prompts 256
"""

import measurement
import torch
import transformers


def main():
    settings = {"attention": "sdpa", "device": "cpu", "dtype": "float32"}
    asked = measurement.arguments(__doc__, {
        "generate": {"model": "", "batch": None, "tokens": None, **settings},
        "workload": {"model": "", "batch": None, "prompts": None, **settings},
    })
    torch.set_num_threads(asked.threads)
    torch.set_default_device(asked.device)
    dtype = getattr(torch, asked.dtype)
    model = transformers.AutoModelForCausalLM.from_pretrained(asked.inputs / asked.model, dtype=dtype, attn_implementation=asked.attention)
    model = model.eval().to(asked.device)
    # Nothing ends a response but its length; all of the vocabulary is sampled from.
    model.generation_config = transformers.GenerationConfig(pad_token_id=0, top_k=0)
    with torch.inference_mode():
        (generate if asked.case == "generate" else workload)(model, asked)


def generate(model, asked):
    ids = torch.tensor(measurement.read_json(asked.inputs / "prompts.json")["prompts"][: asked.batch])
    greedily = lambda tokens: model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens)
    greedily(8)
    watch, memory = measurement.on_device(asked)
    with watch:
        rows = greedily(asked.tokens)
    response = rows[:, ids.shape[1] :]
    assert response.shape == (asked.batch, asked.tokens)
    measurement.report("transformers", asked, watch.seconds, tokens=response.numel(), token_ids=response[0].tolist(), attention=asked.attention, **memory())


def workload(model, asked):
    """A batch is prompts of similar length with all of their responses, so that little is padding, and is done when its longest response is."""
    prompts = measurement.read_json(asked.inputs / "workload.json")["prompts"][: asked.prompts]
    responses = len(prompts[0]["response_tokens"])
    prompts.sort(key=lambda prompt: len(prompt["token_ids"]), reverse=True)
    together = max(1, asked.batch // responses)
    batches = [prompts[start : start + together] for start in range(0, len(prompts), together)]

    def sample(batch, tokens):
        longest = max(len(prompt["token_ids"]) for prompt in batch)
        padding = [longest - len(prompt["token_ids"]) for prompt in batch]
        ids = torch.tensor([[0] * count + prompt["token_ids"] for count, prompt in zip(padding, batch)])
        mask = torch.tensor([[0] * count + [1] * (longest - count) for count in padding])
        model.generate(ids, attention_mask=mask, do_sample=True, temperature=1.0, max_new_tokens=tokens, num_return_sequences=responses)

    torch.manual_seed(17)
    sample(prompts[:together], 8)
    watch, memory = measurement.on_device(asked)
    with watch:
        for batch in batches:
            sample(batch, max(max(prompt["response_tokens"]) for prompt in batch))
    tokens = sum(sum(prompt["response_tokens"]) for prompt in prompts)
    measurement.report("transformers", asked, watch.seconds, tokens=tokens, attention=asked.attention, **memory())


if __name__ == "__main__":
    main()
