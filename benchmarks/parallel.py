"""Whether attention trains in parallel: training tokens/s against context, an LSTM beside a Transformer of its size.

    python benchmarks/parallel.py [--turns 5] [--pictures docs/pictures]

Forward and backward pass in fp32 on one thread, without the optimizer's step, which costs both the same. Two ways to
fill a step: 4,096 tokens whatever the context, so that there are fewer rows where they are longer; and a single row,
where nothing but the text itself can be worked on at once. Two sizes: one whose weights stay in a core's own cache,
and one whose do not. The loops take turns; figures are medians over turns, in processor time. Then, by the clock, what
a second thread adds on a single row.
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
from shared import show

from clearstory.lens.rendering.render import save_view
from clearstory.lens.views import Curve, Line
from clearstory.models.base import TokenBatch
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.build import build, count_parameters
from clearstory.models.transformer.presets import CLEAR
from clearstory.models.recurrent.config import RecurrentConfig

VOCAB = 256
"""Few, so that the unembedding, which both have, is a small part of the work."""

SMALL = replace(
    CLEAR, vocab=VOCAB, context=4096, width=128, layers=4, heads=2, kv_heads=2, head_dim=64, intermediate_size=352
)
LARGE = replace(SMALL, width=320, layers=6, heads=5, kv_heads=5, intermediate_size=864)

SIZES = {"small": (SMALL, (16, 64, 256, 1024, 4096)), "large": (LARGE, (64, 512, 4096))}
"""Shapes, and the contexts they are measured at."""

TOKENS = 4096
LEAST = 0.15
"""Seconds that a turn takes at least."""


def main() -> None:
    """Measure, draw, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--pictures", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = {name: measured(*size, args.turns, args.pictures, name) for name, size in SIZES.items()}
    show({"turns": args.turns, "sizes": results})


def measured(
    shape: TransformerConfig, contexts: tuple[int, ...], number: int, pictures: Path | None, name: str
) -> dict[str, Any]:
    """Both models of one size."""
    transformer = build(shape, seed=1)
    models = {"Transformer": transformer, "LSTM": build(equal(count_parameters(transformer)), seed=1)}
    points = []
    for context in contexts:
        for rows in sorted({1, TOKENS // context}):
            seconds = turns({key: step(model, rows, context) for key, model in models.items()}, number)
            points += [
                {"model": key, "context": context, "rows": rows, "tokens_per_cpu_second": round(rows * context / each)}
                for key, each in seconds.items()
            ]
            print(points[-2:], file=sys.stderr, flush=True)
    if pictures:
        save_view(plot(points, count_parameters(transformer)), pictures / f"training-speed-{name}.svg")
    return {
        "parameters": {key: count_parameters(model) for key, model in models.items()},
        "points": points,
        "attention_costs_as_much_as_the_rest_at": crossing(points),
        "second_thread": {key: second_thread(step(model, 1, 512), number) for key, model in models.items()},
    }


def equal(parameters: int) -> RecurrentConfig:
    """Two LSTM layers with about so many parameters."""
    shapes = (
        RecurrentConfig(vocab=VOCAB, width=w, hidden_size=w, layers=2, tie_embeddings=False) for w in range(64, 1024, 2)
    )
    return min(shapes, key=lambda shape: abs(count_parameters(build(shape, device="meta")) - parameters))


def step(model: Any, rows: int, context: int) -> Callable[[], None]:
    """One forward and backward pass over random tokens."""
    ids = torch.randint(VOCAB, (rows, context + 1), generator=torch.Generator().manual_seed(1))
    tokens, targets = TokenBatch(ids[:, :-1].contiguous()), ids[:, 1:].contiguous()

    def once() -> None:
        model.zero_grad(set_to_none=True)
        nats, _ = model.token_nll(tokens, targets)
        nats.mean().backward()

    return once


def turns(loops: dict[str, Callable[[], None]], number: int) -> dict[str, float]:
    """CPU seconds of one pass of each, medians over turns."""
    repeats, found = {}, {name: list[float]() for name in loops}
    for name, loop in loops.items():
        # The first pass warms up, and says how many a turn needs.
        repeats[name] = max(1, round(LEAST / timed(loop, 1)))
    for _ in range(number):
        for name, loop in loops.items():
            found[name].append(timed(loop, repeats[name]))
    return {name: statistics.median(each) for name, each in found.items()}


def timed(loop: Callable[[], None], repeats: int) -> float:
    """CPU seconds of one pass."""
    began = time.process_time()
    for _ in range(repeats):
        loop()
    return (time.process_time() - began) / repeats


def second_thread(loop: Callable[[], None], number: int) -> float:
    """How many times as fast two threads are as one, by the clock; the median over turns."""
    found = []
    for _ in range(number + 1):
        seconds = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            loop()
            began = time.perf_counter()
            loop()
            seconds.append(time.perf_counter() - began)
        found.append(seconds[0] / seconds[1])
    torch.set_num_threads(1)
    return round(statistics.median(found[1:]), 2)


def chosen(points: list[dict[str, Any]], model: str, single: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Contexts and tokens/s of one line."""
    own = [
        (float(p["context"]), float(p["tokens_per_cpu_second"]))
        for p in points
        if p["model"] == model and p["rows"] == (1 if single else TOKENS // p["context"])
    ]
    contexts, speeds = zip(*own, strict=True)
    return contexts, speeds


def crossing(points: list[dict[str, Any]]) -> int:
    """The context at which attention costs a Transformer as much as all else.

    Time per token is r + q · context, since attention's part grows with the context (Vaswani et al. 2017, table 1);
    r / q by least squares over full steps.
    """
    contexts, speeds = chosen(points, "Transformer", single=False)
    rows = torch.tensor([[1.0, context] for context in contexts], dtype=torch.float64)
    times = torch.tensor([[1 / speed] for speed in speeds], dtype=torch.float64)
    rest, attention = torch.linalg.lstsq(rows, times).solution[:, 0].tolist()
    return round(rest / attention)


def plot(points: list[dict[str, Any]], parameters: int) -> Curve:
    """Tokens per CPU second over the context: solid for full steps, dashed for a single row."""
    lines = []
    for name in ("Transformer", "LSTM"):
        lines.append(Line(f"{name}, {TOKENS:,} tokens per step", *chosen(points, name, single=False)))
        lines.append(Line(f"{name}, one sequence", *chosen(points, name, single=True), dashed=True))
    shortest = min(point["context"] for point in points)
    full = {name: chosen(points, name, single=False)[1] for name in ("Transformer", "LSTM")}
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
