"""Golden outputs of a model folder whose decoder linears are int8 or int4, by the definition of docs/exactness.md.

    python quantised.py MODEL GOLDENS OUT --weights int8

NumPy alone. Prompts are the ids of the golden requests, taken as text (no image rows). Everything runs twice, with
norms, attention and products of activations in f32 and in f64; linears are as defined in both. Two engines that add in
another order differ as these two runs do: now and then an activation is rounded to the neighbouring integer. The
largest difference of a log-probability is kept as `difference`, twice of it is the tolerance. A request ends where its
best logit is ahead of the second by less than twice the tolerance, at the latest behind 12 tokens.
"""

import argparse
import json
from itertools import takewhile
from pathlib import Path

import numpy as np

GROUP = 32
UNIT = 64
LIMIT = 12
STORED = {"BF16": np.uint16, "F32": np.float32}
TOP = {"int8": 127, "int4": 7}
PREFIX = "language_model."


def load(path):
    """Stored tensors, rounded to bf16 and widened to f32."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    out = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        start, end = (8 + size + offset for offset in info["data_offsets"])
        out[name] = widen(np.frombuffer(data[start:end], STORED[info["dtype"]]), info["shape"])
    return out


def widen(stored, shape):
    bits = stored.astype(np.uint32) << 16
    if stored.dtype == np.float32:
        bits = stored.view(np.uint32)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32).reshape(shape)


def groups(x):
    """[…, K] → […, ⌈K / 32⌉, 32], zeros behind the last."""
    short = -x.shape[-1] % GROUP
    padded = np.concatenate([x, np.zeros((*x.shape[:-1], short), np.float32)], -1)
    return padded.reshape(*x.shape[:-1], -1, GROUP)


def integers(x, scale, top):
    """x / scale to the nearest, half to even; 0 where scale is."""
    safe = np.where(scale == 0, np.float32(1), scale)
    q = np.clip(np.rint(x / safe[..., None]), -top, top)
    return np.where(scale[..., None] == 0, 0, q).astype(np.int64)


class Linear:
    """One weight in lanes; `starts` are their first columns, then their number."""

    def __init__(self, weight, starts, kind):
        self.spans, self.lanes = list(zip(starts[:-1], starts[1:])), []
        top = TOP[kind]
        for start, end in self.spans:
            w = groups(weight[:, start:end])
            scale = (np.abs(w).max(-1) / np.float32(top)).astype(np.float16).astype(np.float32)
            self.lanes.append((integers(w, scale, top), scale))

    def __call__(self, x):
        """[rows, inputs] → [rows, outputs], f32."""
        x = x.astype(np.float32)
        sums = [self.lane(x[:, a:b], *lane) for (a, b), lane in zip(self.spans, self.lanes)]
        while len(sums) > 1:
            sums = [a + b for a, b in zip(sums[::2], sums[1::2])]
        return sums[0]

    @staticmethod
    def lane(x, q, scale):
        x = groups(x)
        sx = np.abs(x).max(-1) / np.float32(127)
        dots = np.einsum("rgk,ogk->gro", integers(x, sx, 127), q)
        acc = np.zeros(dots.shape[1:], np.float32)
        for g, dot in enumerate(dots):
            product = sx[:, None, g] * scale[None, :, g]
            # One rounding: f64 holds the product of two f32 exactly.
            acc = (dot * product.astype(np.float64) + acc).astype(np.float32)
        return acc


class Decoder:
    """The decoder of a model folder; `kind` of its linears, lm_head int8. One sequence with a cache."""

    def __init__(self, folder, kind, real):
        self.cfg = json.loads((folder / "config.json").read_text())["llm_config"]
        self.real = real
        self.w = load(folder / "model.safetensors")
        c = self.cfg
        self.heads, self.kv = c["num_attention_heads"], c["num_key_value_heads"]
        self.dim = c["hidden_size"] // self.heads
        self.lane_count = next(n for n in (8, 4, 2, 1) if self.kv % n == 0)
        self.layers = [self.layer(i, kind) for i in range(c["num_hidden_layers"])]
        head = self.w[PREFIX + "lm_head.weight"]
        self.lm_head = Linear(head, [0, head.shape[1]], "int8")

    def starts(self, count):
        units = -(-count // UNIT)
        lanes = self.lane_count
        return [min(count, i * units // lanes * UNIT) for i in range(lanes + 1)]

    def layer(self, index, kind):
        def get(part):
            return self.w[f"{PREFIX}model.layers.{index}.{part}"]

        hidden, wide = self.cfg["hidden_size"], self.cfg["intermediate_size"]
        heads = [i * self.heads // self.lane_count * self.dim for i in range(self.lane_count + 1)]
        qkv = [f"self_attn.{part}_proj." for part in "qkv"]
        both = [get(f"mlp.{part}_proj.weight") for part in ("gate", "up")]
        whole = [0, hidden]
        return {
            "norm1": get("input_layernorm.weight"),
            "norm2": get("post_attention_layernorm.weight"),
            "qkv": Linear(np.concatenate([get(p + "weight") for p in qkv]), whole, kind),
            "bias": np.concatenate([get(p + "bias") for p in qkv]),
            "o": Linear(get("self_attn.o_proj.weight"), heads, kind),
            "both": Linear(np.concatenate(both), whole, kind),
            "down": Linear(get("mlp.down_proj.weight"), self.starts(wide), kind),
        }

    def norm(self, x, weight):
        x = x.astype(self.real)
        scale = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + self.real(self.cfg["rms_norm_eps"]))
        return x * scale * weight

    def rotate(self, x, start):
        """[rows, heads, dim]"""
        frequency = np.float32(self.cfg["rope_theta"]) ** (
            -np.arange(0, self.dim, 2, dtype=np.float32) / np.float32(self.dim)
        )
        positions = np.arange(start, start + len(x), dtype=np.float32)
        angle = (positions[:, None] * frequency)[:, None].astype(self.real)
        a, b = np.split(x, 2, -1)
        cos, sin = np.cos(angle), np.sin(angle)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def attention(self, layer, x, cache):
        start = len(cache[0]) if cache else 0
        qkv = (layer["qkv"](x) + layer["bias"]).astype(self.real).reshape(len(x), -1, self.dim)
        q, k, v = np.split(qkv, [self.heads, self.heads + self.kv], 1)
        q, k = self.rotate(q, start), self.rotate(k, start)
        if cache:
            k, v = np.concatenate([cache[0], k]), np.concatenate([cache[1], v])
        cache[:] = [k, v]
        group = self.heads // self.kv
        k, v = k.repeat(group, 1), v.repeat(group, 1)
        scores = np.einsum("rhd,phd->hrp", q, k) * self.real(self.dim**-0.5)
        sees = np.arange(len(k))[None] <= (start + np.arange(len(x)))[:, None]
        scores = np.where(sees, scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights = weights / weights.sum(-1, keepdims=True)
        out = np.einsum("hrp,phd->rhd", weights, v).reshape(len(x), -1)
        return layer["o"](out)

    def logits(self, ids, caches):
        """Of the last id."""
        h = self.w[PREFIX + "model.embed_tokens.weight"][ids].astype(self.real)
        for layer, cache in zip(self.layers, caches):
            h = h + self.attention(layer, self.norm(h, layer["norm1"]), cache)
            gate, up = np.split(layer["both"](self.norm(h, layer["norm2"])).astype(self.real), 2, -1)
            h = h + layer["down"](gate / (1 + np.exp(-gate)) * up)
        return self.lm_head(self.norm(h[-1:], self.w[PREFIX + "model.norm.weight"]))[0]

    def greedy(self, ids):
        """→ ids, their log-probabilities, margins to the second."""
        caches = [[] for _ in self.layers]
        out, given = [], list(ids)
        while len(out) < LIMIT:
            logits = self.logits(given, caches).astype(np.float64)
            second, best = np.sort(logits)[-2:]
            choice = int(logits.argmax())
            total = best + np.log(np.exp(logits - best).sum())
            out.append((choice, float(logits[choice] - total), float(best - second)))
            given = [choice]
        return out


def record(golden, tokens, margin):
    sure = list(takewhile(lambda token: token[2] > margin, tokens))
    return {
        "name": golden["name"],
        "images": [],
        "turns": [],
        "prompt_ids": golden["prompt_ids"],
        "greedy_ids": [token[0] for token in sure],
        "logprobs": [token[1] for token in sure],
        "margin_min": min((token[2] for token in sure), default=None),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("goldens", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", choices=list(TOP), required=True)
    args = parser.parse_args()
    runs = [Decoder(args.model, args.weights, real) for real in (np.float32, np.float64)]
    records, difference = [], 0.0
    for golden in json.loads(args.goldens.read_text())["requests"]:
        narrow, wide = (run.greedy(golden["prompt_ids"]) for run in runs)
        same = list(takewhile(lambda pair: pair[0][0] == pair[1][0], zip(narrow, wide)))
        difference = max(difference, *(abs(a[1] - b[1]) for a, b in same))
        records.append((golden, [pair[1] for pair in same]))
    tolerance = 2 * difference
    kept = [record(golden, tokens, 2 * tolerance) for golden, tokens in records]
    kept = [one for one in kept if one["greedy_ids"]]
    header = {
        "model": args.model.name,
        "weights": args.weights,
        "arithmetic": "linears as defined, the rest in f64",
        "versions": {"numpy": np.__version__},
        "difference": difference,
        "tolerance": tolerance,
    }
    lines = ",\n".join("    " + json.dumps(one) for one in kept)
    head = json.dumps(header, indent=2)[:-2]
    args.out.write_text(head + ',\n  "requests": [\n' + lines + "\n  ]\n}\n")
    print(f"{len(kept)} of {len(records)} requests, difference {difference}")


if __name__ == "__main__":
    main()
