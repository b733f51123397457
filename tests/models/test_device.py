"""Devices: resolved by name, refused where unavailable, and left unchanged."""

from __future__ import annotations

import pytest
import torch

from clearstory.errors import BadSetting
from clearstory.models.device import deterministic, resolve_device


def test_an_unavailable_device_is_refused() -> None:
    with pytest.raises(BadSetting, match=r"training.device is 'cuda:99', which is not available here \(.*\); try cpu"):
        resolve_device("cuda:99", "training.device")
    with pytest.raises(BadSetting, match="device is 'nowhere'"):
        resolve_device("nowhere")


def test_auto_is_a_gpu_where_there_is_one() -> None:
    wanted = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert resolve_device("auto") == wanted


def test_deterministic_kernels_are_set_on_a_gpu_and_only_within_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with deterministic(torch.device("cpu")):
        assert not torch.are_deterministic_algorithms_enabled()
    asked = []

    def fail() -> None:
        with deterministic(torch.device("cuda")):
            asked.append(torch.are_deterministic_algorithms_enabled())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert asked == [True]
    assert not torch.are_deterministic_algorithms_enabled()
