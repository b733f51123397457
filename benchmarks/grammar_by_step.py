"""Grammar by model family and by training step: accuracy on twelve BLiMP sets at every kept checkpoint; prints one JSON
object.

    python benchmarks/grammar_by_step.py [--family transformer] [--cpu-seconds 240] [--pairs 200]
        [--folder runs/grammar] [--picture docs/pictures/grammar-by-step.svg]

Each family is trained on WikiText-2 with the same tokenizer settings and the same CPU time, one thread, and keeps
weights at steps 1, 2, 5, 12 … (training.weight_checkpoints). `clearstory evaluate --task probes` evaluates each of them
on the first pairs of each set; chance is 0.5. With --family only that one is trained and evaluated. Finished families
in the folder are not repeated, so the whole can be done in pieces. The interval of the mean over sets treats the sets
as fixed and pairs as drawn: 1.96 standard errors.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from common import DATA, data_file, print_result

import clearstory
from clearstory.lens.rendering.render import save_view
from clearstory.lens.views import Curve, Line

FAMILIES = {"ngram": "ngram", "lstm": "lstm", "transformer": "clear"}
"""Families and their presets."""


def main() -> None:
    """Train, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=FAMILIES)
    parser.add_argument("--cpu-seconds", type=float, default=240)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=Path("runs/grammar"))
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for family in [given.family] if given.family else FAMILIES:
        result = given.folder / f"{family}.json"
        if not result.is_file():
            measured = measure(family, given.folder, given.cpu_seconds, given.pairs)
            result.write_text(json.dumps(measured), encoding="utf-8")
    measured = {
        family: json.loads((given.folder / f"{family}.json").read_text(encoding="utf-8"))
        for family in FAMILIES
        if (given.folder / f"{family}.json").is_file()
    }
    if given.picture:
        save_view(plot(measured), given.picture)
    print_result({"text": "WikiText-2, train", "pairs_of_each_set": given.pairs, "families": measured})


def measure(family: str, folder: Path, cpu_seconds: float, pairs: int) -> dict[str, Any]:
    """Train a model of a family, and evaluate it at every kept checkpoint."""
    text, probes, run = folder / "wikitext2.txt", folder / "probes", folder / family
    if not text.is_file():
        text.write_bytes(gzip.decompress(data_file("wikitext2/train.txt.gz").read_bytes()))
    write_probes(probes)
    shutil.rmtree(run, ignore_errors=True)
    started = time.process_time()
    clearstory.train(
        text,
        model=FAMILIES[family],
        cpu_seconds=cpu_seconds,
        out=run,
        training={"threads": 1, "weight_checkpoints": 12},
    )
    spent = time.process_time() - started
    checkpoints = sorted((run / "checkpoints").iterdir(), key=step_of)
    steps = {step_of(each): each for each in checkpoints if step_of(each)}
    return {
        "model": FAMILIES[family],
        "cpu_seconds": round(spent, 1),
        "checkpoints": [{"step": step, **scores(checkpoint, probes, pairs)} for step, checkpoint in steps.items()],
        "model_folder": scores(run / "model", probes, pairs),
    }


def step_of(checkpoint: Path) -> int:
    """The step of a checkpoint by its folder's name."""
    return int(checkpoint.name.rpartition("-")[2])


def write_probes(folder: Path) -> None:
    """A folder with the twelve sets as files of the probe "grammar"."""
    if not folder.is_dir():
        folder.mkdir(parents=True)
        for file in sorted((DATA / "blimp").glob("*_*.jsonl.gz")):
            (folder / f"grammar-{file.name.removesuffix('.gz')}").write_bytes(gzip.decompress(file.read_bytes()))


def scores(model: Path, probes: Path, pairs: int) -> dict[str, Any]:
    """Accuracy on each set with its bootstrap interval, and the mean over sets."""
    found = clearstory.evaluate(model, task="probes", probe_files=probes, limit=pairs)
    sets = {
        each.name.removeprefix("grammar-").removesuffix(".jsonl"): {"accuracy": each.value, "interval": each.interval}
        for each in found.scores
    }
    accuracies = [each.value for each in found.scores]
    mean = math.fsum(accuracies) / len(accuracies)
    variance = math.fsum(each * (1 - each) / pairs for each in accuracies) / len(accuracies) ** 2
    half = 1.96 * math.sqrt(variance)
    return {"mean": round(mean, 4), "mean_interval": [round(mean - half, 4), round(mean + half, 4)], "sets": sets}


def plot(measured: dict[str, Any]) -> Curve:
    """The mean accuracy by training step, a line for each family; of n-gram models the step is the order."""
    lines = []
    for family, values in measured.items():
        points = values["checkpoints"]
        steps, means = [float(each["step"]) for each in points], [each["mean"] for each in points]
        lines.append(Line(family, tuple(steps), tuple(means)))
    longest = max(step for line in lines for step in line.x)
    lines.append(Line("chance", (1.0, longest), (0.5, 0.5), dashed=True))
    return Curve(
        title="Grammar by training step: twelve BLiMP sets",
        lines=tuple(lines),
        x_label="training step; of the n-gram model, the order",
        y_label="accuracy, mean over sets",
        log_x=True,
    )


if __name__ == "__main__":
    main()
