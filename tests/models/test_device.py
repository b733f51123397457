"""Devices: resolved by name, refused where unavailable, and left unchanged."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch

from clearstory.errors import BadSetting
from clearstory.models import device
from clearstory.models.device import (
    M_MMAP_MAX,
    M_MMAP_THRESHOLD,
    M_TRIM_THRESHOLD,
    deterministic,
    on_huge_pages,
    resolve_device,
    reusing_memory,
)


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


class RecordingLibrary:
    """A C library that remembers the options of malloc, and has no memory to give."""

    def __init__(self) -> None:
        self.options = {M_TRIM_THRESHOLD: 2**17, M_MMAP_MAX: 65_536}

    def mallopt(self, option: int, value: int) -> None:
        self.options[option] = value

    def malloc(self, size: int) -> None:
        return None

    def malloc_trim(self, padding: int) -> None:
        pass


@pytest.fixture
def libc(monkeypatch: pytest.MonkeyPatch) -> RecordingLibrary:
    library = RecordingLibrary()
    monkeypatch.setattr(device, "gnu_c_library", lambda: library)
    return library


def test_memory_stays_with_a_process_that_has_meanwhile_packed_weights(libc: RecordingLibrary) -> None:
    defaults = dict(libc.options)
    with reusing_memory():
        training = dict(libc.options)
        assert training[M_TRIM_THRESHOLD] == 2**30
        with on_huge_pages(1):
            assert libc.options[M_MMAP_MAX] == 0
            with reusing_memory():
                assert (libc.options[M_MMAP_MAX], libc.options[M_TRIM_THRESHOLD]) == (0, 2**30)
            assert libc.options[M_TRIM_THRESHOLD] == 2**31 - 1
        assert libc.options == training
        with pytest.raises(KeyError), on_huge_pages(1):
            raise KeyError
        assert libc.options == training
    # By itself malloc raises this one up to 32 MB, and once set it cannot be given back to it.
    assert libc.options.pop(M_MMAP_THRESHOLD) == 2**25
    assert libc.options == defaults


def test_contexts_of_two_threads_may_end_in_any_order(libc: RecordingLibrary) -> None:
    defaults = dict(libc.options)
    training, packing = ExitStack(), ExitStack()
    training.enter_context(reusing_memory())
    packing.enter_context(on_huge_pages(1))
    training.close()
    assert (libc.options[M_MMAP_MAX], libc.options[M_TRIM_THRESHOLD]) == (0, 2**31 - 1)
    packing.close()
    assert {option: libc.options[option] for option in defaults} == defaults


def test_without_gnus_c_library_memory_is_taken_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: Any) -> Any:
        raise OSError

    monkeypatch.setattr(device.ctypes, "CDLL", fail)
    find = getattr(device.gnu_c_library, "__wrapped__", device.gnu_c_library)  # what the process knows already aside
    assert find() is None
    monkeypatch.setattr(device, "gnu_c_library", find)
    with reusing_memory(), on_huge_pages(1):
        pass
