"""Shared by the benchmarks: machine information, test data files, and the resource use of whole processes."""

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


def machine_info() -> dict[str, Any]:
    """The machine that the results were measured on."""
    import torch

    from clearstory.models.matmul.measurement_cache import processor_name

    return {
        "processor": processor_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bf16": bool(torch.cpu._is_avx512_bf16_supported()),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def data_file(name: str) -> Path:
    """A file of the test data. Exits with a message if it does not exist."""
    file = DATA / name
    if not file.is_file():
        sys.exit(f"{file} does not exist; set CLEARSTORY_DATA to the folder of test data")
    return file


def run_process(command: list[str], threads: int = 1) -> tuple[str, dict[str, float]]:
    """Standard output of a command, and its CPU seconds, wall-clock seconds and peak memory in MB."""
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sys.stderr, env=env, text=True)
    assert process.stdout is not None
    with process.stdout:
        output = process.stdout.read()
    _, status, resources = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        sys.exit(f"{' '.join(command)} failed with status {process.returncode}")
    usage = {
        "cpu_seconds": round(resources.ru_utime + resources.ru_stime, 2),
        "seconds": round(time.perf_counter() - started, 2),
        "peak_mb": round(resources.ru_maxrss / 1024),
    }
    return output, usage


def run_clearstory(*arguments: str, threads: int = 1) -> dict[str, Any]:
    """The JSON result of a clearstory command, with the resource usage of its process under "process"."""
    output, usage = run_process([sys.executable, "-m", "clearstory", *arguments, "--json"], threads)
    return {**json.loads(output), "process": usage}


def print_result(result: dict[str, Any]) -> None:
    """Print the results, with the machine, as one JSON object."""
    print(json.dumps({"machine": machine_info(), **result}, indent=2))
