"""An LSTM and a 5-gram model on the words of WikiText-2: validation perplexity by CPU time.

    python benchmarks/lstm.py [--cpu-seconds 1800] [--folder runs/lstm] [--picture FILE.svg] [--awd-steps 100]

The LSTM is trained with an adaptive softmax and evaluated at every checkpoint with all words, its state kept from line
to line. The 5-gram model has modified Kneser-Ney smoothing and the same words. One thread. Then AWD-LSTM in its
published size is trained for --awd-steps steps, to test that its loss falls.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from common import data_file, print_result, run_clearstory

from clearstory.lens.rendering.render import save_view
from clearstory.lens.views import Curve, Line
from clearstory.training.metrics_log import read_metrics

PUBLISHED = {
    "AWD-LSTM (Merity et al. 2018, table 2)": 68.7,
    "interpolated Kneser-Ney 5-gram, one discount an order": 238.9,
}

MODEL_SETTINGS = (
    "--model.cutoffs",
    "2000",
    "--model.cutoffs",
    "10000",
    "--model.hidden_size",
    "384",
    "--model.width",
    "256",
)


def main() -> None:
    """Run the benchmark, draw the figures and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-seconds", type=float, default=1800)
    parser.add_argument("--folder", type=Path, default=Path("runs/lstm"))
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--evaluations", type=int, default=8)
    parser.add_argument("--awd-steps", type=int, default=100)
    args = parser.parse_args()
    train, valid = str(data_file("wikitext2/train.txt.gz")), str(data_file("wikitext2/valid.txt.gz"))
    common_settings = ("--tokenizer", "words", "--data.validation", "0.01", "--training.threads", "1")

    run = args.folder / "lstm"
    training = run_clearstory(
        "train", train, "--model", "lstm", *MODEL_SETTINGS, *common_settings,
        "--cpu-seconds", str(args.cpu_seconds), "--out", str(run),
        "--training.keep_checkpoints", "100", "--model.dropout", "0.1", "--resume",
    )  # fmt: skip
    times = {
        record["step"]: record["cpu_seconds"]
        for record in read_metrics(run / "metrics.jsonl")
        if record["kind"] == "evaluation"
    }
    steps = sorted(step for step in times if (run / "checkpoints" / f"step-{step:06d}").is_dir())
    chosen = [steps[round(index * (len(steps) - 1) / (args.evaluations - 1))] for index in range(args.evaluations)]
    points = []
    for step in dict.fromkeys(chosen):
        evaluation = run_clearstory("evaluate", str(run / "checkpoints" / f"step-{step:06d}"), valid)
        points.append({"step": step, "cpu_seconds": times[step], "perplexity": evaluation["perplexity"]})
        print(json.dumps(points[-1]), file=sys.stderr)

    ngram = run_clearstory(
        "train", train, "--model", "ngram", *common_settings, "--out", str(args.folder / "ngram"), "--overwrite"
    )
    ngram_perplexity = run_clearstory("evaluate", ngram["folder"], valid)["perplexity"]
    result: dict[str, Any] = {
        "text": "wikitext2, words",
        "lstm": {key: training[key] for key in ("parameters", "steps", "tokens", "cpu_seconds", "seconds")}
        | {"points": points},
        "ngram": {"perplexity": ngram_perplexity, "cpu_seconds": ngram["cpu_seconds"]},
        "published": PUBLISHED,
        "overtakes_at_cpu_seconds": crossing_cpu_seconds(points, ngram_perplexity),
    }
    if args.awd_steps:
        out = args.folder / "awd-lstm"
        awd = run_clearstory(
            "train", train, "--model", "awd-lstm", *common_settings, "--steps", str(args.awd_steps), "--out", str(out),
            "--overwrite", "--training.eval_tokens", "2000",
        )  # fmt: skip
        losses = [record["loss"] for record in read_metrics(out / "metrics.jsonl") if record["kind"] == "step"]
        result["awd-lstm"] = {
            "parameters": awd["parameters"], "steps": awd["steps"], "cpu_seconds": awd["cpu_seconds"],
            "losses": [round(losses[index], 3) for index in (0, len(losses) // 4, len(losses) // 2, -1)],
            "minutes_an_epoch": round(awd["cpu_seconds"] / 60 * 2_088_628 / awd["tokens"], 1),
        }  # fmt: skip
    if args.picture:
        save_view(plot(points, ngram_perplexity), args.picture)
    print_result(result)


def crossing_cpu_seconds(points: list[dict[str, Any]], ngram_perplexity: float) -> float | None:
    """CPU seconds at which the LSTM reaches the 5-gram model, interpolated in log time; None if it never does."""
    for before, after in pairwise(points):
        if before["perplexity"] > ngram_perplexity >= after["perplexity"]:
            a, b = (math.log(point["perplexity"]) for point in (before, after))
            share = (a - math.log(ngram_perplexity)) / (a - b)
            low, high = (math.log(point["cpu_seconds"]) for point in (before, after))
            return round(math.exp(low + share * (high - low)), 1)
    return None


def plot(points: list[dict[str, Any]], ngram_perplexity: float) -> Curve:
    """Perplexity by CPU time."""
    times = tuple(point["cpu_seconds"] for point in points)
    ends = (times[0], times[-1])
    return Curve(
        title="LSTM and 5-gram model on the words of WikiText-2",
        lines=(
            Line("LSTM", times, tuple(point["perplexity"] for point in points)),
            Line("5-gram model, modified Kneser-Ney", ends, (ngram_perplexity, ngram_perplexity)),
            Line("AWD-LSTM, published", ends, (68.7, 68.7), dashed=True),
        ),
        x_label="CPU seconds of training",
        y_label="validation perplexity",
        log_x=True,
        caption=f"The LSTM is better than the 5-gram model ({ngram_perplexity:.1f}) after "
        f"{crossing_cpu_seconds(points, ngram_perplexity)} CPU seconds.",
    )


if __name__ == "__main__":
    main()
