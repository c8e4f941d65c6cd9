"""Times the Hugging Face Trainer on a classification file, for `deno task bench --train FILE --against`. Run by hand:

    python tools/compare/hf_trainer.py --model DIR --train SST-2/train.tsv.gz --eval SST-2/dev.tsv.gz --out hf.json
    python tools/compare/hf_trainer.py --model DIR --train SST-2/train.tsv.gz --max-steps 60 --out hf.json

needs torch, transformers and accelerate. Files are tab-separated with the columns `sentence` and `label`, as GLUE's
SST-2, also gzipped. Texts are tokenised before the clock starts. Batches are padded to their longest text
(DataCollatorWithPadding); `--group-by-length` lets texts of like length share a batch, which is the Trainer at its
strongest.

The clock runs over the training steps with all that is between them (batching, padding, the schedule), from the end
of step `--untimed-steps` to the end of the last, evaluations left out.
"""

import argparse
import tempfile
import time

import accelerate
import numpy
import torch
import transformers
from common import (
    SHAPES,
    config_of,
    machine_of,
    peak_rss_mb,
    read_examples,
    shape_name,
    versions_of,
    write_json,
)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description="Times the Hugging Face Trainer on a classification file.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="model folder, or tokenizer for --shape")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="random weights of this shape instead of the model's")
    parser.add_argument("--train", required=True, metavar="FILE", help=".tsv or .tsv.gz")
    parser.add_argument("--eval", metavar="FILE", help="for the accuracy after each epoch")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--max-steps", type=int, default=-1, help="stop after so many steps")
    parser.add_argument("--max-train-samples", type=int, help="use the first rows only")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--warmup-ratio", type=float, default=0.06)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--group-by-length", action="store_true")
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="sdpa")
    parser.add_argument("--compile", action="store_true", help="torch.compile, recompiling for shapes")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["fp32", "tf32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--untimed-steps", type=int, default=5)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--out", default="-", metavar="FILE", help="JSON; - for standard output")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda: there is no CUDA device here")
    if options.device == "cpu" and options.dtype == "tf32":
        parser.error("--dtype is tf32: wanted fp32 or bf16 on the CPU")
    return options


class Clock(transformers.TrainerCallback):
    """Seconds from the end of step `untimed` to the end of the last, without what lies between epochs."""

    def __init__(self, untimed, wait):
        self.untimed, self.wait = untimed, wait
        self.seconds, self.steps, self.since = 0.0, 0, None

    def on_epoch_begin(self, args, state, control, **_):
        if state.global_step >= self.untimed:
            self.wait()
            self.since = time.perf_counter()

    def on_step_end(self, args, state, control, **_):
        if state.global_step > self.untimed:
            self.steps += 1
        elif state.global_step == self.untimed:
            self.wait()
            self.since = time.perf_counter()

    def on_epoch_end(self, args, state, control, **_):
        if self.since is not None:
            self.wait()
            self.seconds += time.perf_counter() - self.since
            self.since = None


class CountingTrainer(transformers.Trainer):
    """Counts what the timed steps trained on. `clock` is set after construction."""

    clock = None
    examples = tokens = padded_tokens = 0

    def training_step(self, model, inputs, *args, **kwargs):
        if self.state.global_step >= self.clock.untimed:
            mask = inputs["attention_mask"]
            self.examples += mask.shape[0]
            self.padded_tokens += mask.numel()
            self.tokens += int(mask.sum())
        return super().training_step(model, inputs, *args, **kwargs)


def training_arguments(options, folder):
    return transformers.TrainingArguments(
        output_dir=folder,
        num_train_epochs=options.epochs,
        max_steps=options.max_steps,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        # From version 5 a number below 1 is a share of the run.
        warmup_steps=options.warmup_ratio,
        weight_decay=options.weight_decay,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        lr_scheduler_type="linear",
        train_sampling_strategy="group_by_length" if options.group_by_length else "random",
        eval_strategy="epoch" if options.eval else "no",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=options.device == "cpu",
        bf16=options.dtype == "bf16",
        tf32=(options.dtype == "tf32") if options.device == "cuda" else None,
        torch_compile=options.compile,
        dataloader_pin_memory=options.device == "cuda",
        seed=options.seed,
    )


def main():
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    transformers.set_seed(options.seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    if options.shape:
        config = config_of(options.shape)
        config._attn_implementation = options.attention
        model = transformers.BertForSequenceClassification(config)
    else:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            options.model, num_labels=2, attn_implementation=options.attention, dtype=torch.float32
        )
    train = read_examples(options.train, tokenizer, options.max_length, options.max_train_samples)
    clock = Clock(options.untimed_steps, torch.cuda.synchronize if options.device == "cuda" else lambda: None)
    with tempfile.TemporaryDirectory() as folder:
        trainer = CountingTrainer(
            model=model,
            args=training_arguments(options, folder),
            train_dataset=train,
            eval_dataset=read_examples(options.eval, tokenizer, options.max_length) if options.eval else None,
            data_collator=transformers.DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda answers: {
                "accuracy": float(numpy.mean(numpy.argmax(answers.predictions, axis=-1) == answers.label_ids))
            },
            callbacks=[clock],
        )
        trainer.clock = clock
        trainer.train()
    if clock.steps == 0:
        raise SystemExit(f"--untimed-steps is {options.untimed_steps}: the run has no step more")
    row = {
        "engine": "huggingface-trainer",
        "model": shape_name(model.config) or options.model,
        "device": options.device,
        "dtype": options.dtype,
        "attention": options.attention,
        "compile": options.compile,
        "batch": options.batch_size,
        "threads": options.threads,
        "group_by_length": options.group_by_length,
        "steps": clock.steps,
        "examples": trainer.examples,
        "seconds": clock.seconds,
        "examples_per_second": trainer.examples / clock.seconds,
        "tokens_per_second": trainer.tokens / clock.seconds,
        "padded_tokens_per_second": trainer.padded_tokens / clock.seconds,
        "peak_rss_mb": peak_rss_mb(),
        "epochs": [
            {"epoch": entry["epoch"], "accuracy": entry["eval_accuracy"], "loss": entry["eval_loss"]}
            for entry in trainer.state.log_history
            if "eval_accuracy" in entry
        ],
    }
    settings = {
        name: getattr(options, name)
        for name in ("epochs", "max_steps", "max_train_samples", "learning_rate", "warmup_ratio", "weight_decay",
                     "max_length", "untimed_steps", "seed")
    }
    result = {
        "machine": machine_of(),
        "versions": versions_of(accelerate=accelerate.__version__),
        "settings": settings,
        "rows": [row],
    }
    write_json(options.out, result)


if __name__ == "__main__":
    main()
