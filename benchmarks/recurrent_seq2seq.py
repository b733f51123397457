"""Training speed of the LSTM with additive attention beside a plain PyTorch loop of the same model, as JSON.

python benchmarks/recurrent_seq2seq.py [--rounds 5]

The plain loop is what one writes from the paper: torch's bidirectional LSTM over a packed source, an LSTMCell and
attention for each target token, and cross_entropy of all logits. Batches have the lengths of pairs of Multi30k in
subwords. Seconds are those of the process's CPU time, in alternating rounds; one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from common import machine_info
from torch import nn
from torch.nn import functional as F

from clearstory.evaluation.seq2seq import target_nll
from clearstory.models.base import IGNORE_INDEX, TokenBatch
from clearstory.models.build import build
from clearstory.models.families import PRESETS

VOCAB, BATCH, LONGEST = 6000, 128, 16


class PlainLoop(nn.Module):
    """Bahdanau's model with LSTMs as a loop of torch's modules."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, width)
        self.encoder = nn.LSTM(width, hidden // 2, bidirectional=True)
        self.cell = nn.LSTMCell(width + hidden, hidden)
        self.query, self.key = nn.Linear(hidden, width, bias=False), nn.Linear(hidden, width, bias=False)
        self.energy = nn.Linear(width, 1, bias=False)
        self.readout = nn.Linear(2 * hidden + width, width)

    def forward(self, source: TokenBatch, target: torch.Tensor) -> torch.Tensor:
        """Logits of every target token, (T, B, V)."""
        embedded = self.embedding(source.ids.t())
        packed = nn.utils.rnn.pack_padded_sequence(embedded, source.lengths, enforce_sorted=False)  # type: ignore[arg-type]
        out, (hidden, cell) = self.encoder(packed)
        values = nn.utils.rnn.pad_packed_sequence(out)[0].transpose(0, 1)
        keys, state = self.key(values), (hidden.transpose(0, 1).flatten(1), cell.transpose(0, 1).flatten(1))
        padding = torch.arange(keys.shape[1]) >= source.lengths[:, None]  # type: ignore[index]
        logits = []
        for y in self.embedding(target.t()):
            energies = self.energy(torch.tanh(keys + self.query(state[0])[:, None]))[..., 0]
            weights = energies.masked_fill(padding, -torch.inf).softmax(-1)
            context = torch.bmm(weights[:, None], values)[:, 0]
            state = self.cell(torch.cat([y, context], -1), state)
            readout = torch.tanh(self.readout(torch.cat([state[0], context, y], -1)))
            logits.append(F.linear(readout, self.embedding.weight))
        return torch.stack(logits)


def random_batch() -> SimpleNamespace:
    """Sources and targets of up to LONGEST random tokens."""
    generator = torch.Generator().manual_seed(0)

    def tokens() -> TokenBatch:
        lengths = torch.randint(LONGEST - 4, LONGEST + 1, (BATCH,), generator=generator)
        lengths[0] = LONGEST
        return TokenBatch(torch.randint(VOCAB, (BATCH, LONGEST), generator=generator), lengths)

    target = tokens()
    assert target.lengths is not None
    padding = torch.arange(LONGEST) >= target.lengths[:, None]
    return SimpleNamespace(tokens=target, targets=target.ids.masked_fill(padding, IGNORE_INDEX), source=tokens())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    batch = random_batch()
    count = int((batch.targets != IGNORE_INDEX).sum())
    config: Any = replace(PRESETS["lstm-attention"], vocab=VOCAB, dropout=0.0)  # type: ignore[type-var]
    plain = PlainLoop(config.width, config.hidden_size)

    def plain_step() -> None:
        logits = plain(batch.source, batch.tokens.ids).transpose(0, 1).flatten(0, 1)
        F.cross_entropy(logits, batch.targets.flatten(), label_smoothing=0.1).backward()
        plain.zero_grad()

    def step(name: str, dtype: torch.dtype | None) -> Callable[[], None]:
        model: Any = build(replace(PRESETS[name], vocab=VOCAB, dropout=0.0), seed=1)  # type: ignore[type-var]
        model.compute_dtype = dtype

        def run() -> None:
            (target_nll(model, batch, 0.1)[0] / count).backward()
            model.zero_grad()

        return run

    steps = {"plain loop, fp32": plain_step}
    for name in ("lstm-attention", "gru-attention", "luong", "lstm-seq2seq", "gru-seq2seq"):
        steps |= {f"{name}, fp32": step(name, None), f"{name}, bf16": step(name, torch.bfloat16)}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_index in range(arguments.rounds + 1):
        for name, run in steps.items():
            started = time.process_time()
            run()
            if round_index:  # the first warms up
                seconds[name].append(time.process_time() - started)
    speeds = {name: round(count / statistics.median(each)) for name, each in seconds.items()}
    ratios = {name: round(speed / speeds["plain loop, fp32"], 2) for name, speed in speeds.items()}
    print(
        json.dumps({"machine": machine_info(), "target_tokens_per_cpu_second": speeds, "ratio_to_plain_loop": ratios})
    )


if __name__ == "__main__":
    main()
