"""Benchmark of model families: models of every family with the same CPU time on the same text, in bits per byte.

    python benchmarks/model_families.py [--texts kjv wikitext2] [--cpu-seconds 60 300] [--folder F] [--pictures F]

One thread. Each family has its default tokenizer; bits per byte are comparable across tokenizers, and the first n-gram
model reads the same subwords as the networks. wikitext2 is trained on its train.txt and evaluated on its valid.txt.
Comparisons that are in the folder are resumed: finished models are kept.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from common import data_file, print_result, run_clearstory

MODELS = ("ngram", "ngram:order=8@characters", "hmm", "rnn", "gru", "lstm", "clear", "gpt2", "recall", "mix")

RESULT_KEYS = (
    "model", "family", "summary", "tokenizer", "parameters", "bytes_on_disk", "cpu_seconds", "epochs",
    "tokens_per_second", "bits_per_byte", "interval", "generation_tokens_per_second", "note",
)  # fmt: skip


def main() -> None:
    """Run the comparisons and print their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", nargs="+", default=["kjv", "wikitext2"])
    parser.add_argument("--cpu-seconds", type=int, nargs="+", default=[60, 300])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--folder", type=Path, default=Path("runs/model-families"))
    parser.add_argument("--pictures", type=Path)
    args = parser.parse_args()
    comparisons = []
    for text in args.texts:
        sources = ["corpus:kjv"]
        if text == "wikitext2":
            sources = [str(data_file("wikitext2/train.txt.gz")), "--text", str(data_file("wikitext2/valid.txt.gz"))]
        for seconds in args.cpu_seconds:
            out = args.folder / f"{text}-{seconds}"
            leaderboard = run_clearstory(
                "compare", *sources, "--models", ",".join(args.models), "--cpu-seconds", str(seconds), "--threads", "1",
                "--out", str(out), "--resume",
            )  # fmt: skip
            models = [selected(model) for model in leaderboard["models"]]
            comparisons.append({"text": text, "cpu_seconds": seconds, "models": models})
            print(text, seconds, [(model["model"], model["bits_per_byte"]) for model in models], file=sys.stderr)
            if args.pictures:
                shutil.copy(out / "curves.svg", args.pictures / f"families-{text}-{seconds}.svg")
    print_result({"comparisons": comparisons})


def selected(model: dict[str, Any]) -> dict[str, Any]:
    """The values of a model that are kept."""
    return {key: model.get(key) for key in RESULT_KEYS}


if __name__ == "__main__":
    main()
