"""Private operators of PyTorch: those that kernels.py names exist in this torch, where their library is available."""

from __future__ import annotations

import ast
import inspect
import platform
from functools import reduce

import pytest
import torch

from clearstory.models.matmul import kernels

X86 = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="these libraries are for x86 processors"
)


def available(library: str) -> bool:
    """Whether torch itself says that it has a library."""
    if library == "onednn":
        return torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's
    return library == "aten" or library in torch.backends.quantized.supported_engines


LIBRARIES = {
    "has_onednn": "onednn",
    "has_fbgemm": "fbgemm",
    "has_fp16_weights": "fbgemm",
    "has_int8_weights": "fbgemm",
    "has_int4_weights": "aten",
}


def names_of_torch(source: str) -> set[str]:
    """Dotted names under torch in a source, and the attributes that it asks for by `hasattr`."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            names.add(ast.unparse(node))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "hasattr":
            names.add(f"{ast.unparse(node.args[0])}.{ast.literal_eval(node.args[1])}")
    return {name for name in names if name.startswith("torch.") and "(" not in name}


def missing_names(names: set[str]) -> list[str]:
    """Names under torch that this torch does not have, without those of libraries that it was built without."""
    libraries = {"torch.ops.mkldnn.": "onednn", "torch.ops.quantized.": "fbgemm", "torch.fbgemm_": "fbgemm"}
    missing = []
    for name in sorted(names):
        library = next((library for start, library in libraries.items() if name.startswith(start)), "aten")
        try:
            reduce(getattr, name.split(".")[1:], torch)
        except AttributeError:
            missing += [name] if available(library) else []
    return missing


@X86
def test_no_operator_has_vanished_from_torch() -> None:
    names = names_of_torch(inspect.getsource(kernels))
    assert {"torch.ops.mkldnn._linear_pointwise", "torch.fbgemm_pack_gemm_matrix_fp16"} <= names
    missing = missing_names(names)
    assert not missing, f"torch {torch.__version__} has no {', '.join(missing)}: kernels.py needs another way"


@X86
def test_a_vanished_operator_is_named() -> None:
    vanished = "torch.ops.aten._vanished_mm"
    source = f'{vanished}.default(torch.ops.mkldnn._gone)\nhasattr(torch.ops.quantized, "left")\ntorch.zeros(1)'
    expected = {f"{vanished}.default", vanished}
    expected |= {"torch.ops.mkldnn._gone"} if available("onednn") else set()
    expected |= {"torch.ops.quantized.left"} if available("fbgemm") else set()
    assert set(missing_names(names_of_torch(source))) == expected


@X86
def test_kernels_are_available_where_their_library_is() -> None:
    assert {name for name in vars(kernels) if name.startswith("has_")} == LIBRARIES.keys()
    for name, library in LIBRARIES.items():
        found = getattr(kernels, name)()
        assert found == available(library), f"kernels.{name}() is {found} in torch {torch.__version__} with {library}"
