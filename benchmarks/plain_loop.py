"""nanoGPT's documented CPU recipe as a plain PyTorch loop without Clearstory: the baseline of time_to_quality.py.

    python benchmarks/plain_loop.py TEXT.txt[.gz] [--seed 1] [--steps 2000]

A character GPT-2 without biases (4 layers of width 128, 4 heads, context 64), batches of 12 random windows, AdamW with
PyTorch's fused kernels, learning rate 1e-3 with warm-up and cosine decay, gradients clipped, fp32.
Prints its loss over the whole last tenth of the text, in blocks of the context, as one JSON object.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, LAYERS, HEADS, CONTEXT, BATCH_SIZE = 128, 4, 4, 64, 12


class PlainBlock(nn.Module):
    """Pre-norm causal self-attention and a feed-forward layer four times as wide."""

    def __init__(self) -> None:
        super().__init__()
        self.first_norm, self.second_norm = (nn.LayerNorm(WIDTH, bias=False) for _ in range(2))
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)
        self.output = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, W) -> (B, T, W)."""
        heads = self.query_key_value(self.first_norm(x)).unflatten(-1, (3 * HEADS, WIDTH // HEADS)).transpose(1, 2)
        attended = F.scaled_dot_product_attention(*heads.chunk(3, 1), is_causal=True)
        x = x + self.output(attended.transpose(1, 2).flatten(2))
        out: Tensor = x + self.down(F.gelu(self.up(self.second_norm(x))))
        return out


class PlainDecoder(nn.Module):
    """GPT-2 with tied embeddings (Radford et al. 2019), initialised as there."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(PlainBlock() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                residual = name.endswith(("output.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * LAYERS) if residual else 0.02)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Mean loss in nats."""
        x = self.blocks(self.tokens(ids) + self.positions.weight[: ids.shape[1]])
        return F.cross_entropy(F.linear(self.norm(x), self.tokens.weight).flatten(0, 1), targets.flatten())


def main() -> None:
    """Train, evaluate, and print the loss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    opened = gzip.open if options.text.suffix == ".gz" else open
    with opened(options.text, "rt", encoding="utf-8") as file:
        text = file.read()
    number = {character: i for i, character in enumerate(sorted(set(text)))}
    ids = torch.tensor([number[character] for character in text])
    training, validation = ids[: int(0.9 * len(ids))], ids[int(0.9 * len(ids)) :]
    model = PlainDecoder(len(number))
    train(model, training, options.steps, np.random.default_rng(options.seed))
    print(json.dumps({"nats_per_token": evaluate(model, validation), "steps": options.steps}))


def train(model: PlainDecoder, ids: Tensor, steps: int, rng: np.random.Generator) -> None:
    """The recipe's training loop."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    gains = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
    for step in range(steps):
        progress = max(0.0, (step - 100) / (steps - 100))
        rate = min(1, (step + 1) / 100) * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * rate
        starts = rng.integers(0, len(ids) - CONTEXT, BATCH_SIZE)
        windows = ids[torch.from_numpy(starts[:, None] + np.arange(CONTEXT + 1))]
        model(windows[:, :-1], windows[:, 1:]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def evaluate(model: PlainDecoder, ids: Tensor) -> float:
    """Mean loss in nats of all predictions in blocks of the context."""
    total, count = 0.0, (len(ids) - 1) // CONTEXT
    blocks = ids[: count * CONTEXT].view(count, CONTEXT), ids[1 : count * CONTEXT + 1].view(count, CONTEXT)
    for inputs, targets in zip(*(each.split(256) for each in blocks), strict=True):
        total += float(model(inputs, targets)) * len(inputs)
    return total / count


if __name__ == "__main__":
    main()
