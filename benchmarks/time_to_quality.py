"""How soon a character model of tinyshakespeare is good, whole processes on one thread, turn and turn about.

    python benchmarks/time_to_quality.py [--seeds 3]

The baseline is nanoGPT's documented recipe for a processor (4 layers of width 128, context 64, 2,000 steps of 12
rows, AdamW) in fp32, as `nanogpt-char` here. Every run ends with the whole last tenth of the text, in blocks of its
context as nanoGPT evaluates: no token sees further back than its block. Shapes, rates and steps of `clear` and
`recall` were chosen on presidents' addresses (state-of-the-union), not on this text.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from shared import clearstory, data, show

ONE_LOOK = ("--training.eval_steps", "100000", "--training.save_steps", "100000")

RUNS: dict[str, tuple[str, ...]] = {
    "nanogpt-char": ("--model", "nanogpt-char", "--steps", "2000", "--training.precision", "fp32"),
    "clear": (
        *("--model", "clear", "--tokenizer", "characters", "--model.layers", "2", "--model.width", "128"),
        *("--model.heads", "8", "--model.kv_heads", "1", "--model.intermediate_size", "256", "--model.context", "64"),
        *("--training.batch_size", "12", "--steps", "350"),
    ),
    "recall, fast": ("--model", "recall", "--steps", "250"),
    "recall, one pass": ("--model", "recall", "--steps", "980"),
}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--text", help="another text than tinyshakespeare")
    seeds = range(1, parser.parse_args().seeds + 1)
    text = parser.parse_args().text or str(data("tinyshakespeare/input.txt.gz"))
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            for name, words in RUNS.items():
                out = Path(folder) / f"{name}-{seed}".replace(", ", "-").replace(" ", "-")
                run = clearstory(
                    *("train", text, *words, *ONE_LOOK, "--training.seed", str(seed), "--out", str(out)),
                    *("--training.threads", "1", "--data.cache", folder),
                )
                process = run["process"]
                found[name].append(
                    {"seed": seed, "nats": run["nats_per_token"], "training_cpu_seconds": run["cpu_seconds"], **process}
                )
                print(f"{name}, seed {seed}: {run['nats_per_token']:.4f} nats, {process}", file=sys.stderr)
    base = found["nanogpt-char"]
    summary = {
        name: {
            "nats": [round(run["nats"], 4) for run in runs],
            "cpu_seconds": [run["cpu_seconds"] for run in runs],
            "share_of_baseline": round(
                statistics.median(r["cpu_seconds"] / b["cpu_seconds"] for r, b in zip(runs, base, strict=True)), 4
            ),
        }
        for name, runs in found.items()
    }
    show({"text": Path(text).name, "evaluated": "whole last tenth, in blocks", "summary": summary, "runs": found})


if __name__ == "__main__":
    main()
