"""Times fine-tuning steps of PyTorch, for `deno task bench --train --against FILE`. Run by hand:

    python tools/compare/train.py --threads 2 --out pytorch.json
    python tools/compare/train.py --models minilm-l6 --batches 32x32 --compile off on --out pytorch.json

On a GPU add `--device cuda --dtype fp32 tf32 bf16 --models bert-base --batches 32x128 8x512 --attention sdpa`. It
needs torch and transformers; `--compile on` needs a C++ compiler too. A step is what the Hugging Face trainer does in
one: forward with the model's dropout, backward, gradients clipped at norm 1, fused AdamW, gradients dropped. Batches
are random ids of full length, so there is no padding that one side could skip.

On a GPU steps are queued as in training, without waiting for any: times are those between the ends of steps, by the
GPU's own events, after a second at least of untimed ones in which its clock comes up.

Every row is measured in a process of its own: peak memory is that of the row, and nothing is left over from the one
before. A row that fails is told at the end, and leaves the others. Of rows that differ only in attention and
compilation, the fastest is PyTorch's result.

Measure on a quiet machine: OpenMP's threads wait for one another at every operation, so a single busy neighbour on one
of the cores makes a step of two threads ten times as slow as one of a single thread.
"""

import argparse
import gc
import itertools
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
LEAST_STEPS = 5
# Untimed seconds on a GPU.
WARMUP_SECONDS = 1.0
# Steps that may be queued on a GPU: enough that it never waits, few enough that a row ends on time.
QUEUED_STEPS = 4


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


def time_on_cpu(step, seconds):
    """Milliseconds of each step, and the last loss."""
    samples = []
    end = time.perf_counter() + seconds
    while len(samples) < LEAST_STEPS or time.perf_counter() < end:
        begin = time.perf_counter()
        loss = step(len(samples))
        samples.append((time.perf_counter() - begin) * 1000)
    return samples, loss


def time_on_gpu(step, seconds):
    """Milliseconds from the end of each step to the end of the next, and the last loss. The host runs ahead."""

    def mark():
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    marks = [mark()]
    end = time.perf_counter() + seconds
    while len(marks) <= LEAST_STEPS or time.perf_counter() < end:
        loss = step(len(marks))
        marks.append(mark())
        if len(marks) > QUEUED_STEPS:
            marks[-1 - QUEUED_STEPS].synchronize()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) for begin, end in itertools.pairwise(marks)], loss


def warm_up(step, steps, seconds):
    """Takes so many steps and so many seconds of them at least; the first compiles."""
    end = time.perf_counter() + seconds
    number = 0
    while number < steps or time.perf_counter() < end:
        step(number)
        number += 1
        if seconds > 0:
            torch.cuda.synchronize()


def measure(row, options, answer):
    """Runs in a process of its own; answers with the row and its numbers, or with the error."""
    try:
        torch.set_num_threads(options.threads)
        on_gpu = row["device"] == "cuda"
        # Of fp32 products on a GPU: with TensorFloat-32, or without.
        torch.set_float32_matmul_precision("high" if row["dtype"] == "tf32" else "highest")
        step = make_step(row, options)
        warm_up(step, options.warmup, WARMUP_SECONDS if on_gpu else 0)
        gc.collect()
        gc.disable()
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        samples, loss = (time_on_gpu if on_gpu else time_on_cpu)(step, options.seconds)
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
            # What tensors took, and what PyTorch had taken from the driver for them.
            row["peak_gpu_mb"] = torch.cuda.max_memory_allocated() / 1e6
            row["peak_gpu_reserved_mb"] = torch.cuda.max_memory_reserved() / 1e6
        answer.send(row)
    except Exception as error:  # The parent prints it: a row that fails must not look like one that was not asked for.
        answer.send(f"{type(error).__name__}: {error}")
        raise


def main():
    options = parse_arguments()
    context = multiprocessing.get_context("spawn")
    rows = []
    failures = []
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
            failures.append(f"{name}: {answer}")
            print(failures[-1], file=sys.stderr)
            continue
        rows.append(answer)
        memory_mb = answer.get("peak_gpu_mb", answer["peak_rss_mb"])
        print(
            f"{name}: {answer['step_ms']['p50']:.1f} ms a step, {answer['tokens_per_second']:.0f} tokens/s, "
            f"{memory_mb:.0f} MB",
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
    if failures:
        sys.exit(f"{len(failures)} of {len(rows) + len(failures)} rows failed:\n" + "\n".join(failures))


if __name__ == "__main__":
    main()
