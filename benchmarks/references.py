"""Reference curves that ship with the package: `clear` on corpus:kjv, bits per byte against tokens, a band over seeds.

    python benchmarks/references.py [--seeds 3] [--minutes 3] [--alone] [--write]

With --write the band goes to src/clearstory/recipes/training/references/. All cores, one run after another; with --alone one
thread takes the processor time that all cores have in those minutes, for machines that are shared.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from shared import clearstory, show

HERE = Path(__file__).parent.parent / "src" / "clearstory" / "recipes" / "training" / "references"


def main() -> None:
    """Train, put the curves together, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--alone", action="store_true", help="one thread, for the same processor time")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    cores, curves, ends = os.cpu_count() or 1, [], []
    budget = ("--cpu-seconds", str(args.minutes * cores * 60)) if args.alone else ("--minutes", str(args.minutes))
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, args.seeds + 1):
            out = Path(folder) / str(seed)
            words = (
                "train",
                "corpus:kjv",
                "--model",
                "clear",
                *budget,
                "--training.seed",
                str(seed),
                "--out",
                str(out),
            )
            run = clearstory(*words, threads=1 if args.alone else cores)
            looks = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
            curves.append([(row["tokens"], row["bits_per_byte"]) for row in looks if row["kind"] == "evaluation"])
            ends.append({key: run[key] for key in ("bits_per_byte", "seconds", "cpu_seconds", "parameters", "tokens")})
            print(f"seed {seed}: {ends[-1]}", file=sys.stderr)
    band = together(curves)
    if args.write:
        HERE.mkdir(exist_ok=True)
        file = HERE / "clear-kjv.json"
        file.write_text(json.dumps({"seeds": args.seeds, "minutes": args.minutes, **band}, indent=1) + "\n")
    show({"minutes": args.minutes, "runs": ends, "band": band})


def together(curves: list[list[tuple[int, float]]]) -> dict[str, Any]:
    """The lowest and highest of several curves at the same places, even on a logarithmic axis."""
    first = max(curve[0][0] for curve in curves)
    last = min(curve[-1][0] for curve in curves)
    places = np.geomspace(first, last, 24)
    heights = np.array([np.interp(places, *zip(*curve, strict=True)) for curve in curves])
    low, high = heights.min(0), heights.max(0)
    return {"tokens": places.round().tolist(), "low": low.round(4).tolist(), "high": high.round(4).tolist()}


if __name__ == "__main__":
    main()
