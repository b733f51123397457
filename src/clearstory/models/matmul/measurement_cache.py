"""Tables of measured speeds, kept beside the cached token ids: measured once for each processor, torch and number of
threads, and again by `clearstory doctor`. What was measured while other processes took the CPU is not kept.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from clearstory import durable
from clearstory.errors import ClearstoryError

Table = Mapping[str, Mapping[str, float]]
"""Positive numbers by row and column."""

MAX_BYTES = 2**20


class Measurement(NamedTuple):
    """A table, and the share of CPU time in the wall-clock time of its measurement."""

    table: Table
    cpu_share: float

    @property
    def is_reliable(self) -> bool:
        """Whether no other process took much of the time."""
        return self.cpu_share >= LEAST_CPU_SHARE


LEAST_CPU_SHARE = 0.8
"""One process beside this one on the same core leaves it 0.5; without any it has 0.99."""

ATTEMPTS = 4
"""How often `MeasurementFile.again` measures until a measurement is reliable."""


def fastest_of(
    calls: Mapping[tuple[str, str], Callable[[], object]], rounds: int, value: Callable[[float], float]
) -> Measurement:
    """A value of the wall-clock seconds of each call, by row and column: the fastest of several rounds, alternating.

    On a busy machine some rounds of a millisecond are still undisturbed, so with one thread the share of CPU time is
    that of the fastest rounds. Several threads wait for each other, and only the calling one's CPU time tells of that:
    there all rounds count.
    """
    best = dict.fromkeys(calls, (math.inf, 0.0))
    all_cpu = all_wall = 0.0
    for _ in range(rounds):
        for name, call in calls.items():
            cpu, wall = time.thread_time(), time.perf_counter()
            call()
            wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
            best[name] = min(best[name], (wall, cpu))
            all_cpu, all_wall = all_cpu + cpu, all_wall + wall
    table: dict[str, dict[str, float]] = {}
    for (row, column), (wall, _) in best.items():
        table.setdefault(row, {})[column] = round(value(wall), 1)
    # Windows counts CPU time in ticks of 16 ms.
    by_round = torch.get_num_threads() == 1 and time.get_clock_info("thread_time").resolution < 1e-5
    return Measurement(table, min(cpu / wall for wall, cpu in best.values()) if by_round else all_cpu / all_wall)


@dataclass(frozen=True)
class MeasurementFile:
    """A file of the cache folder: a table for each machine and number of threads."""

    name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]

    def once(self, threads: int, measure: Callable[[], Measurement], kernels: str = "") -> Table:
        """The table of this machine with so many threads, and these kernels: from the file, or measured now and
        kept.
        """
        key = machine_name(threads, kernels)
        known = self.read()
        if key in known:
            return known[key]
        measurement = measure()
        # Another process may have measured meanwhile: both then use one result.
        known = self.read()
        if measurement.is_reliable and key not in known:
            self.write({**known, key: measurement.table})
        return known.get(key, measurement.table)

    def again(
        self, threads: int, measure: Callable[[], Measurement], kernels: str = ""
    ) -> tuple[Measurement, Path | None]:
        """A new measurement, and the file in which it replaces the earlier one; None if it could not be kept."""
        for _ in range(ATTEMPTS):
            measurement = measure()
            if measurement.is_reliable:
                return measurement, self.write({**self.read(), machine_name(threads, kernels): measurement.table})
        return measurement, None

    def read(self) -> dict[str, Table]:
        """The tables by machine; without those that are damaged."""
        folder = durable.user_cache_folder()
        if folder is None:
            return {}
        try:
            saved: Any = durable.parse_json(durable.read_file(folder / self.name, MAX_BYTES), folder / self.name)
            return {key: table for key, table in saved.items() if self.is_table(table)}
        except (ClearstoryError, OSError, ValueError, AttributeError):
            return {}

    def write(self, tables: Mapping[str, Table]) -> Path | None:
        """Replace the file, and return its path; None if it cannot be written, which costs a fifth of a second."""
        folder = durable.user_cache_folder()
        if folder is not None:
            with suppress(ClearstoryError, OSError):
                durable.make_folder(folder)
                durable.write_json(folder / self.name, tables)
                return folder / self.name
        return None

    def is_table(self, value: Any) -> bool:
        """Whether a value read from the file is a table of these rows and columns."""
        return (
            isinstance(value, dict)
            and value.keys() == set(self.rows)
            and all(isinstance(row, dict) and row.keys() == set(self.columns) for row in value.values())
            and all(isinstance(each, int | float) and 0 < each < 1e9 for row in value.values() for each in row.values())
        )


def machine_name(threads: int, kernels: str = "") -> str:
    """What measured speeds depend on."""
    capability = torch.backends.cpu.get_cpu_capability()
    parts = [processor_name(), capability, f"torch {torch.__version__}", f"{threads} threads", kernels]
    return ", ".join(each for each in parts if each)


@cache
def processor_name() -> str:
    """The CPU's model name, or the architecture where the system does not report it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
