"""Scale, shown: bits per byte over four sizes and four amounts of data, and the law that is fitted to them.

    python benchmarks/scaling.py [--folder runs/scaling] [--picture docs/pictures/scaling-law.svg]

Every run is one of its own: a `clear` Transformer over characters reads D characters of corpus:kjv once, none twice,
under a schedule that ends where the run ends (Hoffmann et al. 2022 say why), and is measured on the same held-out
chapters. Runs that are in the folder are not trained again. One thread.

    L(N, D) = E + A / N^a + B / D^b          Hoffmann et al. 2022, eq. 2; Kaplan et al. 2020, eq. 1.5 has no E

N counts the numbers that are learnt, D the characters read. The law is fitted by least squares between the
logarithms of measured and foreseen losses, from many beginnings (Hoffmann et al. 2022, section D.2, with squares where
they have Huber's loss).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from shared import show

from clearstory.durable import write_text
from clearstory.lens.rendering.render import save_view
from clearstory.lens.views import Curve, Line
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.build import build, count_parameters
from clearstory.models.transformer.presets import CLEAR
from clearstory.models.base import inference_mode
from clearstory.models.prompts import bos_or_eos_token_id
from clearstory.evaluation.windows import score_dataset
from clearstory.recipes.settings.training_presets import PRESET_TRAINING_SETTINGS
from clearstory.text.corpus import Corpus, train_corpus_tokenizer
from clearstory.training.objectives.causal import Causal
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import Trainer

SHAPES = ((1, 32), (2, 48), (3, 80), (4, 128))
"""Layers and width, each about four times as large as the one before."""

AMOUNTS = (2**18, 2**19, 2**20, 2**21)
"""Characters read."""

CONTEXT, ROWS = 128, 8
HELD_OUT = 200_000
"""Characters of the validation split that every run is measured on."""

NAMES = ("E", "A", "a", "B", "b")


@dataclass(frozen=True)
class Point:
    """One run: what it had, and what it reached."""

    parameters: int
    characters: int
    bits_per_byte: float
    cpu_seconds: float


def main() -> None:
    """Train what is missing, fit, draw, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/scaling"))
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    points = grid(args.folder)
    whole = fit(points)
    corner = max(points, key=lambda point: (point.parameters, point.characters))
    small = [p for p in points if p.parameters < corner.parameters and p.characters < corner.characters]
    if args.picture:
        save_view(plot(points, whole), args.picture)
    show(
        {
            "corpus": "corpus:kjv, characters",
            "context": CONTEXT,
            "points": [point.__dict__ for point in points],
            "law": told(whole),
            "residuals_percent": [round(100 * residual(whole, point), 2) for point in points],
            "without_one_run": spread(points),
            "corner_left_out": foretold(points, [corner]),
            "largest_left_out": foretold(points, [p for p in points if p not in small]),
            "without_E": {**told(kaplan := fit(points, bottom=False)), "rms_percent": rms(kaplan, points)},
            "rms_percent": rms(whole, points),
        }
    )


def grid(folder: Path) -> list[Point]:
    """Every run, from the folder where it is there."""
    corpus = Corpus.open("corpus:kjv")
    tokenizer = train_corpus_tokenizer(corpus, "characters")
    rows = corpus.encode(tokenizer)
    points = []
    for (layers, width), characters in itertools.product(SHAPES, AMOUNTS):
        file = folder / f"{layers}x{width}-{characters}.json"
        if not file.is_file():
            shape = shaped(layers, width, tokenizer.vocab)
            point = trained(shape, rows, characters, bos_or_eos_token_id(tokenizer))
            folder.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps(point.__dict__) + "\n")
            print(point, file=sys.stderr, flush=True)
        points.append(Point(**json.loads(file.read_text())))
    return points


def shaped(layers: int, width: int, vocab: int) -> TransformerConfig:
    """`clear` with heads of 16 numbers."""
    heads = width // 16
    return replace(
        CLEAR, vocab=vocab, context=CONTEXT, layers=layers, width=width, heads=heads, kv_heads=heads, head_dim=16,
        intermediate_size=round(8 / 3 * width / 16) * 16,
    )  # fmt: skip


def trained(shape: TransformerConfig, rows: Any, characters: int, begin: int | None) -> Point:
    """One run, measured on the held-out chapters."""
    own = {name.removeprefix("training."): value for name, value in PRESET_TRAINING_SETTINGS["clear"].items()}
    settings = TrainingSettings(**{**own, "batch_size": ROWS, "context": CONTEXT, "precision": "fp32", "seed": 1})
    began = time.process_time()
    model = build(shape, seed=1, initialization=settings.initialization)
    for _ in Trainer(model, Causal(), rows["train"], settings, steps=characters // (CONTEXT * ROWS)):
        pass
    took = time.process_time() - began
    model.compute_dtype = None
    with inference_mode(model):
        held_out = rows["validation"].subsample(HELD_OUT)
        score = score_dataset(model, held_out, windows="blocks", start_token_id=begin, batch_size=64)
    assert score.bits_per_byte is not None
    return Point(count_parameters(model), characters, score.bits_per_byte, round(took, 1))


Law = torch.Tensor
"""(5,) in float64: the logarithms of E, A and B, and the exponents, in the order of NAMES."""


def foresee(law: Law, parameters: torch.Tensor, characters: torch.Tensor) -> torch.Tensor:
    """The logarithm of L(N, D)."""
    e, a, alpha, b, beta = law
    terms = (e.expand(parameters.shape), a - alpha * parameters.log(), b - beta * characters.log())
    return torch.logsumexp(torch.stack(terms), 0)


def fit(points: list[Point], bottom: bool = True) -> Law:
    """The law nearest to the points; without `bottom`, E is nothing."""
    sizes, amounts, bits = columns(points)
    best: tuple[float, Law] | None = None
    for e, a, b in itertools.product((-1.0, 0.3), (0.2, 0.6), (0.2, 0.6)):
        law = torch.tensor([e, a * 12.0, a, b * 13.0, b], dtype=torch.float64)
        free = law.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([free], max_iter=2000, tolerance_grad=1e-12, tolerance_change=1e-14,
                                      line_search_fn="strong_wolfe")  # fmt: skip

        def whole(free: torch.Tensor = free) -> torch.Tensor:
            return free if bottom else torch.cat((free.new_full((1,), -40.0), free[1:]))

        def miss(optimizer: torch.optim.LBFGS = optimizer, whole: Any = whole) -> torch.Tensor:
            optimizer.zero_grad()
            error = (foresee(whole(), sizes, amounts) - bits.log()).square().sum()
            error.backward()  # type: ignore[no-untyped-call]
            return error

        optimizer.step(miss)
        error = float(miss())
        if best is None or error < best[0]:
            best = (error, whole().detach().clone())
    assert best is not None
    return best[1]


def columns(points: list[Point]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sizes, amounts and bits, each (P,)."""
    rows = [[float(p.parameters), float(p.characters), p.bits_per_byte] for p in points]
    sizes, amounts, bits = torch.tensor(rows, dtype=torch.float64).unbind(1)
    return sizes, amounts, bits


def value(law: Law, point: Point) -> float:
    """The bits per byte that the law foresees."""
    sizes, amounts, _ = columns([point])
    return float(foresee(law, sizes, amounts).exp())


def residual(law: Law, point: Point) -> float:
    """By what share the measured loss is above what the law foresees."""
    return point.bits_per_byte / value(law, point) - 1


def rms(law: Law, points: list[Point]) -> float:
    """Root mean square of the residuals, in percent."""
    return round(100 * (sum(residual(law, p) ** 2 for p in points) / len(points)) ** 0.5, 3)


def told(law: Law) -> dict[str, float]:
    """The law in plain numbers."""
    e, a, alpha, b, beta = law.tolist()
    numbers = (torch.tensor([e, a, b]).exp()).tolist()
    return dict(zip(NAMES, (round(n, 4) for n in (numbers[0], numbers[1], alpha, numbers[2], beta)), strict=True))


def spread(points: list[Point]) -> dict[str, list[float]]:
    """Lowest and highest of each number when any single run is left out: how far the law hangs on one of them."""
    laws = [told(fit([p for p in points if p is not left_out])) for left_out in points]
    return {name: [min(law[name] for law in laws), max(law[name] for law in laws)] for name in NAMES}


def foretold(points: list[Point], held_out: list[Point]) -> dict[str, Any]:
    """What the law fitted to the other runs says of these, beside what was measured."""
    law = fit([point for point in points if point not in held_out])
    said = [
        {**p.__dict__, "foreseen": round(value(law, p), 4), "off_percent": round(100 * residual(law, p), 2)}
        for p in held_out
    ]
    return {"law": told(law), "runs": said}


def plot(points: list[Point], law: Law) -> Curve:
    """Bits per byte over characters, a line for each size and the law beside it."""
    lines: list[Line] = []
    for size in sorted({point.parameters for point in points}):
        own = [point for point in points if point.parameters == size]
        x = tuple(float(point.characters) for point in own)
        lines.append(Line(f"{size:,} parameters", x, tuple(point.bits_per_byte for point in own)))
        lines.append(
            Line("law", x, tuple(value(law, point) for point in own), dashed=True, same_color_as=lines[-1].name)
        )
    numbers = told(law)
    return Curve(
        title="Scaling law: characters of the King James Bible",
        lines=tuple(lines),
        x_label="training characters, one epoch",
        y_label="validation bits per byte",
        log_x=True,
        caption=f"Dashed: fitted law L = {numbers['E']:.2f} + {numbers['A']:,.1f}/N^{numbers['a']:.2f} + "
        f"{numbers['B']:,.0f}/D^{numbers['b']:.2f}; root mean square error on these 16 runs {rms(law, points):.1f}%.",
    )


if __name__ == "__main__":
    main()
