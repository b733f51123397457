"""The ladder: models of every family under the same processor time on the same text, in bits per byte.

    python benchmarks/ladder.py [--texts kjv wikitext2] [--cpu-seconds 60 300] [--folder F] [--pictures F]

One thread. Each family has its usual tokenizer, so bits per byte make it fair; the first row of n-grams reads the same
subwords as the networks. wikitext2 learns from its train.txt and is measured on its valid.txt. Comparisons that are in
the folder are gone on with: what is finished is kept.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from shared import clearstory, data, show

MODELS = ("ngram", "ngram:order=8@characters", "hmm", "rnn", "gru", "lstm", "clear", "gpt2", "recall")

KEPT = (
    "model", "family", "shape", "tokenizer", "parameters", "bytes_on_disk", "cpu_seconds", "passes",
    "tokens_per_second", "bits_per_byte", "interval", "generation_tokens_per_second", "note",
)  # fmt: skip


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", nargs="+", default=["kjv", "wikitext2"])
    parser.add_argument("--cpu-seconds", type=int, nargs="+", default=[60, 300])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--folder", type=Path, default=Path("runs/ladder"))
    parser.add_argument("--pictures", type=Path)
    args = parser.parse_args()
    ladders = []
    for text in args.texts:
        where = ["corpus:kjv"]
        if text == "wikitext2":
            where = [str(data("wikitext2/train.txt.gz")), "--text", str(data("wikitext2/valid.txt.gz"))]
        for seconds in args.cpu_seconds:
            out = args.folder / f"{text}-{seconds}"
            said = clearstory(
                "compare", *where, "--models", ",".join(args.models), "--cpu-seconds", str(seconds), "--threads", "1",
                "--out", str(out), "--resume",
            )  # fmt: skip
            ladders.append({"text": text, "cpu_seconds": seconds, "models": [short(row) for row in said["models"]]})
            print(text, seconds, [(row["model"], row["bits_per_byte"]) for row in said["models"]], file=sys.stderr)
            if args.pictures:
                shutil.copy(out / "curves.svg", args.pictures / f"ladder-{text}-{seconds}.svg")
    show({"ladders": ladders})


def short(row: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a model."""
    return {key: row.get(key) for key in KEPT}


if __name__ == "__main__":
    main()
