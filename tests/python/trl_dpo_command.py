"""A stage of a pipeline: trains a policy on pairs of texts with TRL's DPOTrainer.

Run by optune as a `command` with the inputs `policy` and `pairs` and `output: model`. The trainer's checkpoints lie in the
work folder, so a killed training goes on from the last one.

    trl_dpo_command.py [--epochs N] [--save-steps N] [--pause SECONDS]
"""

import argparse
import json
import os
import time

from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import DPOConfig, DPOTrainer


class Progress(TrainerCallback):
    """Says where the training is."""

    def __init__(self, pause):
        self.pause = pause

    def on_train_begin(self, args, state, control, **kwargs):
        print(f"begins at step {state.global_step}", flush=True)

    def on_step_end(self, args, state, control, **kwargs):
        print(f"progress: {state.global_step}/{state.max_steps}", flush=True)
        time.sleep(self.pause)

    def on_log(self, args, state, control, logs=None, **kwargs):
        print(json.dumps(logs), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--save-steps", type=int, default=2)
    parser.add_argument("--pause", type=float, default=0.0)
    options = parser.parse_args()

    folder = os.environ["OPTUNE_INPUT_POLICY"]
    work = os.environ["OPTUNE_WORK"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    pairs = load_dataset(
        "parquet", data_dir=os.environ["OPTUNE_INPUT_PAIRS"], split="train", cache_dir=os.path.join(work, "datasets")
    )
    checkpoints = os.path.join(work, "checkpoints")
    config = DPOConfig(
        output_dir=checkpoints,
        num_train_epochs=options.epochs,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        beta=0.1,
        max_length=64,
        save_strategy="steps",
        save_steps=options.save_steps,
        save_total_limit=2,
        logging_steps=1,
        seed=int(os.environ["OPTUNE_SEED"]) + int(os.environ["OPTUNE_ITERATION"]),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = DPOTrainer(
        model=model, args=config, train_dataset=pairs, processing_class=tokenizer, callbacks=[Progress(options.pause)]
    )
    last = get_last_checkpoint(checkpoints) if os.path.isdir(checkpoints) else None
    trainer.train(resume_from_checkpoint=last)
    trainer.save_model(os.environ["OPTUNE_OUTPUT"])


if __name__ == "__main__":
    main()
