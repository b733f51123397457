"""Peak memory of training GPT-2 124M at context 512 with 2 rows, beside a loop over transformers; fresh processes.

python benchmarks/memory.py [--steps 3]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from shared import show, whole_process

LOOP = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
import numpy as np, throughput
from clearstory.models.transformer.presets import GPT2
ids = np.random.default_rng(0).integers(0, 50257, 20000).astype(np.uint16)
step = throughput.{which}
for _ in range({steps}):
    step()
"""

LOOPS = {
    "transformers fp32": "theirs(GPT2, ids, 2, 512, None)",
    "clearstory fp32": "ours(GPT2, ids, 2, 512, 'fp32')",
    "clearstory bf16": "ours(GPT2, ids, 2, 512, 'bf16')",
}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3)
    steps = parser.parse_args().steps
    here = str(Path(__file__).parent)
    peaks: dict[str, Any] = {}
    for name, which in LOOPS.items():
        code = LOOP.format(here=here, which=which, steps=steps)
        _, took = whole_process([sys.executable, "-c", code])
        peaks[name] = took["peak_mb"]
    base = peaks["transformers fp32"]
    show({"peak_mb": peaks, "share_of_transformers": {name: round(mb / base, 3) for name, mb in peaks.items()}})


if __name__ == "__main__":
    main()
