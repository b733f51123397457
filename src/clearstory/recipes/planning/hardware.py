"""Hardware: what processors can do at most, by their makers' data sheets, to reckon with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class HardwareSpec:
    """One kind of processor.

    Args:
        name: what it is called.
        flops: peak floating-point operations a second in dense bf16 products, accumulated in fp32.
        memory: bytes.
        watts: board power; None where its maker does not say.
        source: where the three numbers stand.
        precision: what training on it is reckoned in.
    """

    name: str
    flops: float
    memory: int
    watts: float | None
    source: str
    precision: str = "bf16"


HARDWARE = (
    HardwareSpec(
        name="RTX 4090",
        flops=165.2e12,
        memory=24 * 10**9,
        watts=450,
        source="NVIDIA Ada GPU Architecture whitepaper v2, appendix A: bf16 tensor, fp32 accumulate, dense",
    ),
    HardwareSpec(
        name="A100 80GB SXM",
        flops=312e12,
        memory=80 * 10**9,
        watts=400,
        source="NVIDIA A100 data sheet: bf16 tensor core, dense",
    ),
    HardwareSpec(
        name="H100 SXM",
        flops=989.4e12,
        memory=80 * 10**9,
        watts=700,
        source="NVIDIA H100 Tensor Core GPU Architecture whitepaper, table 2: bf16 tensor, dense",
    ),
    HardwareSpec(
        name="TPU v5e",
        flops=197e12,
        memory=16 * 10**9,
        watts=None,
        source="Google Cloud documentation, TPU v5e: peak compute per chip, bf16",
    ),
    HardwareSpec(
        name="TPU v5p",
        flops=459e12,
        memory=95 * 10**9,
        watts=None,
        source="Google Cloud documentation, TPU v5p: peak compute per chip, bf16",
    ),
)
"""Dense products, not the doubled figures of sparse ones. The TPUs' were read in the document that is named, NVIDIA's
where others cite it: check them before much money hangs on one.
"""
