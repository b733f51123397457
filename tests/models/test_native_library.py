"""Compiling kernels: kept, verified before they are loaded, and PyTorch's kernels with a reason where that fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from clearstory.models.matmul.packed import NativeLinear, pack_linear
from clearstory.models.native import library
from clearstory.models.native.library import VARIABLE, Kernels, find_kernels
from clearstory.models.native.unused_libraries import DAY, remove_unused
from clearstory.recipes.doctor import check_native_kernels

POSIX = pytest.mark.skipif(os.name != "posix", reason="compilers are scripts here")


def find_again() -> Kernels:
    """What a new process would find."""
    find_kernels.cache_clear()
    return find_kernels("")


SOURCE = """
void matrix_product(void) {}
int decoder_step(void) { return 0; }
int panel_product(void) { return 0; }
int panel_top(void) { return 0; }
int top_tokens(void) { return 0; }
int encoder_forward(void) { return 0; }
int cross_decoder_forward(void) { return 0; }
#ifdef _OPENMP
int kernels_have_threads(void) { return 1; }
#else
int kernels_have_threads(void) { return 0; }
#endif
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder, and kernels without contents, which compile in an instant."""
    (tmp_path / "kernels.c").write_text(SOURCE)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "source_files", lambda: [tmp_path / "kernels.c"])
    monkeypatch.setattr(library, "has_avx2", lambda: True)
    find_kernels.cache_clear()
    yield tmp_path
    find_kernels.cache_clear()


@pytest.fixture
def libraries(home: Path) -> Path:
    """The folder of libraries, where there is a compiler."""
    if not library.compiler_command():
        pytest.skip("no C compiler here")
    return home / "cache" / "clearstory" / "kernels"


def compiler(home: Path, script: str) -> str:
    """A compiler that runs this script."""
    path = home / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def assert_torch_computes(reason: str, *, verdict: str = "note") -> None:
    """No kernels, for this reason; doctor tells it, and packed layers are PyTorch's."""
    found = find_again()
    assert found.library is None
    assert not found.has_threads
    assert reason in found.note
    finding = check_native_kernels()
    assert finding.verdict == verdict
    assert found.note in finding.sentence
    assert found.remedy in finding.sentence
    linear = nn.Linear(6, 5)
    product = pack_linear([linear], "fp32")
    assert not isinstance(product, NativeLinear)
    x = torch.ones(2, 6)
    assert torch.allclose(product(x), linear(x), atol=1e-6)


def test_they_are_compiled_once_and_kept(libraries: Path) -> None:
    first = find_again()
    assert first.library is not None
    assert first.note.startswith("compiled by ")
    kept = [(path, path.stat().st_mtime_ns) for path in libraries.iterdir()]
    assert len(kept) == 1, "nothing but the library stays"
    assert find_again().library is not None
    assert [(path, path.stat().st_mtime_ns) for path in libraries.iterdir()] == kept
    assert check_native_kernels().verdict == "good"


def test_libraries_that_nobody_loads_are_removed(libraries: Path) -> None:
    libraries.mkdir(parents=True, mode=0o700)
    days = {"unused-1.so": 31, "used-1.so": 29, "earlier.so": 0, "killed": 2, "compiling": 0, "unused.txt": 99}
    for name, ago in days.items():
        path = libraries / name
        path.touch() if path.suffix else path.mkdir()
        os.utime(path, (time.time() - ago * DAY,) * 2)
    assert find_again().library is not None
    (own,) = {each.name for each in libraries.iterdir()} - days.keys()
    kept = {own, "used-1.so", "compiling", "unused.txt"}
    assert {each.name for each in libraries.iterdir()} == kept
    # One that is loaded again counts as used, however old it is.
    os.utime(libraries / own, (time.time() - 40 * DAY,) * 2)
    assert find_again().library is not None
    remove_unused(libraries, keep=libraries / "other")
    assert {each.name for each in libraries.iterdir()} == kept


def test_a_terminal_is_told_of_the_first_compilation(
    libraries: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    find_again()
    assert capsys.readouterr().err.startswith("compiling kernels for this processor")
    find_again()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("damage", ["truncated", "one byte", "empty", "text"])
def test_a_damaged_library_is_compiled_again(damage: str, libraries: Path) -> None:
    find_again()
    (path,) = libraries.iterdir()
    whole = path.read_bytes()
    broken = {
        "truncated": whole[: len(whole) // 2],
        "one byte": whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:],
        "empty": b"",
        "text": b"kernels",
    }[damage]
    # Another file: the old one is mapped into this process.
    path.unlink()
    path.write_bytes(broken)
    assert find_again().library is not None
    assert broken not in [each.read_bytes() for each in libraries.iterdir()]


def test_turned_off(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    assert library.load_library() is None
    finding = check_native_kernels()
    reason, remedy = "turned off by CLEARSTORY_NATIVE=0", "unset CLEARSTORY_NATIVE to use them"
    assert finding.sentence == f"{reason}: PyTorch's kernels are used; {remedy}"
    assert not (home / "cache").exists()


def test_a_processor_without_wide_vectors(libraries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "has_avx2", lambda: False)
    assert_torch_computes("this processor has no AVX2")
    assert not libraries.exists()
    assert find_kernels("1").library is not None


def test_no_compiler(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home))
    monkeypatch.delenv("CC", raising=False)
    assert_torch_computes("no C compiler found")


@POSIX
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'matrix.c:1: error: no vectors' >&2; exit 1", "could not compile them (matrix.c:1: error: no vectors)"),
        ("exit 3", "could not compile them (exit status 3"),
        ("exit 0", "could not compile them (exit status 0 and no library)"),
        ('for out in "$@"; do :; done; echo kernels > "$out"', "what compiler compiled cannot be loaded"),
        ('for out in "$@"; do :; done; printf "\\377\\376" >&2; : > "$out"', "cannot be loaded"),
        ("kill -9 $$", "exit status -9"),
        ("sleep 20", "nothing after 0.2 seconds"),
    ],
    ids=["error", "silent", "nothing", "garbage", "empty", "killed", "hangs"],
)
def test_a_compiler_that_fails(script: str, reason: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if script.startswith("sleep"):
        monkeypatch.setattr(library, "MAX_SECONDS", 0.2)
    monkeypatch.setenv("CC", compiler(home, script))
    assert_torch_computes(reason)
    assert not list((home / "cache" / "clearstory" / "kernels").iterdir())


@POSIX
def test_a_compiler_that_cannot_be_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home / "compiler"
    path.write_bytes(b"\x7fELF" + bytes(60))
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))
    assert_torch_computes("could not compile them (")


@POSIX
def test_a_library_without_the_functions(libraries: Path, home: Path) -> None:
    (home / "kernels.c").write_text("int other(void) { return 1; }\n")
    assert_torch_computes("cannot be loaded")


@POSIX
def test_a_compiler_without_threads(libraries: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = library.compiler_command()[0]
    script = f'case "$*" in *-fopenmp*) echo "error: no OpenMP" >&2; exit 1;; esac; exec "{real}" "$@"'
    monkeypatch.setenv("CC", compiler(home, script))
    found = find_again()
    assert found.library is not None
    assert not found.has_threads
    assert "one thread" in check_native_kernels().sentence


def test_a_compiler_with_arguments(libraries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = library.compiler_command()[0]
    monkeypatch.setenv("CC", f"env '{real}' -DUNUSED='1 2'")
    assert library.compiler_command()[1:] == [real, "-DUNUSED=1 2"]
    assert find_again().library is not None
    for unknown in ("no-such-compiler -O1", "'gcc", " "):
        monkeypatch.setenv("CC", unknown)
        assert library.compiler_command() != []
        assert library.compiler_command()[0] != "no-such-compiler"


def test_a_cache_folder_that_is_a_file(home: Path) -> None:
    (home / "cache").write_text("")
    assert_torch_computes("cannot be used (")


@POSIX
def test_a_cache_folder_that_cannot_be_written(home: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("the administrator can write everywhere")
    (home / "cache").mkdir(mode=0o500)
    assert_torch_computes("cannot be used (")


def test_no_home_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.durable, "user_cache_folder", lambda: None)
    assert_torch_computes("no home folder" if library.compiler_command() else "no C compiler")


@POSIX
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720])
def test_a_folder_that_others_can_write_is_not_used(mode: int, libraries: Path) -> None:
    find_again()
    libraries.chmod(mode)
    assert_torch_computes("other users can write to it")
    libraries.chmod(0o700)
    assert find_again().library is not None


@POSIX
def test_a_folder_of_another_user_is_not_used(libraries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_again()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert_torch_computes("other users can write to it")


@POSIX
def test_a_library_that_others_can_write_is_compiled_again(libraries: Path) -> None:
    find_again()
    (path,) = libraries.iterdir()
    path.chmod(0o777)
    assert find_again().library is not None
    assert all(each.stat().st_mode & 0o022 == 0 for each in libraries.iterdir())


def test_two_processes_compile_at_once(libraries: Path, home: Path) -> None:
    program = (
        "from pathlib import Path\n"
        "from clearstory.models.native import library\n"
        "library.has_avx2 = lambda: True\n"
        f"library.source_files = lambda: [Path({str(home / 'kernels.c')!r})]\n"
        "found = library.find_kernels('')\n"
        "assert found.library is not None, found.note\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    assert [each.wait(timeout=100) for each in running] == [0, 0]
    assert all(path.suffix == ".so" for path in libraries.iterdir())
    assert find_again().library is not None
