"""Makes the numbers of tests/it/training/families.rs: one DPO step of every language model in `tests/families/` by TRL, and three of a LoRA
adapter by PEFT and PyTorch.

    python tests/python/family_dpo.py

Writes `tests/family_dpo/NAME/`: an adapter on all projections (with routed experts, on those of the attention) as PEFT saves it, none of its
values zero, and `golden.json`.

- `trl`: the losses of the first two steps of TRL's DPOTrainer, and the first gradient norm. The policy is the base with the adapter merged in,
  the reference is the base, and all of the policy is trained. `pairs` are the token ids that TRL made of the texts.
- `peft`: losses and gradient norms of AdamW on the adapter, in float64 on the float32 weights of base and adapter, on the same pairs.
"""

import json
import random
import shutil
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

TESTS = Path(__file__).resolve().parent.parent
OUT = TESTS / "family_dpo"
BETA, LEARNING_RATE, STEPS, PAIRS = 0.1, 1e-3, 3, 4


def texts():
    draw = random.Random(11)
    words = lambda least, most: " ".join(f"w{draw.randrange(3, 64)}" for _ in range(draw.randint(least, most)))
    return [{"prompt": words(3, 6), "chosen": " " + words(4, 9), "rejected": " " + words(4, 9)} for _ in range(PAIRS)]


def load(folder, dtype):
    # PyTorch's grouped products of experts round more, and take no float64.
    experts = {"experts_implementation": "eager"} if has_experts(folder) else {}
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager", **experts)


def has_experts(folder):
    return (folder / "experts.json").exists()


def with_trl(base, adapter):
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(base / "tokenizer.json"), unk_token="<unk>", eos_token="</s>", pad_token="<unk>")
    policy = PeftModel.from_pretrained(load(base, torch.float32), adapter).merge_and_unload().requires_grad_(True)
    with tempfile.TemporaryDirectory() as output:
        config = DPOConfig(
            output_dir=output, max_steps=2, per_device_train_batch_size=PAIRS, beta=BETA, learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1e9, logging_steps=1, report_to="none", use_cpu=True, bf16=False,
            gradient_checkpointing=False, max_length=None, save_strategy="no", disable_tqdm=True, router_aux_loss_coef=0.0,
        )
        trainer = DPOTrainer(
            policy, ref_model=load(base, torch.float32), args=config, train_dataset=Dataset.from_list(texts()), processing_class=tokenizer
        )
        rows = list(trainer.train_dataset)
        trainer.train()
        logs = [log for log in trainer.state.log_history if "loss" in log]
    pairs = [{"prompt": row["prompt_ids"], "chosen": row["chosen_ids"], "rejected": row["rejected_ids"]} for row in rows]
    # The history is rounded; the loss is computed again from the logprobs' mean margins where that matters.
    return pairs, {"losses": [log["loss"] for log in logs], "gradient_norm": logs[0]["grad_norm"]}


def logprob(model, prompt, response):
    logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[range(len(response)), response].sum()


def with_peft(base, adapter, pairs):
    model = PeftModel.from_pretrained(load(base, torch.float64), adapter, is_trainable=True, autocast_adapter_dtype=False)
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.no_grad(), model.disable_adapter():
        reference = [[logprob(model, pair["prompt"], pair[side]) for side in ("chosen", "rejected")] for pair in pairs]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    losses, norms = [], []
    for _ in range(STEPS):
        margins = [
            (logprob(model, pair["prompt"], pair["chosen"]) - chosen) - (logprob(model, pair["prompt"], pair["rejected"]) - rejected)
            for pair, (chosen, rejected) in zip(pairs, reference)
        ]
        loss = -torch.nn.functional.logsigmoid(BETA * torch.stack(margins)).mean()
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        norms.append(torch.linalg.vector_norm(torch.stack([parameter.grad.norm() for parameter in trained])).item())
        optimizer.step()
    return {"losses": losses, "gradient_norms": norms, "parameters": sum(parameter.numel() for parameter in trained)}


def make(base):
    adapter = OUT / base.name / "adapter"
    torch.manual_seed(3)
    # PEFT adapts experts in fused tensors, with other gradients than one adapter a projection has.
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"] if has_experts(base) else "all-linear"
    model = get_peft_model(load(base, torch.float32), LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=4, target_modules=targets))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    model.save_pretrained(adapter)
    (adapter / "README.md").unlink()
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = f"../../families/{base.name}"
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2) + "\n")
    pairs, trl = with_trl(base, adapter)
    peft = with_peft(base, adapter, pairs)
    golden = {"beta": BETA, "learning_rate": LEARNING_RATE, "pairs": pairs, "trl": trl, "peft": peft}
    (OUT / base.name / "golden.json").write_text(json.dumps(golden) + "\n")
    print(base.name, trl, peft["losses"][0], config["target_modules"])


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    for base in sorted((TESTS / "families").iterdir()):
        if not base.name.endswith(("_reward", "_images")):
            make(base)


if __name__ == "__main__":
    main()
