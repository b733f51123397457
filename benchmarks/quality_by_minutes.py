"""Loss on tinyshakespeare after 1, 3, 10 and 30 minutes of training; nats per character on the last tenth.

    python benchmarks/quality_by_minutes.py [--minutes 1 3 10 30] [--models clear recall] [--alone]

Runs use all cores. With --alone each run uses one thread and the CPU time that all cores have in those minutes, for
shared machines. Results: results/minutes.json and results/minutes-alone.json.

Evaluated in blocks of the context, as in nanoGPT. The size of `clear` is chosen for the time limit. `recall` is
best after one epoch (in a second epoch its hashed n-gram embeddings see their own text again), so it is trained for one
epoch whatever the time limit.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from common import data_file, print_result, run_clearstory

PUBLISHED = {
    "Kneser-Ney, characters, order 6, one processor second": 1.523,
    "nanoGPT, 4 x 128, context 64, 2,000 steps on a processor, as its README says": 1.88,
    "nanoGPT, 6 x 384, context 256, 5,000 steps on a GPU, as its README says": 1.4697,
}


def main() -> None:
    """Run the benchmark and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 3, 10, 30])
    parser.add_argument("--models", nargs="+", default=["clear", "recall"])
    parser.add_argument("--alone", action="store_true", help="use one thread, for the same CPU time")
    args = parser.parse_args()
    cores = os.cpu_count() or 1
    text, results = str(data_file("tinyshakespeare/input.txt.gz")), []
    with tempfile.TemporaryDirectory() as folder:
        for minutes in args.minutes:
            for model in args.models:
                budget = ("--cpu-seconds", str(minutes * cores * 60)) if args.alone else ("--minutes", str(minutes))
                if model == "recall":
                    budget = ("--steps", "980")
                if model == "recall" and minutes != args.minutes[0]:
                    continue
                out = str(Path(folder) / f"{model}-{minutes:g}")
                arguments = ("train", text, "--model", model, "--tokenizer", "characters", *budget, "--out", out)
                run = run_clearstory(*arguments, threads=1 if args.alone else cores)
                keys = ("nats_per_token", "parameters", "steps", "seconds", "cpu_seconds")
                results.append({"model": model, "minutes": minutes, **{key: run[key] for key in keys}})
                print(results[-1], file=sys.stderr)
    print_result(
        {"text": "tinyshakespeare", "threads": 1 if args.alone else cores, "runs": results, "beside_nats": PUBLISHED}
    )


if __name__ == "__main__":
    main()
