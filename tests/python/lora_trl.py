"""Makes tests/lora/trl: DPO of an adapter with DoRA by TRL's own trainer and PEFT, on the base of tests/lora/tiny.

    python tests/python/lora_trl.py

Writes the same files as lora_dpo.py. Loss and gradient norm of each step are those of DPOTrainer, in float64 on float32 weights.
"""

import json
import logging
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from lora_dpo import BETA, LEARNING_RATE, STEPS, logprob, pairs_of
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

LORA = Path(__file__).resolve().parent.parent / "lora"
END = 2


def tokenizer(size):
    words = ["<unk>", "<s>", "</s>"] + [f"w{number}" for number in range(3, size)]
    inner = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>")


class Recorded(DPOTrainer):
    losses = []

    def compute_loss(self, *arguments, **settings):
        loss = super().compute_loss(*arguments, **settings)
        self.losses.append((loss[0] if isinstance(loss, tuple) else loss).item())
        return loss


def main():
    logging.disable(logging.WARNING)
    base, out = LORA / "tiny", LORA / "trl"
    out.mkdir(exist_ok=True)
    torch.manual_seed(4)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "up_proj"], "use_dora": True, "rank_pattern": {"up_proj": 2}}
    get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings)).save_pretrained(out / "adapter")
    (out / "adapter" / "README.md").unlink()
    (out / "adapter" / "adapter_model.safetensors").chmod(0o644)
    path = out / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = base.name
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2) + "\n")

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    model = PeftModel.from_pretrained(model, out / "adapter", is_trainable=True, autocast_adapter_dtype=False)
    pairs = pairs_of(model.config.vocab_size)
    text = lambda ids: " ".join("<s>" if id == 1 else f"w{id}" for id in ids)
    # TRL ends each response with the end token.
    rows = [{"prompt": text(pair["prompt"]), **{side: " " + text(pair[side]) for side in ("chosen", "rejected")}} for pair in pairs]
    pairs = [{**pair, "chosen": pair["chosen"] + [END], "rejected": pair["rejected"] + [END]} for pair in pairs]
    sequence = [1] + list(range(3, 15))

    def logits():
        model.eval()
        with torch.no_grad():
            return model(torch.tensor([sequence])).logits[0, -1, :32].tolist()

    before = logits()
    with torch.no_grad(), model.disable_adapter():
        reference = [[logprob(model, pair["prompt"], pair[side]).item() for side in ("chosen", "rejected")] for pair in pairs]
    with tempfile.TemporaryDirectory() as folder:
        arguments = DPOConfig(
            output_dir=folder, beta=BETA, learning_rate=LEARNING_RATE, lr_scheduler_type="constant", max_steps=STEPS, weight_decay=0.01,
            per_device_train_batch_size=len(rows), max_grad_norm=1e30, logging_steps=1, report_to=[], use_cpu=True, bf16=False, fp16=False,
            gradient_checkpointing=False, disable_dropout=True, save_strategy="no", max_length=None, optim="adamw_torch",
        )
        trainer = Recorded(model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer(model.config.vocab_size))
        trainer.train()
    norms = [float(entry["grad_norm"]) for entry in trainer.state.log_history if "grad_norm" in entry]
    assert len(trainer.losses) == len(norms) == STEPS, (len(trainer.losses), len(norms))
    golden = {
        "beta": BETA, "learning_rate": LEARNING_RATE, "weight_decay": 0.01, "pairs": pairs, "reference": reference, "losses": trainer.losses,
        "gradient_norms": norms, "sequence": sequence, "logits_before": before, "logits_after": logits(),
        "trained_parameter_count": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
    }
    (out / "golden.json").write_text(json.dumps(golden) + "\n")
    print(f"{golden['trained_parameter_count']} parameters trained, loss {trainer.losses[0]:.4f} to {trainer.losses[-1]:.4f}")


if __name__ == "__main__":
    main()
