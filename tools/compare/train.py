"""Times fine-tuning steps of PyTorch, for `deno task bench --train --against FILE`. Run by hand:

    python tools/compare/train.py --threads 2 --out pytorch.json
    python tools/compare/train.py --models minilm-l6 --batches 32x32 --compile off on --out pytorch.json

needs torch and transformers; `--compile on` needs a C++ compiler too. A step is what the Hugging Face trainer does in
one: forward with the model's dropout, backward, gradients clipped at norm 1, fused AdamW, gradients dropped. Batches
are random ids of full length, so there is no padding that one side could skip.

Every row is measured in a process of its own: peak memory is that of the row, and nothing is left over from the one
before. Of rows that differ only in attention and compilation, the fastest is PyTorch's result.

Measure on a quiet machine: OpenMP's threads wait for one another at every operation, so a single busy neighbour on one
of the cores makes a step of two threads ten times as slow as one of a single thread.
"""

import argparse
import gc
import multiprocessing
import sys
import time

import torch
import transformers
from common import SHAPES, config_of, machine_of, parameter_groups, peak_rss_mb, summarize, versions_of, write_json

WEIGHT_DECAY = 0.01
LEARNING_RATE = 2e-5
MAX_GRADIENT_NORM = 1.0
BATCHES = 4


def batch_of(text):
    """`32x128` is 32 sequences of 128 tokens."""
    try:
        sequences, tokens = (int(part) for part in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"batch is {text}: wanted SEQUENCESxTOKENS, such as 32x128") from None
    if not (sequences >= 1 and 1 <= tokens <= 512):
        raise argparse.ArgumentTypeError(f"batch is {text}: wanted 1 sequence or more, of 1 to 512 tokens")
    return sequences, tokens


def parse_arguments():
    parser = argparse.ArgumentParser(
        description="Times fine-tuning steps of PyTorch on random batches without padding.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--models", nargs="+", choices=sorted(SHAPES), default=list(SHAPES))
    parser.add_argument(
        "--batches", nargs="+", type=batch_of, default=[(32, 32), (8, 128)], metavar="SxL", help="sequences x tokens"
    )
    parser.add_argument("--attention", nargs="+", choices=["eager", "sdpa"], default=["eager", "sdpa"])
    parser.add_argument("--compile", nargs="+", choices=["off", "on"], default=["off"], help="torch.compile")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--dtype",
        nargs="+",
        choices=["fp32", "tf32", "bf16"],
        default=["fp32"],
        help="tf32: fp32 with TensorFloat-32 products (cuda); bf16: autocast over fp32 weights",
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dropout", type=float, default=0.1, help="of hidden states and attention")
    parser.add_argument("--seconds", type=float, default=5.0, help="timed seconds of a row, 5 steps at least")
    parser.add_argument("--warmup", type=int, default=3, help="untimed steps; the first compiles")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="-", metavar="FILE", help="JSON; - for standard output")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda: there is no CUDA device here")
    if options.device == "cpu" and "tf32" in options.dtype:
        parser.error("--dtype is tf32: wanted fp32 or bf16 on the CPU")
    return options


def rows_to_measure(options):
    return [
        {
            "engine": "pytorch",
            "model": model,
            "weights": "dense",
            "device": options.device,
            "dtype": dtype,
            "attention": attention,
            "compile": compiled == "on",
            "batch": sequences,
            "tokens": tokens,
            "threads": options.threads,
        }
        for model in options.models
        for sequences, tokens in options.batches
        for dtype in options.dtype
        for compiled in options.compile
        for attention in options.attention
    ]


def make_step(row, options):
    """A function that takes one optimiser step on the batch of that number."""
    torch.manual_seed(options.seed)
    config = config_of(row["model"], options.dropout)
    config._attn_implementation = row["attention"]
    model = transformers.BertForSequenceClassification(config).to(row["device"]).train()
    assert model.config._attn_implementation == row["attention"]
    optimizer = torch.optim.AdamW(parameter_groups(model, WEIGHT_DECAY), lr=LEARNING_RATE, fused=True)
    shape = (row["batch"], row["tokens"])
    batches = [
        {
            "input_ids": torch.randint(1000, config.vocab_size, shape, device=row["device"]),
            "labels": torch.randint(0, 2, (row["batch"],), device=row["device"]),
        }
        for _ in range(BATCHES)
    ]
    run = torch.compile(model) if row["compile"] else model
    autocast = torch.autocast(row["device"], torch.bfloat16, enabled=row["dtype"] == "bf16")
    parameters = list(model.parameters())

    def step(number):
        with autocast:
            loss = run(**batches[number % BATCHES]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    return step


def measure(row, options, answer):
    """Runs in a process of its own; answers with the row and its numbers, or with the error."""
    try:
        torch.set_num_threads(options.threads)
        on_gpu = row["device"] == "cuda"
        if on_gpu:
            torch.backends.cuda.matmul.allow_tf32 = row["dtype"] == "tf32"
            torch.backends.cudnn.allow_tf32 = row["dtype"] == "tf32"

        def wait():
            if on_gpu:
                torch.cuda.synchronize()

        step = make_step(row, options)
        for number in range(options.warmup):
            loss = step(number)
        wait()
        gc.collect()
        gc.disable()
        samples = []
        end = time.perf_counter() + options.seconds
        while len(samples) < 5 or time.perf_counter() < end:
            begin = time.perf_counter()
            loss = step(len(samples))
            wait()
            samples.append((time.perf_counter() - begin) * 1000)
        assert torch.isfinite(loss), f"the loss is {loss.item()}"
        step_ms = summarize(samples)
        row = {
            **row,
            "steps": len(samples),
            "step_ms": step_ms,
            "tokens_per_second": row["batch"] * row["tokens"] * 1000 / step_ms["p50"],
            "examples_per_second": row["batch"] * 1000 / step_ms["p50"],
            "peak_rss_mb": peak_rss_mb(),
        }
        if on_gpu:
            row["peak_gpu_mb"] = torch.cuda.max_memory_allocated() / 1e6
        answer.send(row)
    except Exception as error:  # The parent prints it: a row that fails must not look like one that was not asked for.
        answer.send(f"{type(error).__name__}: {error}")
        raise


def main():
    options = parse_arguments()
    context = multiprocessing.get_context("spawn")
    rows = []
    for row in rows_to_measure(options):
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=measure, args=(row, options, sender))
        child.start()
        sender.close()
        try:
            answer = receiver.recv()
        except EOFError:
            answer = "the process died"
        child.join()
        name = f"{row['model']} {row['batch']}x{row['tokens']} {row['dtype']} {row['attention']}"
        name += " compiled" if row["compile"] else ""
        if isinstance(answer, str):
            sys.exit(f"{name}: {answer}")
        rows.append(answer)
        print(
            f"{name}: {answer['step_ms']['p50']:.1f} ms a step, {answer['tokens_per_second']:.0f} tokens/s, "
            f"{answer['peak_rss_mb']:.0f} MB",
            file=sys.stderr,
        )
    settings = {
        "optimizer": "AdamW fused",
        "learning_rate": LEARNING_RATE,
        "weight_decay": WEIGHT_DECAY,
        "max_grad_norm": MAX_GRADIENT_NORM,
        "dropout": options.dropout,
        "warmup": options.warmup,
        "seconds": options.seconds,
        "seed": options.seed,
    }
    write_json(options.out, {"machine": machine_of(), "versions": versions_of(), "settings": settings, "rows": rows})


if __name__ == "__main__":
    main()
