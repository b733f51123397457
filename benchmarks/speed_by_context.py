"""Training tokens per second by context length: an LSTM and a Transformer of the same size.

    python benchmarks/speed_by_context.py [--turns 5] [--pictures docs/pictures]

Forward and backward pass in fp32 on one thread, without the optimizer step, whose cost is the same for both. Two batch
sizes: 4,096 tokens per step at any context length, and a single sequence, where only the sequence itself can be
processed in parallel. Two model sizes: weights that fit in the cache of a core, and weights that do not. The loops run
alternately; numbers are medians over turns, in CPU time. Finally the wall-clock speedup by a second thread on a single
sequence. Results: results/parallel.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from common import print_result

from clearstory.lens.rendering.render import save_view
from clearstory.lens.views import Curve, Line
from clearstory.models.base import TokenBatch
from clearstory.models.build import build, count_parameters
from clearstory.models.recurrent.config import RecurrentConfig
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.presets import CLEAR

VOCAB = 256
"""A small vocabulary, so that the output layer, which both have, is a small part of the work."""

SMALL = replace(
    CLEAR, vocab=VOCAB, context=4096, width=128, layers=4, heads=2, kv_heads=2, head_dim=64, intermediate_size=352
)
LARGE = replace(SMALL, width=320, layers=6, heads=5, kv_heads=5, intermediate_size=864)

SIZES = {"small": (SMALL, (16, 64, 256, 1024, 4096)), "large": (LARGE, (64, 512, 4096))}
"""Config, and the context lengths it is measured at."""

TOKENS = 4096
MIN_SECONDS = 0.15
"""Minimum seconds of a turn."""


def main() -> None:
    """Run the benchmark, draw the figures and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--pictures", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = {name: measure_size(*size, args.turns, args.pictures, name) for name, size in SIZES.items()}
    print_result({"turns": args.turns, "sizes": results})


def measure_size(
    config: TransformerConfig, contexts: tuple[int, ...], turns: int, pictures: Path | None, name: str
) -> dict[str, Any]:
    """Training speed of both models of one size."""
    transformer = build(config, seed=1)
    models = {"Transformer": transformer, "LSTM": build(lstm_config(count_parameters(transformer)), seed=1)}
    points = []
    for context in contexts:
        for batch_size in sorted({1, TOKENS // context}):
            seconds = time_in_turns(
                {key: train_step(model, batch_size, context) for key, model in models.items()}, turns
            )
            points += [
                {
                    "model": key,
                    "context": context,
                    "rows": batch_size,
                    "tokens_per_cpu_second": round(batch_size * context / each),
                }
                for key, each in seconds.items()
            ]
            print(points[-2:], file=sys.stderr, flush=True)
    if pictures:
        save_view(plot(points, count_parameters(transformer)), pictures / f"training-speed-{name}.svg")
    return {
        "parameters": {key: count_parameters(model) for key, model in models.items()},
        "points": points,
        "attention_costs_as_much_as_the_rest_at": equal_cost_context(points),
        "second_thread": {key: second_thread(train_step(model, 1, 512), turns) for key, model in models.items()},
    }


def lstm_config(parameters: int) -> RecurrentConfig:
    """Config of two LSTM layers with the nearest turns of parameters."""
    configs = (
        RecurrentConfig(vocab=VOCAB, width=w, hidden_size=w, layers=2, tie_embeddings=False) for w in range(64, 1024, 2)
    )
    return min(configs, key=lambda config: abs(count_parameters(build(config, device="meta")) - parameters))


def train_step(model: Any, batch_size: int, context: int) -> Callable[[], None]:
    """A function that runs one forward and backward pass over random tokens."""
    ids = torch.randint(VOCAB, (batch_size, context + 1), generator=torch.Generator().manual_seed(1))
    tokens, targets = TokenBatch(ids[:, :-1].contiguous()), ids[:, 1:].contiguous()

    def forward_backward() -> None:
        model.zero_grad(set_to_none=True)
        nats, _ = model.token_nll(tokens, targets)
        nats.mean().backward()

    return forward_backward


def time_in_turns(loops: dict[str, Callable[[], None]], turns: int) -> dict[str, float]:
    """CPU seconds of one call of each loop, medians over turns."""
    repeats, seconds = {}, {name: list[float]() for name in loops}
    for name, loop in loops.items():
        # The first call warms up and determines the number of calls per turn.
        repeats[name] = max(1, round(MIN_SECONDS / cpu_seconds_per_call(loop, 1)))
    for _ in range(turns):
        for name, loop in loops.items():
            seconds[name].append(cpu_seconds_per_call(loop, repeats[name]))
    return {name: statistics.median(each) for name, each in seconds.items()}


def cpu_seconds_per_call(loop: Callable[[], None], repeats: int) -> float:
    """CPU seconds of one call."""
    started = time.process_time()
    for _ in range(repeats):
        loop()
    return (time.process_time() - started) / repeats


def second_thread(loop: Callable[[], None], turns: int) -> float:
    """Wall-clock speedup of two threads over one, the median over turns."""
    speedups = []
    for _ in range(turns + 1):
        seconds = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            loop()
            started = time.perf_counter()
            loop()
            seconds.append(time.perf_counter() - started)
        speedups.append(seconds[0] / seconds[1])
    torch.set_num_threads(1)
    return round(statistics.median(speedups[1:]), 2)


def line_points(points: list[dict[str, Any]], model: str, single: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Context lengths and tokens per second of one line of the plot."""
    pairs = [
        (float(p["context"]), float(p["tokens_per_cpu_second"]))
        for p in points
        if p["model"] == model and p["rows"] == (1 if single else TOKENS // p["context"])
    ]
    contexts, speeds = zip(*pairs, strict=True)
    return contexts, speeds


def equal_cost_context(points: list[dict[str, Any]]) -> int:
    """The context length at which attention costs as much as the rest of the Transformer.

    Time per token is r + q · context, since the cost of attention grows with the context (Vaswani et al. 2017, table
    1); r / q by least squares over full steps.
    """
    contexts, speeds = line_points(points, "Transformer", single=False)
    features = torch.tensor([[1.0, context] for context in contexts], dtype=torch.float64)
    times = torch.tensor([[1 / speed] for speed in speeds], dtype=torch.float64)
    rest, attention = torch.linalg.lstsq(features, times).solution[:, 0].tolist()
    return round(rest / attention)


def plot(points: list[dict[str, Any]], parameters: int) -> Curve:
    """Tokens per CPU second by context length: solid for full steps, dashed for a single sequence."""
    lines = []
    for name in ("Transformer", "LSTM"):
        lines.append(Line(f"{name}, {TOKENS:,} tokens per step", *line_points(points, name, single=False)))
        lines.append(Line(f"{name}, one sequence", *line_points(points, name, single=True), dashed=True))
    shortest = min(point["context"] for point in points)
    full = {name: line_points(points, name, single=False)[1] for name in ("Transformer", "LSTM")}
    return Curve(
        title=f"Training speed against context, {parameters / 1e6:.2f}M parameters, one thread",
        lines=tuple(lines),
        x_label="context, tokens",
        y_label="tokens per CPU second, forward and backward",
        log_x=True,
        caption=f"From {TOKENS // shortest} sequences of {shortest} tokens to one of {TOKENS:,}, the LSTM keeps "
        f"{full['LSTM'][-1] / full['LSTM'][0]:.0%} of its speed and the Transformer "
        f"{full['Transformer'][-1] / full['Transformer'][0]:.0%}.",
    )


if __name__ == "__main__":
    main()
