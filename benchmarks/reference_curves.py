"""Reference learning curves of the package: `clear` on corpus:kjv, bits per byte by tokens, the range over seeds.

    python benchmarks/reference_curves.py [--seeds 3] [--minutes 3] [--alone] [--write]

With --write the curves are written to src/clearstory/recipes/training/references/. Runs use all cores, one after
another. With --alone each run uses one thread and the CPU time that all cores have in those minutes, for shared
machines. Results: results/references.json.
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
from common import print_result, run_clearstory

REFERENCES = Path(__file__).parent.parent / "src" / "clearstory" / "recipes" / "training" / "references"


def main() -> None:
    """Train, combine the curves and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--alone", action="store_true", help="use one thread, for the same CPU time")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    cores, curves, results = os.cpu_count() or 1, [], []
    budget = ("--cpu-seconds", str(args.minutes * cores * 60)) if args.alone else ("--minutes", str(args.minutes))
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, args.seeds + 1):
            out = Path(folder) / str(seed)
            arguments = (
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
            run = run_clearstory(*arguments, threads=1 if args.alone else cores)
            records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
            curves.append(
                [(record["tokens"], record["bits_per_byte"]) for record in records if record["kind"] == "evaluation"]
            )
            results.append(
                {key: run[key] for key in ("bits_per_byte", "seconds", "cpu_seconds", "parameters", "tokens")}
            )
            print(f"seed {seed}: {results[-1]}", file=sys.stderr)
    band = band_of_curves(curves)
    if args.write:
        REFERENCES.mkdir(exist_ok=True)
        file = REFERENCES / "clear-kjv.json"
        file.write_text(json.dumps({"seeds": args.seeds, "minutes": args.minutes, **band}, indent=1) + "\n")
    print_result({"minutes": args.minutes, "runs": results, "band": band})


def band_of_curves(curves: list[list[tuple[int, float]]]) -> dict[str, Any]:
    """Minimum and maximum of several curves at 24 token counts, evenly spaced on a logarithmic axis."""
    first = max(curve[0][0] for curve in curves)
    last = min(curve[-1][0] for curve in curves)
    positions = np.geomspace(first, last, 24)
    values = np.array([np.interp(positions, *map(np.array, zip(*curve, strict=True))) for curve in curves])
    low, high = values.min(0), values.max(0)
    return {"tokens": positions.round().tolist(), "low": low.round(4).tolist(), "high": high.round(4).tolist()}


if __name__ == "__main__":
    main()
