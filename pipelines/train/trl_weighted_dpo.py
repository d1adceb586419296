"""The trainer of a policy outside of optune: TRL's DPOTrainer with a weight for each pair, on as many devices as accelerate starts.

For models beyond one device's memory and for whoever wants TRL's trainer (docs/guide/your-own-stage.md): the engine of a `train` node,

    train: { …, engine: { command: [accelerate, launch, --config_file, accelerate_fsdp.yaml, trl_weighted_dpo.py] } }

or the program of a `command` with the inputs

| input | what it is |
|---|---|
| `policy` | the model to train |
| `pairs` | a table with `prompt_ids`, `chosen_ids`, `rejected_ids` (lists of token ids) and `weight` |
| `reference` | the reference model, if the table has no `reference_logprob_chosen` and `reference_logprob_rejected` |

A `train` node's settings come with it, in OPTUNE_SETTINGS: loss, β, optimizer, learning rate, schedule, epochs and batch size are those of the
file. For a `command` they are arguments.

The loss of a step is the mean over its pairs of weight · −log σ(β·Δ), as in optune's `train`. Token ids are taken as they are, so that nothing is
tokenized again. Checkpoints lie in the work folder: a killed training goes on from the last one.
"""

import argparse
import json
import math
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
# The arguments of a `command` that are settings of a `train` node, with their values where neither says anything.
SETTINGS = {
    "epochs": 1,
    "accumulate": 1,
    "learning_rate": 5e-7,
    "schedule": "constant",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "beta": 0.1,
    "precision": "f32",
}
# The schedules of a `train` node by transformers' names.
SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


class WeightedCollator(DataCollatorForPreference):
    """TRL's batches, with the weights of the pairs."""

    def torch_call(self, examples):
        batch = super().torch_call(examples)
        batch["weight"] = torch.tensor([example["weight"] for example in examples], dtype=torch.float32)
        return batch


class WeightedDPOTrainer(DPOTrainer):
    """TRL's trainer with a weight for each pair and with token ids that are there already."""

    def __init__(self, *arguments, optimizer=None, **named):
        self.own_optimizer = optimizer
        super().__init__(*arguments, **named)

    def get_optimizer_cls_and_kwargs(self, *arguments, **named):
        if self.own_optimizer is None:
            return super().get_optimizer_cls_and_kwargs(*arguments, **named)
        name, settings = self.own_optimizer
        kinds = {"adamw": (torch.optim.AdamW, ["betas", "eps"]), "rmsprop": (torch.optim.RMSprop, ["alpha", "eps"])}
        kind, keys = kinds[name]
        # The weight decay is that of the groups: norms and biases have none.
        return kind, {"lr": self.args.learning_rate, **{key: settings[key] for key in keys}}

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
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int, help="pairs at once on each device; in a train node all of a step, unless this says fewer")
    parser.add_argument("--accumulate", type=int, help="batches of a step")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--schedule", help="a schedule of transformers")
    parser.add_argument("--warmup-steps", type=int)
    parser.add_argument("--weight-decay", type=float)
    parser.add_argument("--max-grad-norm", type=float)
    parser.add_argument("--beta", type=float)
    parser.add_argument("--save-steps", type=int, default=50)
    parser.add_argument("--precision", choices=["f32", "bf16"])
    parser.add_argument("--cpu", action="store_true")
    asked = parser.parse_args()
    asked.optimizer = None
    return asked


def of_command(asked):
    """The arguments, with their defaults."""
    for name, value in SETTINGS.items():
        if getattr(asked, name) is None:
            setattr(asked, name, value)
    asked.batch_size = asked.batch_size or 8


def of_node(asked, settings, pairs):
    """The settings of a `train` node with so many pairs."""
    twice = [name for name in SETTINGS if getattr(asked, name) is not None]
    if twice:
        raise SystemExit(f"expected {', '.join(twice)} in the train node, found an argument; leave it out")
    others = [name for name in ("wpo", "optimism") if settings.get(name) is not None]
    if settings["loss"] != "dpo" or others:
        raise SystemExit(f"expected the loss dpo alone, found {', '.join([str(settings['loss']), *others])}; train this here, without engine")
    [(name, optimizer)] = settings["optimizer"].items()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    on_each, rest = divmod(settings["batch_size"], processes)
    asked.batch_size = asked.batch_size or on_each
    if rest or on_each % asked.batch_size:
        problem = f"expected a batch_size of a multiple of {processes} processes with {asked.batch_size} pairs at once"
        raise SystemExit(f"{problem}, found {settings['batch_size']}")
    steps = math.ceil(pairs / settings["batch_size"]) * settings["epochs"]
    asked.accumulate = on_each // asked.batch_size
    asked.epochs = settings["epochs"]
    asked.learning_rate = settings["learning_rate"]
    asked.schedule = SCHEDULES[settings["schedule"]]
    asked.warmup_steps = math.ceil(settings["warmup_ratio"] * steps)
    asked.weight_decay = optimizer["weight_decay"]
    asked.max_grad_norm = settings["max_gradient_norm"] or 0.0
    asked.beta = settings["beta"]
    asked.precision = settings.get("precision", "f32")
    asked.optimizer = (name, optimizer)


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
    if settings := os.environ.get("OPTUNE_SETTINGS"):
        of_node(asked, json.loads(settings), len(pairs))
    else:
        of_command(asked)
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
        optimizer=asked.optimizer,
    )
    last = get_last_checkpoint(checkpoints) if os.path.isdir(checkpoints) else None
    trainer.train(resume_from_checkpoint=last)
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(os.environ["OPTUNE_OUTPUT"])


if __name__ == "__main__":
    main()
