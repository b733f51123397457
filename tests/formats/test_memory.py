"""Memory of opening: files are memory-mapped, and transposed or converted weights do not stay beside their file."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_peak_memory_is_at_most_1_15_times_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory above that of torch alone, with one text processed."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("peak memory is available on Linux only")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from model_loading import loading_memory, model_folders

    for name, folder in model_folders(tmp_path).items():
        growth = loading_memory(folder)
        print(f"measured {name}: {growth}")  # shown with -rP
        assert growth["share_of_fp32"] <= 1.15
