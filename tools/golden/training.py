"""Writes src/finetune/golden/training.json: the losses of 300 training steps of a tiny BERT in PyTorch.

Run by hand when the golden file must change (never by the product or its tests):

    python tools/golden/training.py

needs torch, transformers and numpy on the CPU. The file records the versions that made it.

The model and its initial weights are those of bert.py. Every step has a batch of its own, computed from the counter
generator on both sides (src/finetune/golden/mod.ts holds the TypeScript side), so no data are stored: a checksum tells
whether both drew the same. The class of a sequence is a function of its first token, which the model learns.

Two more runs are pruned: from a step on, a random mask holds half or most of the weights of the encoder's matrices at
zero, with moments of zero and no gradient, neither in the update nor in the norm.

Everything is computed in float64 (the right answer) and in float32: how far PyTorch's own float32 run drifts from
float64 over 300 steps is the yardstick for ours.
"""

import base64
import json
import pathlib
import re

import numpy
import torch
import transformers
from bert import CONFIG, make_model, mix32, random_bits, random_key, versions

OUTPUT = pathlib.Path(__file__).parents[2] / "src/finetune/golden/training.json"

TRAINING = {
    "steps": 300,
    "warmupSteps": 30,
    "learningRate": 2e-3,
    "weightDecay": 0.01,
    "beta1": 0.9,
    "beta2": 0.999,
    "epsilon": 1e-8,
    "maxGradientNorm": 1.0,
    "sequences": 8,
    "maximumLength": 20,
}
MASKED_FROM_STEP = 100
SPARSITIES = [0.0, 0.5, 0.8]
PRUNABLE = re.compile(r"encoder\.layer\.\d+\.(attention\.self\.\w+|.*dense)\.weight$")


def batch_of(step):
    """Lists of ids, of types and of classes. The first numbers of a step's key are lengths, then come the tokens."""
    key = random_key(0, "golden training", step)

    def below(index, bound):
        return random_bits(key, index) * bound >> 32

    index = TRAINING["sequences"]
    sequences = []
    for sequence in range(TRAINING["sequences"]):
        length = 1 + below(sequence, TRAINING["maximumLength"])
        ids = [1 + below(index + i, CONFIG["vocab_size"] - 1) for i in range(length)]
        index += length
        # Every other sequence is a pair, whose second text begins in the middle.
        types = [int(sequence % 2 == 1 and position >= length - length // 2) for position in range(length)]
        sequences.append((ids, types, ids[0] % CONFIG["num_labels"]))
    return sequences


def pad(sequences):
    shape = (len(sequences), max(len(ids) for ids, _, _ in sequences))
    input_ids, types, mask = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
    for row, (ids, type_ids, _) in enumerate(sequences):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        types[row, : len(ids)] = torch.tensor(type_ids)
        mask[row, : len(ids)] = 1
    labels = torch.tensor([label for _, _, label in sequences])
    return {"input_ids": input_ids, "token_type_ids": types, "attention_mask": mask, "labels": labels}


def mask_of(name, parameter, sparsity):
    """1 where a weight is kept."""
    key = random_key(0, "golden mask", name)
    threshold = sparsity * 2**32
    kept = [float(random_bits(key, i) >= threshold) for i in range(parameter.numel())]
    return torch.tensor(kept, dtype=parameter.dtype).reshape(parameter.shape)


def checksum(batches):
    """Folds all ids, types and classes into one word."""
    word = 0
    for batch in batches:
        for ids, types, label in batch:
            for value in [*ids, *types, label]:
                word = mix32(word ^ value)
    return word


def encode(values):
    return base64.b64encode(numpy.array(values, dtype="<f8").tobytes()).decode()


def train(dtype, batches, sparsity):
    """Loss before each update, and the norm of its gradient before clipping."""
    model = make_model(dtype)
    exempt = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for name, p in model.named_parameters() if not (name.endswith("bias") or "LayerNorm" in name)]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": TRAINING["weightDecay"]}, {"params": exempt, "weight_decay": 0.0}],
        lr=TRAINING["learningRate"],
        betas=(TRAINING["beta1"], TRAINING["beta2"]),
        eps=TRAINING["epsilon"],
        foreach=False,
    )
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, TRAINING["warmupSteps"], TRAINING["steps"])
    losses, norms = [], []
    masks = {}
    for step, batch in enumerate(batches):
        if sparsity > 0 and step == MASKED_FROM_STEP:
            for name, parameter in model.named_parameters():
                if not PRUNABLE.search(name):
                    continue
                masks[parameter] = mask_of(name, parameter, sparsity)
                state = optimizer.state[parameter]
                for values in (parameter.data, state["exp_avg"], state["exp_avg_sq"]):
                    values.mul_(masks[parameter])
        optimizer.zero_grad()
        loss = model(**pad(batch)).loss
        loss.backward()
        for parameter, mask in masks.items():
            parameter.grad.mul_(mask)
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), TRAINING["maxGradientNorm"]).item())
        losses.append(loss.item())
        optimizer.step()
        schedule.step()
    assert all((parameter[mask == 0] == 0).all() for parameter, mask in masks.items())
    return losses, norms


def main():
    torch.set_num_threads(1)
    batches = [batch_of(step) for step in range(TRAINING["steps"])]
    runs = []
    for sparsity in SPARSITIES:
        losses, norms = map(numpy.array, train(torch.float64, batches, sparsity))
        rounded_losses, rounded_norms = map(numpy.array, train(torch.float32, batches, sparsity))
        runs.append({
            "sparsity": sparsity,
            "losses": encode(losses),
            "gradientNorms": encode(norms),
            "float32Drift": {
                "loss": float(numpy.max(numpy.abs(rounded_losses - losses))),
                "norm": float(numpy.max(numpy.abs(rounded_norms - norms) / norms)),
            },
        })
        print(sparsity, "loss", losses[0], "to", numpy.mean(losses[-20:]), runs[-1]["float32Drift"])
    golden = {
        "versions": versions(),
        "config": CONFIG,
        "training": TRAINING,
        "maskedFromStep": MASKED_FROM_STEP,
        "checksum": checksum(batches),
        "runs": runs,
    }
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(golden, indent=2) + "\n")
    print(OUTPUT.name, OUTPUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
