"""Scaling law: bits per byte of four model sizes and four amounts of data, and the law fitted to them.

    python benchmarks/scaling_law.py [--folder runs/scaling] [--picture docs/pictures/scaling-law.svg]

Every run trains a new `clear` Transformer on D characters of corpus:kjv, each seen once, with a learning rate schedule
that ends with the run (as in Hoffmann et al. 2022), and evaluates it on the same held-out chapters. Finished runs in
the folder are not repeated. One thread. Results: results/scaling.json.

    L(N, D) = E + A / N^a + B / D^b          Hoffmann et al. 2022, eq. 2; Kaplan et al. 2020, eq. 1.5 has no E

N is the number of parameters, D the number of characters. The law is fitted as `clearstory compare --sizes` fits it
(Hoffmann et al. 2022, section D.2).
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

import numpy as np
import torch
from common import print_result

from clearstory.durable import write_text
from clearstory.evaluation.scaling_law import ScalingLaw, ScalingRun, bootstrap_scaling_law, fit_scaling_law
from clearstory.evaluation.windows import score_dataset
from clearstory.lens.rendering.render import save_view
from clearstory.lens.views import Curve, Line
from clearstory.models.base import inference_mode
from clearstory.models.build import build, count_parameters
from clearstory.models.prompts import bos_or_eos_token_id
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.presets import CLEAR
from clearstory.recipes.settings.training_presets import PRESET_TRAINING_SETTINGS
from clearstory.text.corpus import Corpus, train_corpus_tokenizer
from clearstory.training.objectives.causal import Causal
from clearstory.training.settings import TrainingSettings
from clearstory.training.trainer import Trainer

SIZES = ((1, 32), (2, 48), (3, 80), (4, 128))
"""Layers and width; each model is about four times as large as the previous one."""

AMOUNTS = (2**18, 2**19, 2**20, 2**21)
"""Training characters."""

CONTEXT, BATCH_SIZE = 128, 8
HELD_OUT = 200_000
"""Validation characters of every run."""

NAMES = ("E", "A", "a", "B", "b")


@dataclass(frozen=True)
class Point:
    """Size, data and result of one run."""

    parameters: int
    characters: int
    bits_per_byte: float
    cpu_seconds: float


def main() -> None:
    """Train the missing runs, fit the law, draw the figure and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/scaling"))
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    points = load_or_train_points(args.folder)
    law = law_of(points)
    corner = max(points, key=lambda point: (point.parameters, point.characters))
    small = [p for p in points if p.parameters < corner.parameters and p.characters < corner.characters]
    if args.picture:
        save_view(plot(points, law), args.picture)
    print_result(
        {
            "corpus": "corpus:kjv, characters",
            "context": CONTEXT,
            "points": [point.__dict__ for point in points],
            "law": law_coefficients(law),
            "residuals_percent": [round(100 * residual(law, point), 2) for point in points],
            "intervals": bootstrap_intervals(points, law),
            "without_one_run": leave_one_out_ranges(points),
            "corner_left_out": extrapolate(points, [corner]),
            "largest_left_out": extrapolate(points, [p for p in points if p not in small]),
            "without_E": {
                **law_coefficients(kaplan := law_of(points, irreducible=False)),
                "rms_percent": rms(kaplan, points),
            },
            "rms_percent": rms(law, points),
        }
    )


def load_or_train_points(folder: Path) -> list[Point]:
    """All runs; those missing in the folder are trained."""
    corpus = Corpus.open("corpus:kjv")
    tokenizer = train_corpus_tokenizer(corpus, "characters")
    datasets = corpus.encode(tokenizer)
    points = []
    for (layers, width), characters in itertools.product(SIZES, AMOUNTS):
        file = folder / f"{layers}x{width}-{characters}.json"
        if not file.is_file():
            config = model_config(layers, width, tokenizer.vocab)
            point = train_point(config, datasets, characters, bos_or_eos_token_id(tokenizer))
            folder.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps(point.__dict__) + "\n")
            print(point, file=sys.stderr, flush=True)
        points.append(Point(**json.loads(file.read_text())))
    return points


def model_config(layers: int, width: int, vocab: int) -> TransformerConfig:
    """A `clear` config with head_dim 16."""
    heads = width // 16
    return replace(
        CLEAR, vocab=vocab, context=CONTEXT, layers=layers, width=width, heads=heads, kv_heads=heads, head_dim=16,
        intermediate_size=round(8 / 3 * width / 16) * 16,
    )  # fmt: skip


def train_point(config: TransformerConfig, datasets: Any, characters: int, start_token_id: int | None) -> Point:
    """Train one model and evaluate it on the held-out chapters."""
    preset = {name.removeprefix("training."): value for name, value in PRESET_TRAINING_SETTINGS["clear"].items()}
    settings = TrainingSettings(
        **{**preset, "batch_size": BATCH_SIZE, "context": CONTEXT, "precision": "fp32", "seed": 1}
    )
    started = time.process_time()
    model = build(config, seed=1, initialization=settings.initialization)
    for _ in Trainer(model, Causal(), datasets["train"], settings, steps=characters // (CONTEXT * BATCH_SIZE)):
        pass
    cpu_seconds = time.process_time() - started
    model.compute_dtype = None
    with inference_mode(model):
        held_out = datasets["validation"].subsample(HELD_OUT)
        score = score_dataset(model, held_out, windows="blocks", start_token_id=start_token_id, batch_size=64)
    assert score.bits_per_byte is not None
    return Point(count_parameters(model), characters, score.bits_per_byte, round(cpu_seconds, 1))


def law_of(points: list[Point], irreducible: bool = True) -> ScalingLaw:
    """The law fitted to the points; without `irreducible`, E is zero."""
    return fit_scaling_law(scaling_runs(points), irreducible=irreducible)


def scaling_runs(points: list[Point]) -> list[ScalingRun]:
    """The points as runs; D is the number of characters."""
    return [ScalingRun(point.parameters, point.characters, point.bits_per_byte) for point in points]


def predict(law: ScalingLaw, point: Point) -> float:
    """Bits per byte predicted by the law."""
    return law.loss(point.parameters, point.characters)


def residual(law: ScalingLaw, point: Point) -> float:
    """Relative error of the law: measured over predicted loss, minus 1."""
    return point.bits_per_byte / predict(law, point) - 1


def rms(law: ScalingLaw, points: list[Point]) -> float:
    """Root mean square of the residuals, in percent."""
    return round(100 * (sum(residual(law, p) ** 2 for p in points) / len(points)) ** 0.5, 3)


def law_coefficients(law: ScalingLaw) -> dict[str, float]:
    """E, A, a, B and b of a law by name."""
    values = (law.E, law.A, law.alpha, law.B, law.beta)
    return dict(zip(NAMES, (round(each, 4) for each in values), strict=True))


def bootstrap_intervals(points: list[Point], law: ScalingLaw) -> dict[str, list[float]]:
    """The 95 % interval of each coefficient over laws fitted to losses drawn around the law."""
    drawn = [law_coefficients(each) for each in bootstrap_scaling_law(scaling_runs(points), law)]
    return {
        name: [round(float(end), 4) for end in np.percentile([each[name] for each in drawn], (2.5, 97.5))]
        for name in NAMES
    }


def leave_one_out_ranges(points: list[Point]) -> dict[str, list[float]]:
    """Minimum and maximum of each coefficient when any single run is left out."""
    laws = [law_coefficients(law_of([p for p in points if p is not left_out])) for left_out in points]
    return {name: [min(law[name] for law in laws), max(law[name] for law in laws)] for name in NAMES}


def extrapolate(points: list[Point], held_out: list[Point]) -> dict[str, Any]:
    """Predictions for held-out runs by the law fitted to the other runs."""
    law = law_of([point for point in points if point not in held_out])
    predictions = [
        {**p.__dict__, "foreseen": round(predict(law, p), 4), "off_percent": round(100 * residual(law, p), 2)}
        for p in held_out
    ]
    return {"law": law_coefficients(law), "runs": predictions}


def plot(points: list[Point], law: ScalingLaw) -> Curve:
    """Bits per byte by characters, one line per model size, and the law."""
    lines: list[Line] = []
    for size in sorted({point.parameters for point in points}):
        own = [point for point in points if point.parameters == size]
        x = tuple(float(point.characters) for point in own)
        lines.append(Line(f"{size:,} parameters", x, tuple(point.bits_per_byte for point in own)))
        lines.append(
            Line("law", x, tuple(predict(law, point) for point in own), dashed=True, same_color_as=lines[-1].name)
        )
    numbers = law_coefficients(law)
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
