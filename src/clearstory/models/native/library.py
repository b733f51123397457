"""The compiled kernels: C sources in this folder, compiled once per processor with the machine's C compiler.

The library lies in the cache folder, under a digest of the sources, the compiler and the processor's instructions, and
one of its own bytes: a damaged file is not loaded but compiled again, and none that another user could have written.
Where there is no compiler or no AVX2, or `CLEARSTORY_NATIVE=0` is set, `load_library` returns None and PyTorch's
kernels are used.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from ctypes import POINTER, Structure, c_double, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import xxhash

from clearstory import durable
from clearstory.errors import ClearstoryError
from clearstory.models.native.unused_libraries import mark_used, remove_unused

VARIABLE = "CLEARSTORY_NATIVE"
"""Environment variable that turns compiled kernels off, 0, or on where the processor has no AVX2, 1."""

COMPILERS = ("cc", "gcc", "clang")

FLAGS = (
    "-march=native", "-O3", "-std=gnu11", "-shared", "-fPIC", "-w",
    "-fno-math-errno", "-fno-trapping-math",
)  # fmt: skip

OPTIONAL_FLAGS = (("-fopenmp", "-mprefer-vector-width=512"), ("-fopenmp",), ())
"""Compiler flags, tried in this order: not every compiler supports threads or 512-bit vectors."""

MAX_SECONDS = 120


class MatrixStruct(Structure):
    """A constant matrix in blocks; see matrix.h."""

    _fields_ = [
        ("type", c_int64), ("outs", c_int64), ("ins", c_int64),
        ("blocks", c_void_p), ("scales", c_void_p), ("columns", c_void_p), ("bias", c_void_p),
    ]  # fmt: skip


class NormStruct(Structure):
    """A layer norm or RMS norm; see decoder.h."""

    _fields_ = [("kind", c_int64), ("gain", c_void_p), ("bias", c_void_p), ("eps", c_double)]


class BlockStruct(Structure):
    """A block of a decoder; see decoder.h."""

    _fields_ = [
        ("attention_norm", NormStruct), ("feed_forward_norm", NormStruct), ("attention_output_norm", NormStruct),
        ("feed_forward_output_norm", NormStruct), ("head_norm", NormStruct), ("window", c_int64), ("local", c_int64),
        ("query_key_value", MatrixStruct), ("output", MatrixStruct), ("gate_up", MatrixStruct), ("down", MatrixStruct),
    ]  # fmt: skip


class DecoderStruct(Structure):
    """A decoder; see decoder.h."""

    _fields_ = [
        ("layers", c_int64), ("width", c_int64), ("heads", c_int64), ("kv_heads", c_int64), ("head_dim", c_int64),
        ("intermediate_size", c_int64), ("activation", c_int64), ("gated", c_int64), ("norm_first", c_int64),
        ("score_scale", c_double), ("final_norm", NormStruct), ("blocks", POINTER(BlockStruct)),
    ]  # fmt: skip


class CacheStruct(Structure):
    """The keys and values of a sequence; see decoder.h."""

    _fields_ = [("data", c_void_p), ("capacity", c_int64), ("kept", c_int64)]


class PanelMatrixStruct(Structure):
    """A constant matrix in panels; see panel.h."""

    _fields_ = [
        ("type", c_int64), ("outs", c_int64), ("ins", c_int64), ("panels", c_void_p), ("scales", c_void_p),
        ("sums", c_void_p), ("columns", c_void_p), ("bias", c_void_p),
    ]  # fmt: skip


class EncoderBlockStruct(Structure):
    """A block of an encoder; see encoder.h."""

    _fields_ = [
        ("attention_norm", NormStruct), ("feed_forward_norm", NormStruct), ("query_key_value", PanelMatrixStruct),
        ("output", PanelMatrixStruct), ("gate_up", PanelMatrixStruct), ("down", PanelMatrixStruct),
    ]  # fmt: skip


class DistanceBiasStruct(Structure):
    """Biases of attention scores by distance; see layers.h."""

    _fields_ = [("table", c_void_p), ("reach", c_int64)]


class EncoderStruct(Structure):
    """An encoder; see encoder.h."""

    _fields_ = [
        ("layers", c_int64), ("width", c_int64), ("heads", c_int64), ("kv_heads", c_int64), ("head_dim", c_int64),
        ("intermediate_size", c_int64), ("activation", c_int64), ("gated", c_int64), ("norm_first", c_int64),
        ("score_scale", c_double), ("bias", DistanceBiasStruct), ("final_norm", NormStruct),
        ("blocks", POINTER(EncoderBlockStruct)),
    ]  # fmt: skip


class CrossBlockStruct(Structure):
    """A block of a decoder with cross-attention; see cross_decoder.h."""

    _fields_ = [
        ("attention_norm", NormStruct), ("cross_attention_norm", NormStruct), ("feed_forward_norm", NormStruct),
        ("query_key_value", PanelMatrixStruct), ("output", PanelMatrixStruct), ("cross_query", PanelMatrixStruct),
        ("cross_output", PanelMatrixStruct), ("gate_up", PanelMatrixStruct), ("down", PanelMatrixStruct),
    ]  # fmt: skip


class CrossDecoderStruct(Structure):
    """A decoder with cross-attention; see cross_decoder.h."""

    _fields_ = [
        *EncoderStruct._fields_[:-1],
        ("blocks", POINTER(CrossBlockStruct)),
    ]  # fmt: skip


@dataclass(frozen=True)
class Kernels:
    """Result of `find_kernels`.

    Args:
        library: the compiled kernels; None without.
        note: a phrase on who compiled them, or why there are none.
        remedy: what the user can do to have them.
    """

    library: ctypes.CDLL | None
    note: str
    remedy: str = ""

    @property
    def has_threads(self) -> bool:
        """Whether the compiler had OpenMP."""
        return self.library is not None and bool(self.library.kernels_have_threads())


def load_library() -> ctypes.CDLL | None:
    """The compiled kernels; None if they cannot be compiled or are turned off."""
    return find_kernels(os.environ.get(VARIABLE, "")).library


@cache
def find_kernels(setting: str) -> Kernels:
    """The compiled kernels, compiled now if they are not in the cache folder."""
    if setting == "0":
        return Kernels(None, f"turned off by {VARIABLE}=0", f"unset {VARIABLE} to use them")
    if setting != "1" and not has_avx2():
        # Compiled for SSE2, fp16 weights take eight times as long as for AVX2.
        return Kernels(None, "this processor has no AVX2", f"{VARIABLE}=1 compiles slower kernels anyway")
    command = compiler_command()
    if not command:
        return Kernels(
            None, "no C compiler found (cc, gcc or clang)", "install one (Debian and Ubuntu: apt install gcc)"
        )
    folder = durable.user_cache_folder()
    if folder is None:
        return Kernels(None, "no home folder to store them in", "set XDG_CACHE_HOME to a folder")
    folder /= "kernels"
    name = " ".join(Path(each).name for each in command)
    try:
        make_private_folder(folder)
        key = library_key(command)
        path = verified_library(folder, key) or compile_library(command, folder, key)
    except (OSError, ClearstoryError) as error:
        return Kernels(None, f"{folder} cannot be used ({first_line(error)})", "set XDG_CACHE_HOME to another folder")
    except subprocess.SubprocessError as error:
        return Kernels(None, f"{name} could not compile them ({first_line(error)})", "name another compiler in CC")
    try:
        return Kernels(declare(ctypes.CDLL(str(path))), f"compiled by {name}")
    except (OSError, AttributeError) as error:
        path.unlink(missing_ok=True)
        return Kernels(None, f"what {name} compiled cannot be loaded ({first_line(error)})", "name another in CC")


def has_avx2() -> bool:
    """Whether the processor has vectors of 256 bits and converts fp16."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def first_line(error: Exception) -> str:
    """The beginning of an error's message; its type without one."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def compiler_command() -> list[str]:
    """The C compiler with its arguments: that of the environment variable CC, else the first of `COMPILERS` on PATH;
    empty without any.
    """
    try:
        wanted = shlex.split(os.environ.get("CC", ""))
    except ValueError:  # a quotation without an end
        wanted = []
    for command in (wanted, *([each] for each in COMPILERS)):
        if command and (path := shutil.which(command[0])):
            return [path, *command[1:]]
    return []


def make_private_folder(folder: Path) -> None:
    """Make the folder of libraries. Raises PermissionError if another user can write into it: what it holds is run."""
    durable.make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    if not is_private(folder):
        raise PermissionError("other users can write to it")


def is_private(path: Path) -> bool:
    """Whether a file or folder belongs to this user, who alone can write it."""
    found = path.stat()
    if not hasattr(os, "geteuid"):  # Windows: a home folder is its user's
        return True
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def verified_library(folder: Path, key: str) -> Path | None:
    """The library of a key whose bytes have the digest in its name; others of this key are removed."""
    for path in sorted(folder.glob(f"{key}-*.so")):
        if path.is_file() and is_private(path) and path.stem == library_name(key, path):
            mark_used(path)
            return path
        path.unlink(missing_ok=True)
    return None


def library_name(key: str, path: Path) -> str:
    """Name of a library: its key, and the digest of its bytes."""
    return f"{key}-{xxhash.xxh3_128_hexdigest(path.read_bytes())}"


def library_key(command: list[str]) -> str:
    """Digest of the sources, the flags, the compiler and the processor's instructions."""
    digest = xxhash.xxh3_128()
    for source in source_files():
        digest.update(source.read_bytes())
    programs = [os.path.realpath(path) for path in map(shutil.which, command) if path]
    stats = [(each, os.stat(each).st_size, os.stat(each).st_mtime_ns) for each in programs]
    digest.update(repr((FLAGS, OPTIONAL_FLAGS, command, stats, instruction_sets())).encode())
    return digest.hexdigest()


def source_files() -> list[Path]:
    """Headers and sources, in one order."""
    folder = Path(__file__).parent
    return [*sorted(folder.glob("*.h")), *sorted(folder.glob("*.c"))]


def instruction_sets() -> str:
    """Instruction sets of the processor as reported by the system; the model name is not sufficient (several EPYC share
    one).
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()} {platform.version()}"


def compile_library(command: list[str], folder: Path, key: str) -> Path:
    """Compile the sources into a shared library. Raises CompilerError with the compiler's message."""
    if sys.stderr is not None and sys.stderr.isatty():
        print("compiling kernels for this processor; this takes a few seconds, once", file=sys.stderr)
    sources = [str(each) for each in source_files() if each.suffix == ".c"]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / "kernels.so"
        for optional in OPTIONAL_FLAGS:
            arguments = [*command, *FLAGS, *optional, *sources, "-lm", "-o", str(made)]
            try:
                done = subprocess.run(
                    arguments, capture_output=True, text=True, errors="replace", timeout=MAX_SECONDS, check=False
                )
            except subprocess.TimeoutExpired:
                raise CompilerError(f"nothing after {MAX_SECONDS} seconds") from None
            except OSError as error:
                raise CompilerError(str(error)) from None
            if done.returncode == 0 and made.is_file():
                made.chmod(0o700)
                path = folder / f"{library_name(key, made)}.so"
                # Two processes may compile at once: each file is complete before it has its name.
                made.replace(path)
                remove_unused(folder, keep=path)
                return path
    raise CompilerError(error_message(done.stderr) or f"exit status {done.returncode} and no library")


def error_message(output: str) -> str:
    """The line of a compiler's output that tells the error."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "")


class CompilerError(subprocess.SubprocessError):
    """The compiler failed."""


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the types of its functions."""
    library.kernels_have_threads.restype = c_int32
    library.kernels_have_threads.argtypes = []
    library.matrix_product.restype = None
    library.matrix_product.argtypes = [POINTER(MatrixStruct), c_void_p, c_int64, c_int64, c_void_p, c_int64, c_int32]
    library.decoder_step.restype = c_int32
    library.decoder_step.argtypes = [
        POINTER(DecoderStruct),
        c_void_p,
        c_int64,
        c_void_p,
        c_void_p,
        c_void_p,
        c_void_p,
        POINTER(CacheStruct),
        c_int32,
    ]
    library.panel_product.restype = c_int32
    library.panel_product.argtypes = [
        *(POINTER(PanelMatrixStruct), c_void_p, c_int64, c_int64, c_void_p, c_int64, c_int64, c_int32),
    ]
    library.panel_top.restype = c_int32
    library.panel_top.argtypes = [
        *(POINTER(PanelMatrixStruct), c_void_p, c_int64, c_int64, c_int64, c_void_p, c_void_p, c_void_p, c_int32),
    ]
    library.encoder_forward.restype = c_int32
    library.encoder_forward.argtypes = [POINTER(EncoderStruct), c_void_p, c_void_p, c_int64, c_int32, c_int32]
    library.cross_decoder_forward.restype = c_int32
    library.cross_decoder_forward.argtypes = [POINTER(CrossDecoderStruct), c_void_p, c_int64, c_void_p, c_int32]
    library.top_tokens.restype = None
    library.top_tokens.argtypes = [c_void_p, c_int64, c_int64, c_int64, c_void_p, c_void_p, c_void_p, c_int32]
    return library
