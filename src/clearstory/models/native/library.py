"""The compiled kernels: C sources beside this file, compiled once for each processor by the machine's C compiler.

The library lies in the cache folder, under a digest of the sources, the compiler and the processor's instructions.
Where there is no compiler, or `CLEARSTORY_NATIVE=0` is set, `load_library` returns None and PyTorch's kernels are used.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from ctypes import POINTER, Structure, c_double, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import xxhash

from clearstory import durable
from clearstory.errors import ClearstoryError

VARIABLE = "CLEARSTORY_NATIVE"
"""Environment variable that turns native kernels off: 0."""

COMPILERS = ("cc", "gcc", "clang")

FLAGS = (
    "-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC", "-w",
    # Loops become vectors; infinities and NaN stay what they are.
    "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math",
)  # fmt: skip

OPTIONAL_FLAGS = (("-fopenmp", "-mprefer-vector-width=512"), ("-fopenmp",), ())
"""Tried in this order: not every compiler has threads, or 512-bit vectors."""

MAX_SECONDS = 120


class Matrix(Structure):
    """A constant matrix in blocks; see matrix.h."""

    _fields_ = [
        ("type", c_int64), ("outs", c_int64), ("ins", c_int64),
        ("blocks", c_void_p), ("scales", c_void_p), ("columns", c_void_p), ("bias", c_void_p),
    ]  # fmt: skip


class Norm(Structure):
    """A layer norm or RMS norm; see decoder.h."""

    _fields_ = [("kind", c_int64), ("gain", c_void_p), ("bias", c_void_p), ("eps", c_double)]


class Block(Structure):
    """A block of a decoder; see decoder.h."""

    _fields_ = [
        ("attention_norm", Norm), ("feed_forward_norm", Norm), ("head_norm", Norm),
        ("query_key_value", Matrix), ("output", Matrix), ("gate_up", Matrix), ("down", Matrix),
    ]  # fmt: skip


class Decoder(Structure):
    """A decoder; see decoder.h."""

    _fields_ = [
        ("layers", c_int64), ("width", c_int64), ("heads", c_int64), ("kv_heads", c_int64), ("head_dim", c_int64),
        ("intermediate_size", c_int64), ("activation", c_int64), ("gated", c_int64), ("norm_first", c_int64),
        ("window", c_int64), ("score_scale", c_double), ("final_norm", Norm), ("blocks", POINTER(Block)),
    ]  # fmt: skip


class Cache(Structure):
    """The keys and values of a sequence; see decoder.h."""

    _fields_ = [("data", c_void_p), ("capacity", c_int64), ("kept", c_int64)]


@dataclass(frozen=True)
class Kernels:
    """What `load_library` found: the library, or why there is none."""

    library: ctypes.CDLL | None
    note: str


def load_library() -> ctypes.CDLL | None:
    """The compiled kernels; None where they cannot be compiled or are turned off."""
    return find_kernels(os.environ.get(VARIABLE, "")).library


@cache
def find_kernels(setting: str) -> Kernels:
    """The compiled kernels, compiled now if they are not in the cache folder, and a phrase on where they come from."""
    if setting == "0":
        return Kernels(None, f"turned off by {VARIABLE}=0")
    compiler = next((path for path in map(shutil.which, (os.environ.get("CC", ""), *COMPILERS)) if path), None)
    if compiler is None:
        return Kernels(None, "no C compiler found (cc, gcc or clang)")
    folder = durable.user_cache_folder()
    if folder is None:
        return Kernels(None, "no home folder to keep them in")
    try:
        path = folder / "kernels" / f"{library_key(compiler)}.so"
        if not path.is_file():
            durable.make_folder(path.parent)
            compile_library(compiler, path)
        return Kernels(declare(ctypes.CDLL(str(path))), f"compiled by {Path(compiler).name}")
    except (OSError, AttributeError, subprocess.SubprocessError, ClearstoryError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return Kernels(None, f"{Path(compiler).name} could not compile them ({reason[-1][:200]})")


def library_key(compiler: str) -> str:
    """Digest of the sources, the flags, the compiler and the processor's instructions."""
    digest = xxhash.xxh3_128()
    for source in source_files():
        digest.update(source.read_bytes())
    stat = os.stat(compiler)
    about = (FLAGS, OPTIONAL_FLAGS, os.path.realpath(compiler), stat.st_size, stat.st_mtime_ns, instruction_sets())
    digest.update(repr(about).encode())
    return digest.hexdigest()


def source_files() -> list[Path]:
    """Headers and sources, in one order."""
    folder = Path(__file__).parent
    return [*sorted(folder.glob("*.h")), *sorted(folder.glob("*.c"))]


def instruction_sets() -> str:
    """What the processor can execute, as the system tells it: names alone do not decide it (several EPYC share one)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()} {platform.version()}"


def compile_library(compiler: str, path: Path) -> None:
    """Compile the sources into a shared library. Raises CalledProcessError with the compiler's last message."""
    sources = [str(each) for each in source_files() if each.suffix == ".c"]
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / "kernels.so"
        for optional in OPTIONAL_FLAGS:
            command = [compiler, *FLAGS, *optional, *sources, "-lm", "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=MAX_SECONDS, check=False)
            if done.returncode == 0:
                os.replace(made, path)
                return
    raise OSError(done.stderr.strip() or f"exit status {done.returncode}")


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the types of its functions."""
    library.matrix_product.restype = None
    library.matrix_product.argtypes = [POINTER(Matrix), c_void_p, c_int64, c_int64, c_void_p, c_int64, c_int32]
    library.decoder_step.restype = c_int32
    library.decoder_step.argtypes = [POINTER(Decoder), c_void_p, c_int64, c_void_p, c_void_p, POINTER(Cache), c_int32]
    return library
