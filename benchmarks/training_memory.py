"""Peak memory of training GPT-2 124M at context 512 with a batch size of 2, compared with a transformers loop.

python benchmarks/training_memory.py [--steps 3]

Results: results/memory.json.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from common import print_result, run_process

PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
import numpy as np, throughput
from clearstory.models.transformer.presets import GPT2
ids = np.random.default_rng(0).integers(0, 50257, 20000).astype(np.uint16)
step = throughput.{call}
for _ in range({steps}):
    step()
"""

CALLS = {
    "transformers fp32": "transformers_step(GPT2, ids, 2, 512, None)",
    "clearstory fp32": "clearstory_step(GPT2, ids, 2, 512, 'fp32')",
    "clearstory bf16": "clearstory_step(GPT2, ids, 2, 512, 'bf16')",
}


def main() -> None:
    """Run the benchmark and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3)
    steps = parser.parse_args().steps
    folder = str(Path(__file__).parent)
    peaks: dict[str, Any] = {}
    for name, call in CALLS.items():
        code = PROGRAM.format(folder=folder, call=call, steps=steps)
        _, usage = run_process([sys.executable, "-c", code])
        peaks[name] = usage["peak_mb"]
    base = peaks["transformers fp32"]
    print_result({"peak_mb": peaks, "share_of_transformers": {name: round(mb / base, 3) for name, mb in peaks.items()}})


if __name__ == "__main__":
    main()
