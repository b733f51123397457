"""Peak FLOP/s, memory and power of common hardware, from the manufacturers' data sheets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class HardwareSpec:
    """One kind of hardware.

    Args:
        name: its name.
        peak_flops: peak FLOP/s of dense bf16 matrix products, accumulated in fp32.
        memory: bytes.
        watts: board power; None where it is not published.
        source: document of these numbers.
        precision: precision of training in the estimate.
    """

    name: str
    peak_flops: float
    memory: int
    watts: float | None
    source: str
    precision: str = "bf16"


HARDWARE = (
    HardwareSpec(
        name="RTX 4090",
        peak_flops=165.2e12,
        memory=24 * 10**9,
        watts=450,
        source="NVIDIA Ada GPU Architecture whitepaper v2, appendix A: bf16 tensor, fp32 accumulate, dense",
    ),
    HardwareSpec(
        name="A100 80GB SXM",
        peak_flops=312e12,
        memory=80 * 10**9,
        watts=400,
        source="NVIDIA A100 data sheet: bf16 tensor core, dense",
    ),
    HardwareSpec(
        name="H100 SXM",
        peak_flops=989.4e12,
        memory=80 * 10**9,
        watts=700,
        source="NVIDIA H100 Tensor Core GPU Architecture whitepaper, table 2: bf16 tensor, dense",
    ),
    HardwareSpec(
        name="TPU v5e",
        peak_flops=197e12,
        memory=16 * 10**9,
        watts=None,
        source="Google Cloud documentation, TPU v5e: peak compute per chip, bf16",
    ),
    HardwareSpec(
        name="TPU v5p",
        peak_flops=459e12,
        memory=95 * 10**9,
        watts=None,
        source="Google Cloud documentation, TPU v5p: peak compute per chip, bf16",
    ),
)
"""Peak FLOP/s of dense products, not the doubled figures for sparsity. The numbers of TPUs were read in the named
documents, those of NVIDIA in citations of them: check them before an expensive decision.
"""
