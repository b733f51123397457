"""Memory of opening: files are memory-mapped, and transposed or converted weights do not stay beside their file."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_peak_memory_is_at_most_1_15_times_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over bare torch, with one text read: at most 1.15 times the 500 MB of weights as they are held."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("only Linux tells a process its peak memory")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from opening import folders, memory

    for name, folder in folders(tmp_path).items():
        found = memory(folder)
        print(f"measured {name}: {found}")  # shown with -rP
        assert found["share_of_fp32"] <= 1.15
