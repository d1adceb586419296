"""The trainer of a policy outside of optune: TRL's DPOTrainer with a weight for each pair, on as many devices as accelerate starts.

A stage of a pipeline (docs/guide/your-own-stage.md), for models beyond one device's memory and for whoever wants TRL's trainer:

    accelerate launch --config_file accelerate_fsdp.yaml trl_weighted_dpo.py [--epochs N] [--batch-size N] …

| input | what it is |
|---|---|
| `policy` | the model to train |
| `pairs` | a table with `prompt_ids`, `chosen_ids`, `rejected_ids` (lists of token ids) and `weight` |
| `reference` | the reference model, if the table has no `reference_logprob_chosen` and `reference_logprob_rejected` |

The loss of a step is the mean over its pairs of weight · −log σ(β·Δ), as in optune's `train`. Token ids are taken as they are, so that nothing is
tokenized again. Checkpoints lie in the work folder: a killed training goes on from the last one.
"""

import argparse
import json
import os

import torch
import torch.nn.functional as F
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

REFERENCE = {"reference_logprob_chosen": "ref_chosen_logps", "reference_logprob_rejected": "ref_rejected_logps"}
IDS = ["prompt_ids", "chosen_ids", "rejected_ids"]


class WeightedCollator(DataCollatorForPreference):
    """TRL's batches, with the weights of the pairs."""

    def torch_call(self, examples):
        batch = super().torch_call(examples)
        batch["weight"] = torch.tensor([example["weight"] for example in examples], dtype=torch.float32)
        return batch


class WeightedDPOTrainer(DPOTrainer):
    """TRL's trainer with a weight for each pair and with token ids that are there already."""

    def _prepare_dataset(self, dataset, *_, **__):
        return dataset

    def _precompute_ref_logps(self, dataset, *arguments, **named):
        if set(REFERENCE.values()) <= set(dataset.column_names):
            return dataset
        return super()._precompute_ref_logps(dataset, *arguments, **named)

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        if "weight" not in self._signature_columns:
            self._signature_columns = [*self._signature_columns, "weight"]

    def compute_ref_log_probs(self, model, inputs):
        inputs = {name: value for name, value in inputs.items() if name != "weight"}
        with torch.no_grad():
            return self.logprobs(model, inputs).chunk(2, dim=0)

    def logprobs(self, model, inputs):
        """The sum over each response's tokens, in nats: first the chosen ones, then the rejected ones."""
        ids, mask = inputs["input_ids"], inputs["completion_mask"][:, 1:].bool()
        logits = model(input_ids=ids, attention_mask=inputs["attention_mask"], use_cache=False).logits[:, :-1].float()
        each = torch.gather(F.log_softmax(logits, dim=-1), 2, ids[:, 1:, None]).squeeze(2)
        return (each * mask).sum(dim=1)

    def _compute_loss(self, model, inputs, return_outputs=False):
        chosen, rejected = self.logprobs(model, inputs).chunk(2, dim=0)
        margins = self.beta * ((chosen - inputs["ref_chosen_logps"]) - (rejected - inputs["ref_rejected_logps"]))
        loss = (inputs["weight"] * -F.logsigmoid(margins)).mean()
        mode = "train" if self.model.training else "eval"
        for name, value in {"rewards/margins": margins, "rewards/accuracies": (margins > 0).float()}.items():
            self._metrics[mode][name].append(self.accelerator.gather(value.detach()).mean().item())
        return (loss, {"margins": margins}) if return_outputs else loss


class Progress(TrainerCallback):
    """Says where the training is, for optune."""

    def on_train_begin(self, args, state, control, **_):
        if state.is_world_process_zero:
            print(f"begins at step {state.global_step}", flush=True)

    def on_step_end(self, args, state, control, **_):
        if state.is_world_process_zero:
            print(f"progress: {state.global_step}/{state.max_steps}", flush=True)

    def on_log(self, args, state, control, logs=None, **_):
        if state.is_world_process_zero:
            print(json.dumps(logs), flush=True)


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=8, help="pairs at once on each device")
    parser.add_argument("--accumulate", type=int, default=1, help="batches of a step")
    parser.add_argument("--learning-rate", type=float, default=5e-7)
    parser.add_argument("--schedule", default="constant", help="a schedule of transformers")
    parser.add_argument("--warmup-steps", type=int, default=0)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--max-grad-norm", type=float, default=1.0)
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--save-steps", type=int, default=50)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--cpu", action="store_true")
    return parser.parse_args()


def read_pairs(work):
    """The pairs, with TRL's names of the reference's logprobs where every pair has them."""
    pairs = load_dataset("parquet", data_dir=os.environ["OPTUNE_INPUT_PAIRS"], split="train", cache_dir=os.path.join(work, "datasets"))
    missing = [name for name in [*IDS, "weight"] if name not in pairs.column_names]
    if missing:
        raise SystemExit(f"pairs: expected the columns {', '.join([*IDS, 'weight'])}, found {', '.join(pairs.column_names)}")
    known = all(name in pairs.column_names and None not in pairs[name] for name in REFERENCE)
    pairs = pairs.rename_columns(REFERENCE) if known else pairs
    kept = [*IDS, "weight", *(REFERENCE.values() if known else [])]
    return pairs.remove_columns([name for name in pairs.column_names if name not in kept]), known


def main():
    asked = options()
    work = os.environ["OPTUNE_WORK"]
    folder = os.environ["OPTUNE_INPUT_POLICY"]
    pairs, known = read_pairs(work)
    reference = os.environ.get("OPTUNE_INPUT_REFERENCE")
    if not known and reference is None:
        raise SystemExit("expected the reference's logprobs in pairs, or an input `reference`, found neither")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    checkpoints = os.path.join(work, "checkpoints")
    config = DPOConfig(
        output_dir=checkpoints,
        num_train_epochs=asked.epochs,
        per_device_train_batch_size=asked.batch_size,
        gradient_accumulation_steps=asked.accumulate,
        learning_rate=asked.learning_rate,
        lr_scheduler_type=asked.schedule,
        warmup_steps=asked.warmup_steps,
        weight_decay=asked.weight_decay,
        max_grad_norm=asked.max_grad_norm,
        beta=asked.beta,
        precompute_ref_log_probs=True,
        # Responses have the lengths that they were sampled with.
        max_length=None,
        save_strategy="steps",
        save_steps=asked.save_steps,
        save_total_limit=2,
        logging_steps=1,
        seed=int(os.environ["OPTUNE_SEED"]) + int(os.environ["OPTUNE_ITERATION"]),
        use_cpu=asked.cpu,
        bf16=asked.precision == "bf16",
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = WeightedDPOTrainer(
        model=model,
        ref_model=None if known else AutoModelForCausalLM.from_pretrained(reference, dtype="float32"),
        args=config,
        train_dataset=pairs,
        processing_class=tokenizer,
        data_collator=WeightedCollator(pad_token_id=tokenizer.pad_token_id),
        callbacks=[Progress()],
    )
    last = get_last_checkpoint(checkpoints) if os.path.isdir(checkpoints) else None
    trainer.train(resume_from_checkpoint=last)
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(os.environ["OPTUNE_OUTPUT"])


if __name__ == "__main__":
    main()
