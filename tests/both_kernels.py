"""Fixtures of tests that run with the compiled kernels and with PyTorch's."""

from __future__ import annotations

import pytest

from clearstory.models.native.library import VARIABLE, find_kernels


@pytest.fixture(params=["native", "torch"])
def kernels_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whose kernels the test runs with: native (skipped where they cannot be compiled) or torch."""
    name = str(request.param)
    if name == "torch":
        monkeypatch.setenv(VARIABLE, "0")
    else:
        compiled_or_skip(monkeypatch)
    return name


@pytest.fixture
def compiled_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs with compiled kernels; skipped where they cannot be compiled."""
    compiled_or_skip(monkeypatch)


def compiled_or_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn compiled kernels on, or skip the test with the reason why there are none."""
    monkeypatch.delenv(VARIABLE, raising=False)
    found = find_kernels("")
    if found.library is None:
        pytest.skip(f"no compiled kernels: {found.note}")
