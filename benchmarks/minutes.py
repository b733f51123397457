"""What 1, 3, 10 and 30 minutes of all cores reach on the characters of tinyshakespeare; nats on the whole last tenth.

    python benchmarks/minutes.py [--minutes 1 3 10 30] [--models clear recall] [--alone]

With --alone one thread takes the processor time that all cores have in those minutes: for machines that are shared.

Blocks of each model's context, as nanoGPT evaluates. `clear` chooses its size by the time. `recall` learns best in one
pass over the text (a second pass shows its rows their own text again), so it takes the time of one pass, however much
it is given.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from shared import clearstory, data, show

BESIDE = {
    "Kneser-Ney, characters, order 6, one processor second": 1.523,
    "nanoGPT, 4 x 128, context 64, 2,000 steps on a processor, as its README says": 1.88,
    "nanoGPT, 6 x 384, context 256, 5,000 steps on a GPU, as its README says": 1.4697,
}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 3, 10, 30])
    parser.add_argument("--models", nargs="+", default=["clear", "recall"])
    parser.add_argument("--alone", action="store_true", help="one thread, for the same processor time")
    args = parser.parse_args()
    cores = os.cpu_count() or 1
    text, found = str(data("tinyshakespeare/input.txt.gz")), []
    with tempfile.TemporaryDirectory() as folder:
        for minutes in args.minutes:
            for model in args.models:
                budget = ("--cpu-seconds", str(minutes * cores * 60)) if args.alone else ("--minutes", str(minutes))
                if model == "recall":
                    budget = ("--steps", "980")
                if model == "recall" and minutes != args.minutes[0]:
                    continue
                out = str(Path(folder) / f"{model}-{minutes:g}")
                words = ("train", text, "--model", model, "--tokenizer", "characters", *budget, "--out", out)
                run = clearstory(*words, threads=1 if args.alone else cores)
                keys = ("nats_per_token", "parameters", "steps", "seconds", "cpu_seconds")
                found.append({"model": model, "minutes": minutes, **{key: run[key] for key in keys}})
                print(found[-1], file=sys.stderr)
    show({"text": "tinyshakespeare", "threads": 1 if args.alone else cores, "runs": found, "beside_nats": BESIDE})


if __name__ == "__main__":
    main()
