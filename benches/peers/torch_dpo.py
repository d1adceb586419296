"""PyTorch and transformers: `dpo-step` (benches/README.md), as TRL's DPOTrainer takes it with precomputed reference logprobs.

    python benches/peers/torch_dpo.py dpo-step --inputs DIR --model llama-15m --steps 3 --head logits

Chosen and rejected go through the model as one batch, prompts and all, eagerly; the loss is TRL's sigmoid loss times each pair's weight.
`--head logits` holds the logits of all response positions, as TRL did for long; `--head trl` is the chunked head of today's TRL (1.16 and later), which
never holds them, but goes over all positions and computes them twice. Gradient checkpointing, which TRL turns on, costs time; `--checkpointing 1` does so too.
`--autocast 1` computes in bf16 from f32 weights, as TRL's `bf16` does on a graphics card.
"""

import measurement
import torch
import torch.nn.functional as F
import transformers

BETA = 0.1
LEARNING_RATE = 1e-5


def main():
    asked = measurement.arguments(__doc__, {"dpo-step": {"model": "", "steps": None, "head": "logits", "attention": "sdpa", "checkpointing": 0, "device": "cpu", "autocast": 0}})
    torch.set_num_threads(asked.threads)
    folder = asked.inputs / asked.model
    torch.set_default_device(asked.device)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=asked.attention).train().to(asked.device)
    if asked.checkpointing:
        model.gradient_checkpointing_enable()
    logprobs = {"logits": logprobs_of_logits, "trl": logprobs_of_trl}[asked.head](model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    pairs = {name: torch.tensor(values) for name, values in measurement.read_json(folder / "pairs.json").items()}
    ids = torch.cat([torch.cat([pairs["prompt"], pairs[response]], 1) for response in ("chosen", "rejected")])

    def step():
        with torch.autocast(asked.device, torch.bfloat16, enabled=bool(asked.autocast)):
            chosen, rejected = logprobs(ids, pairs["prompt"].shape[1]).chunk(2)
        margin = (chosen - pairs["reference_chosen"]) - (rejected - pairs["reference_rejected"])
        loss = (pairs["weight"] * -F.logsigmoid(BETA * margin)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    step()
    watch, memory = measurement.on_device(asked)
    with watch:
        losses = [step() for _ in range(asked.steps)]
    settings = {name: getattr(asked, name) for name in ("head", "attention", "checkpointing", "autocast")}
    measurement.report("torch", asked, watch.seconds, tokens=asked.steps * ids.numel(), losses=losses, **settings, **memory())


def logprobs_of_logits(model):
    """The sum of the response's logprobs, one a row, through logits. Only positions that predict a response token reach the vocabulary."""

    def logprobs(ids, prompt_tokens):
        responses = ids[:, prompt_tokens:]
        logits = model(ids, use_cache=False, logits_to_keep=responses.shape[1] + 1).logits[:, :-1]
        # As TRL's selective_log_softmax, row by row: it never holds the log-probabilities of a whole batch.
        selected = logits.gather(-1, responses[..., None]).squeeze(-1)
        return (selected - torch.stack([row.logsumexp(-1) for row in logits])).sum(1)

    return logprobs


def logprobs_of_trl(model):
    """The same by TRL's own head."""
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(model)

    def logprobs(ids, prompt_tokens):
        labels = ids.clone()
        labels[:, :prompt_tokens] = -100
        return model(ids, use_cache=False, labels=labels, fused_lm_head=True).log_probs.sum(1)

    return logprobs


if __name__ == "__main__":
    main()
