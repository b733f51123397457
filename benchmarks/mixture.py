"""Benchmark of the mixture: beside its experts alone and without its cache, with the same CPU time on the same text.

    python benchmarks/mixture.py [--text kjv] [--cpu-seconds 60] [--models M ...] [--folder F]

One thread. wikitext2 is trained on its train.txt and evaluated on its valid.txt. A comparison that is in the folder is
resumed: finished models are kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import data_file, print_result, run_clearstory

MODELS = ("ngram", "clear", "mix")
KEYS = ("model", "summary", "tokenizer", "cpu_seconds", "epochs", "bits_per_byte", "interval", "note")


def main() -> None:
    """Run the comparison and print its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", choices=("kjv", "wikitext2"), default="kjv")
    parser.add_argument("--cpu-seconds", type=int, default=60)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--folder", type=Path, default=Path("runs/mixture"))
    args = parser.parse_args()
    sources = ["corpus:kjv"]
    if args.text == "wikitext2":
        sources = [str(data_file("wikitext2/train.txt.gz")), "--text", str(data_file("wikitext2/valid.txt.gz"))]
    leaderboard = run_clearstory(
        "compare", *sources, "--models", ",".join(args.models), "--cpu-seconds", str(args.cpu_seconds), "--threads",
        "1", "--out", str(args.folder / f"{args.text}-{args.cpu_seconds}"), "--resume",
    )  # fmt: skip
    models = [{key: model.get(key) for key in KEYS} for model in leaderboard["models"]]
    trained = {each["model"]: each["bits_per_byte"] for each in models if each["bits_per_byte"] is not None}
    alone = min((bits for name, bits in trained.items() if not name.startswith("mix")), default=None)
    below = {"best_alone": alone, "mix": trained.get("mix")}
    if alone is not None and "mix" in trained:
        below["below_percent"] = 100 * (1 - trained["mix"] / alone)
    print_result({"text": args.text, "cpu_seconds": args.cpu_seconds, **below, "models": models})


if __name__ == "__main__":
    main()
