"""What the comparison scripts share: the shapes of the models, GLUE files, statistics, memory, versions, JSON."""

import csv
import gzip
import json
import os
import platform
import resource
import statistics
import sys

import torch
import transformers

# The presets of models/presets.ts that are compared.
SHAPES = {
    "bert-tiny": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512},
    "minilm-l6": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "bert-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}


def config_of(shape, dropout=0.1):
    """The configuration of a named shape, as models/presets.ts has it."""
    return transformers.BertConfig(
        **SHAPES[shape],
        vocab_size=30522,
        max_position_embeddings=512,
        num_labels=2,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )


def shape_name(config):
    """The named shape that a configuration has, or None."""
    for name, shape in SHAPES.items():
        if all(getattr(config, field) == size for field, size in shape.items()):
            return name
    return None


def parameter_groups(model, weight_decay):
    """Matrices and embeddings decay; biases and LayerNorm do not."""
    exempt = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for name, p in model.named_parameters() if not (name.endswith("bias") or "LayerNorm" in name)]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]


def read_examples(path, tokenizer, max_length, limit=None):
    """Token ids and labels, unpadded."""
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        rows = [row for _, row in zip(range(limit), reader(file))] if limit else list(reader(file))
    encoded = tokenizer([row["sentence"] for row in rows], truncation=True, max_length=max_length)
    return [
        {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "labels": int(row["label"])}
        for row, ids, mask, types in zip(
            rows, encoded["input_ids"], encoded["attention_mask"], encoded["token_type_ids"], strict=True
        )
    ]


def reader(file):
    return csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)


def summarize(samples):
    """Median, 95th percentile (interpolated as numpy does), mean and sample standard deviation."""
    ordered = sorted(samples)
    position = 0.95 * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return {
        "p50": statistics.median(ordered),
        "p95": ordered[below] + (position - below) * (ordered[above] - ordered[below]),
        "mean": statistics.fmean(ordered),
        "std": statistics.stdev(ordered) if len(ordered) > 1 else 0.0,
    }


def peak_rss_mb():
    """The most memory this process ever held resident, in 10^6 bytes. Linux counts in KiB, macOS in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def cpu_name():
    """The processor's name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def machine_of():
    """The machine, for the reader of the numbers."""
    machine = {
        "cpu": cpu_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    return machine


def versions_of(**more):
    """The programs that made the numbers."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cuda": torch.version.cuda,
        **more,
    }


def write_json(path, result):
    """To a file, or to standard output for `-`."""
    text = json.dumps(result, indent=2) + "\n"
    if path == "-":
        sys.stdout.write(text)
    else:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
