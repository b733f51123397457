"""Process times: when a process started, by which it is told from a later one with the same id."""

from __future__ import annotations

import subprocess
from pathlib import Path


def process_start_time(pid: int) -> str | None:
    """When a process started, as the operating system records it; None if there is no such process or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return start_time_from_ps(pid) if not Path("/proc/self/stat").exists() else None
    return None if fields[0] == "Z" else fields[19]


def start_time_from_ps(pid: int) -> str | None:
    """The start time of a process on systems without /proc."""
    result = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return result.stdout.strip() or None
