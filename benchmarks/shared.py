"""What the benchmarks share: the machine in words, the data's folder, and a command measured as a whole process."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("CLEARSTORY_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    import torch

    from clearstory.recipes.training.run_folder import processor_name

    return {
        "processor": processor_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bf16": bool(torch.cpu._is_avx512_bf16_supported()),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def data(name: str) -> Path:
    """A file of the test data; ends the benchmark with a sentence where it is not there."""
    file = DATA / name
    if not file.is_file():
        sys.exit(f"there is no {file}; set CLEARSTORY_DATA to the folder of test data")
    return file


def whole_process(command: list[str], threads: int = 1) -> tuple[str, dict[str, float]]:
    """Standard output of a command, and what it took: processor seconds, seconds, peak memory in MB."""
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sys.stderr, env=env, text=True)
    assert process.stdout is not None
    with process.stdout:
        out = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        sys.exit(f"{' '.join(command)} ended with status {process.returncode}")
    took = {
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "seconds": round(time.perf_counter() - began, 2),
        "peak_mb": round(used.ru_maxrss / 1024),
    }
    return out, took


def clearstory(*words: str, threads: int = 1) -> dict[str, Any]:
    """A command of ours with --json: its answer, and what the whole process took under "process"."""
    out, took = whole_process([sys.executable, "-m", "clearstory", *words, "--json"], threads)
    return {**json.loads(out), "process": took}


def show(result: dict[str, Any]) -> None:
    """The one JSON object."""
    print(json.dumps({"machine": machine(), **result}, indent=2))
