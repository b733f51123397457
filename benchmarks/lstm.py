"""An LSTM on the words of WikiText-2 beside the 5-gram: perplexity on its validation text against processor time.

    python benchmarks/lstm.py [--cpu-seconds 1800] [--folder runs/lstm] [--picture FILE.svg] [--awd-steps 100]

The LSTM learns with an adaptive softmax and is measured with the whole one, its memory carried from line to line, at
every checkpoint. The 5-gram is ours (modified Kneser-Ney), on the same words. One thread. Then AWD-LSTM in its
published shape takes so many steps, to see that it learns.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from shared import clearstory, data, show

from clearstory.lens.rendering.render import save_view
from clearstory.lens.views import Curve, Line
from clearstory.training.metrics_log import read_metrics

PUBLISHED = {
    "AWD-LSTM (Merity et al. 2018, table 2)": 68.7,
    "interpolated Kneser-Ney 5-gram, one discount an order": 238.9,
}

SHAPE = ("--model.cutoffs", "2000", "--model.cutoffs", "10000", "--model.hidden_size", "384", "--model.width", "256")


def main() -> None:
    """Measure, draw, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-seconds", type=float, default=1800)
    parser.add_argument("--folder", type=Path, default=Path("runs/lstm"))
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--looks", type=int, default=8)
    parser.add_argument("--awd-steps", type=int, default=100)
    args = parser.parse_args()
    train, valid = str(data("wikitext2/train.txt.gz")), str(data("wikitext2/valid.txt.gz"))
    words = ("--tokenizer", "words", "--data.validation", "0.01", "--training.threads", "1")

    run = args.folder / "lstm"
    said = clearstory(
        "train", train, "--model", "lstm", *SHAPE, *words, "--cpu-seconds", str(args.cpu_seconds), "--out", str(run),
        "--training.keep_checkpoints", "100", "--model.dropout", "0.1", "--resume",
    )  # fmt: skip
    times = {
        row["step"]: row["cpu_seconds"] for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "evaluation"
    }
    steps = sorted(step for step in times if (run / "checkpoints" / f"step-{step:06d}").is_dir())
    chosen = [steps[round(at * (len(steps) - 1) / (args.looks - 1))] for at in range(args.looks)]
    points = []
    for step in dict.fromkeys(chosen):
        found = clearstory("evaluate", str(run / "checkpoints" / f"step-{step:06d}"), valid)
        points.append({"step": step, "cpu_seconds": times[step], "perplexity": found["perplexity"]})
        print(json.dumps(points[-1]), file=sys.stderr)

    gram = clearstory("train", train, "--model", "ngram", *words, "--out", str(args.folder / "ngram"), "--overwrite")
    five = clearstory("evaluate", gram["folder"], valid)["perplexity"]
    result: dict[str, Any] = {
        "text": "wikitext2, words",
        "lstm": {key: said[key] for key in ("parameters", "steps", "tokens", "cpu_seconds", "seconds")}
        | {"points": points},
        "ngram": {"perplexity": five, "cpu_seconds": gram["cpu_seconds"]},
        "published": PUBLISHED,
        "overtakes_at_cpu_seconds": overtakes(points, five),
    }
    if args.awd_steps:
        out = args.folder / "awd-lstm"
        awd = clearstory(
            "train", train, "--model", "awd-lstm", *words, "--steps", str(args.awd_steps), "--out", str(out),
            "--overwrite", "--training.eval_tokens", "2000",
        )  # fmt: skip
        losses = [row["loss"] for row in read_metrics(out / "metrics.jsonl") if row["kind"] == "step"]
        result["awd-lstm"] = {
            "parameters": awd["parameters"], "steps": awd["steps"], "cpu_seconds": awd["cpu_seconds"],
            "losses": [round(losses[at], 3) for at in (0, len(losses) // 4, len(losses) // 2, -1)],
            "minutes_an_epoch": round(awd["cpu_seconds"] / 60 * 2_088_628 / awd["tokens"], 1),
        }  # fmt: skip
    if args.picture:
        save_view(plot(points, five), args.picture)
    show(result)


def overtakes(points: list[dict[str, Any]], five: float) -> float | None:
    """When the LSTM needs no more than the 5-gram, on a line of log time between two points; None for never."""
    for before, after in pairwise(points):
        if before["perplexity"] > five >= after["perplexity"]:
            a, b = (math.log(point["perplexity"]) for point in (before, after))
            share = (a - math.log(five)) / (a - b)
            low, high = (math.log(point["cpu_seconds"]) for point in (before, after))
            return round(math.exp(low + share * (high - low)), 1)
    return None


def plot(points: list[dict[str, Any]], five: float) -> Curve:
    """Perplexity over processor time."""
    times = tuple(point["cpu_seconds"] for point in points)
    ends = (times[0], times[-1])
    return Curve(
        title="LSTM and 5-gram model on the words of WikiText-2",
        lines=(
            Line("LSTM", times, tuple(point["perplexity"] for point in points)),
            Line("5-gram model, modified Kneser-Ney", ends, (five, five)),
            Line("AWD-LSTM, published", ends, (68.7, 68.7), dashed=True),
        ),
        x_label="CPU seconds of training",
        y_label="validation perplexity",
        log_x=True,
        caption=f"The LSTM is better than the 5-gram model ({five:.1f}) after {overtakes(points, five)} CPU seconds.",
    )


if __name__ == "__main__":
    main()
