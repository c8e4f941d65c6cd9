"""Writes src/graph/golden/bert.json: what PyTorch and transformers say about one tiny BERT classifier.

Run by hand when the golden file must change (never by the product or its tests):

    python tools/golden/bert.py

needs torch, transformers and numpy on the CPU. The file records the versions that made it.

The weights are not stored: both sides compute them from `value(name, index)` below, which repeats the counter
generator of src/core/random.ts bit for bit (src/graph/golden/mod.ts holds the TypeScript side). They are rounded to
float32 first, so that a float32 engine starts from exactly the weights of the float64 run.

Everything is computed twice, in float64 (the right answer) and in float32 (what PyTorch itself loses by rounding:
a fair yardstick for tolerances). Python pads the batch and masks it; the file holds the tokens packed end to end.
"""

import base64
import json
import pathlib

import numpy
import torch
import transformers

OUTPUT = pathlib.Path(__file__).parents[2] / "src/graph/golden/bert.json"
WORD = 0xFFFFFFFF

CONFIG = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 101,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "num_labels": 3,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}
TRAINING = {
    "steps": 10,
    "warmupSteps": 2,
    "learningRate": 1e-3,
    "weightDecay": 0.01,
    "beta1": 0.9,
    "beta2": 0.999,
    "epsilon": 1e-8,
    "maxGradientNorm": 1.0,
}
# One sequence of a single token, one longer than a 16-lane tile; 40 tokens together.
LENGTHS = [3, 7, 1, 17, 12]
# Where the second text of a pair begins; a sequence that is not a pair has none.
SECOND_TEXT_STARTS = {1: 4, 3: 9}
LABELS = [0, 2, 1, 1, 0]


# The counter generator of src/core/random.ts.


def mix32(x):
    x &= WORD
    x ^= x >> 16
    x = x * 0x7FEB352D & WORD
    x ^= x >> 15
    x = x * 0x846CA68B & WORD
    x ^= x >> 16
    return x


def random_key(seed, *path):
    low = mix32(seed)
    high = mix32(low ^ 0x9E3779B9 ^ (seed >> 32))
    for part in path:
        for word in [part] if isinstance(part, int) else map(ord, part):
            low = mix32(low + word * 0x85EBCA6B)
            high = mix32(high ^ low)
        low = mix32(low ^ 0xFF51AFD7)
    return low, high


def random_bits(key, index):
    low, high = key
    return mix32(mix32(index ^ low) + high)


def values(name, count):
    """The initial float32 values of a parameter."""
    key = random_key(0, name)
    signed = numpy.array([2 * ((random_bits(key, i) >> 8) / 2**24) - 1 for i in range(count)])
    if name.endswith("LayerNorm.weight"):
        return (1 + 0.1 * signed).astype(numpy.float32)
    return ((0.1 if name.endswith(".bias") else 0.2) * signed).astype(numpy.float32)


def checksum(floats):
    """Folds the bits of float32 values into one word, so that a formula that drifts anywhere is noticed."""
    word = 0
    for bits in floats.view(numpy.uint32).tolist():
        word = mix32(word ^ bits)
    return word


def make_batch():
    key = random_key(0, "tokens")
    drawn = [1 + (random_bits(key, i) * (CONFIG["vocab_size"] - 1) >> 32) for i in range(sum(LENGTHS))]
    packed = {"lengths": LENGTHS, "tokenIds": drawn, "typeIds": [], "positions": [], "labels": LABELS}
    for sequence, length in enumerate(LENGTHS):
        start = SECOND_TEXT_STARTS.get(sequence, length)
        packed["typeIds"] += [int(position >= start) for position in range(length)]
        packed["positions"] += range(length)
    return packed


def pad(packed):
    shape = (len(LENGTHS), max(LENGTHS))
    ids, types, mask = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
    begin = 0
    for row, length in enumerate(LENGTHS):
        ids[row, :length] = torch.tensor(packed["tokenIds"][begin : begin + length])
        types[row, :length] = torch.tensor(packed["typeIds"][begin : begin + length])
        mask[row, :length] = 1
        begin += length
    return {"input_ids": ids, "token_type_ids": types, "attention_mask": mask, "labels": torch.tensor(LABELS)}


def make_model(dtype):
    config = transformers.BertConfig(
        **CONFIG, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation="eager"
    )
    model = transformers.BertForSequenceClassification(config).to(dtype)
    assert model.config._attn_implementation == "eager"
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            initial = torch.from_numpy(values(name, parameter.numel()).reshape(parameter.shape))
            parameter.copy_(initial.to(dtype))
    return model.train()


def encode(tensor):
    array = tensor.detach().numpy()
    data = base64.b64encode(numpy.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
    return {"shape": list(array.shape), "data": data.decode()}


def run(dtype, batch):
    """One forward and backward pass at the initial weights, then ten AdamW steps on the same batch."""
    model = make_model(dtype)
    mask = batch["attention_mask"].bool()
    result = model(**batch, output_hidden_states=True)
    result.loss.backward()
    pooled = model.bert.pooler(result.hidden_states[-1])
    golden = {
        "logits": encode(result.logits),
        "loss": result.loss.item(),
        "hiddenStates": [encode(states[mask]) for states in result.hidden_states],
        "pooled": encode(pooled),
        "gradients": {name: encode(parameter.grad) for name, parameter in model.named_parameters()},
    }

    model = make_model(dtype)
    exempt = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for name, p in model.named_parameters() if not (name.endswith("bias") or "LayerNorm" in name)]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": TRAINING["weightDecay"]},
            {"params": exempt, "weight_decay": 0.0},
        ],
        lr=TRAINING["learningRate"],
        betas=(TRAINING["beta1"], TRAINING["beta2"]),
        eps=TRAINING["epsilon"],
        foreach=False,
    )
    schedule = transformers.get_linear_schedule_with_warmup(
        optimizer, TRAINING["warmupSteps"], TRAINING["steps"]
    )
    losses, norms, rates = [], [], []
    for _ in range(TRAINING["steps"]):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), TRAINING["maxGradientNorm"]).item())
        losses.append(loss.item())
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    golden["training"] = {
        "losses": losses,
        "gradientNorms": norms,
        "learningRates": rates,
        "finalLogits": encode(model(**batch).logits),
        "finalParameters": {name: encode(parameter) for name, parameter in model.named_parameters()},
    }
    return golden


def versions():
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": numpy.__version__,
    }


def main():
    torch.set_num_threads(1)
    packed = make_batch()
    batch = pad(packed)
    parameters = []
    for name, parameter in make_model(torch.float32).named_parameters():
        initial = values(name, parameter.numel())
        parameters.append({
            "name": name,
            "shape": list(parameter.shape),
            "first": initial[:3].tolist(),
            "checksum": checksum(initial),
        })
    golden = {
        "versions": versions(),
        "config": CONFIG,
        "training": TRAINING,
        "batch": packed,
        "parameters": parameters,
        "float64": run(torch.float64, batch),
        "float32": run(torch.float32, batch),
    }
    OUTPUT.write_text(json.dumps(golden, indent=2) + "\n")
    print(OUTPUT.name, OUTPUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
