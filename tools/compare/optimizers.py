"""Fine-tunes with PyTorch's optimisers as `deno task compare` does with lacuna's: do they end alike? Run by hand:

    python tools/compare/optimizers.py --model DIR --train SST-2/train.tsv.gz --eval SST-2/dev.tsv.gz --out torch.json

needs torch and transformers. The defaults are those of bench/compare/optimizers-sst2.yaml: 5,000 phrases, two passes,
32 in a step, a linear schedule with 6 % of warm-up, gradients clipped to a norm of 1, and its variants. The order of the
examples and dropout are PyTorch's own, so numbers differ from lacuna's as another seed's would.
"""

import argparse
import random
import sys

import torch
import transformers
from common import machine_of, parameter_groups, read_examples, versions_of, write_json

# Name, learning rate, class, options: the variants of bench/compare/optimizers-sst2.yaml that PyTorch has.
VARIANTS = [
    ("AdamW", 1e-4, torch.optim.AdamW, {}),
    ("Adam, L2", 1e-4, torch.optim.Adam, {}),
    ("AMSGrad", 1e-4, torch.optim.AdamW, {"amsgrad": True}),
    ("SGD, rate 0.01", 1e-2, torch.optim.SGD, {"momentum": 0.9}),
    ("SGD, rate 0.1", 1e-1, torch.optim.SGD, {"momentum": 0.9}),
]


def parse_arguments():
    parser = argparse.ArgumentParser(
        description="Fine-tunes with PyTorch's optimisers.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="DIR")
    parser.add_argument("--train", required=True, metavar="FILE", help=".tsv or .tsv.gz with sentence and label")
    parser.add_argument("--eval", required=True, metavar="FILE")
    parser.add_argument("--variants", nargs="+", choices=[name for name, *_ in VARIANTS], help="all where absent")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--max-train-samples", type=int, default=5000)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--warmup-ratio", type=float, default=0.06)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", default="-", metavar="FILE", help="JSON; - for standard output")
    return parser.parse_args()


def batches(examples, size, collate):
    for begin in range(0, len(examples), size):
        yield collate(examples[begin : begin + size])


def train(options, model, examples, collate, rate, optimizer_class, settings):
    """Trains in place; gives the mean loss of the last 50 steps."""
    optimizer = optimizer_class(parameter_groups(model, options.weight_decay), lr=rate, **settings)
    steps = options.epochs * -(-len(examples) // options.batch_size)
    warmup = round(options.warmup_ratio * steps)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, warmup, steps)
    losses = []
    model.train()
    for _ in range(options.epochs):
        random.shuffle(examples)
        for batch in batches(examples, options.batch_size, collate):
            loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    last = losses[-50:]
    return sum(last) / len(last)


@torch.inference_mode()
def accuracy(model, examples, collate):
    model.eval()
    right = 0
    for batch in batches(examples, 64, collate):
        right += int((model(**batch).logits.argmax(1) == batch["labels"]).sum())
    return right / len(examples)


def main():
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    collate = transformers.DataCollatorWithPadding(tokenizer)
    examples = read_examples(options.train, tokenizer, options.max_length, options.max_train_samples)
    held_out = read_examples(options.eval, tokenizer, options.max_length)
    rows = []
    for name, rate, optimizer_class, settings in VARIANTS:
        if options.variants and name not in options.variants:
            continue
        for seed in range(1, options.seeds + 1):
            transformers.set_seed(seed)
            model = transformers.AutoModelForSequenceClassification.from_pretrained(
                options.model, num_labels=2, dtype=torch.float32
            )
            loss = train(options, model, list(examples), collate, rate, optimizer_class, settings)
            found = accuracy(model, held_out, collate)
            rows.append({"variant": name, "seed": seed, "loss": loss, "accuracy": found})
            print(f"{name}, seed {seed}: loss {loss:.4f}, accuracy {found:.4f}", file=sys.stderr, flush=True)
    write_json(options.out, {"machine": machine_of(), "versions": versions_of(), "rows": rows})


if __name__ == "__main__":
    main()
