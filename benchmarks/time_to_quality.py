"""CPU time to a given loss on the characters of tinyshakespeare: whole processes on one thread, run alternately.

    python benchmarks/time_to_quality.py [--seeds 3] [--all]

The baseline is nanoGPT's documented CPU recipe (4 layers of width 128, context 64, 2,000 steps of batch size 12, AdamW)
in fp32 as a plain PyTorch loop, plain_loop.py; --all adds the same recipe as the preset `nanogpt-char`. Every run ends
with an evaluation of the whole last tenth of the text, in blocks of its context as in nanoGPT: no token has context
from before its block. Sizes, learning rates and steps of `clear` and `recall` were chosen on state-of-the-union, not on
this text.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import data_file, print_result, run_clearstory, run_process

ONE_EVALUATION = (
    *("--training.eval_steps", "100000", "--training.save_steps", "100000"),
    *("--training.weight_checkpoints", "0"),  # else twelve copies of the model are kept to watch it learn
)

RUNS: dict[str, tuple[str, ...]] = {
    "nanogpt-char": ("--model", "nanogpt-char", "--steps", "2000", "--training.precision", "fp32"),
    "clear": (
        *("--model", "clear", "--tokenizer", "characters", "--model.layers", "2", "--model.width", "128"),
        *("--model.heads", "4", "--model.head_dim", "32", "--model.kv_heads", "1"),
        *("--model.intermediate_size", "256", "--model.context", "64"),
        *("--training.batch_size", "12", "--steps", "350"),
    ),
    "recall, shortest": ("--model", "recall", "--steps", "60"),  # the only one that was chosen on this text: under 1.90
    "recall, fast": ("--model", "recall", "--steps", "250"),
    "recall, one pass": ("--model", "recall", "--steps", "980"),
}
ONLY_WITH_ALL = ("nanogpt-char", "recall, one pass")
BASELINE = "plain loop"


def main() -> None:
    """Run the benchmark and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="a seed takes three minutes")
    parser.add_argument(
        "--all", action="store_true", help="the preset nanogpt-char and recall over the whole text, too"
    )
    parser.add_argument("--text", help="text file to use in place of tinyshakespeare")
    options = parser.parse_args()
    names = [BASELINE, *(name for name in RUNS if options.all or name not in ONLY_WITH_ALL)]
    text = options.text or str(data_file("tinyshakespeare/input.txt.gz"))
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, options.seeds + 1):
            for name in names:
                measured = run_plain_loop(text, seed) if name == BASELINE else run_train(name, text, seed, folder)
                results[name].append(measured)
                print(f"{name}: {measured}", file=sys.stderr)
    base = results[BASELINE]
    summary = {
        name: {
            "nats": [round(run["nats"], 4) for run in runs],
            "cpu_seconds": [run["cpu_seconds"] for run in runs],
            "share_of_baseline": round(
                statistics.median(r["cpu_seconds"] / b["cpu_seconds"] for r, b in zip(runs, base, strict=True)), 4
            ),
        }
        for name, runs in results.items()
    }
    print_result(
        {"text": Path(text).name, "evaluated": "whole last tenth, in blocks", "summary": summary, "runs": results}
    )


def run_plain_loop(text: str, seed: int) -> dict[str, Any]:
    """Loss and resource usage of the baseline."""
    script = str(Path(__file__).with_name("plain_loop.py"))
    output, process = run_process([sys.executable, script, text, "--seed", str(seed)])
    return {"seed": seed, "nats": json.loads(output)["nats_per_token"], **process}


def run_train(name: str, text: str, seed: int, folder: str) -> dict[str, Any]:
    """Loss and resource usage of `clearstory train` with the arguments of one of RUNS."""
    out = Path(folder) / f"{name}-{seed}".replace(", ", "-").replace(" ", "-")
    run = run_clearstory(
        *("train", text, *RUNS[name], *ONE_EVALUATION, "--training.seed", str(seed), "--out", str(out)),
        *("--training.threads", "1", "--data.cache", folder),
    )
    return {"seed": seed, "nats": run["nats_per_token"], "training_cpu_seconds": run["cpu_seconds"], **run["process"]}


if __name__ == "__main__":
    main()
