"""Presets of decoders with published weights: each config equals the published config.json.

Parameter counts therefore equal those of the published weights exactly.
"""

from __future__ import annotations

from dataclasses import replace

from clearstory.models.transformer.config import TransformerConfig

# Grattafiori et al. 2024, table 3; eps and theta as in the published config.json.
LLAMA3_8B = TransformerConfig(
    vocab=128_256,
    context=8192,
    width=4096,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    intermediate_size=14_336,
    norm="rms",
    positions="rotary",
    rope_theta=500_000.0,
    activation="silu",
    gated=True,
    bias=False,
    tie_embeddings=False,
)

LLAMA3_70B = replace(LLAMA3_8B, width=8192, layers=80, heads=64, intermediate_size=28_672)

# Sixteen times the context, by rotary frequencies divided by eight.
LLAMA31_8B = replace(LLAMA3_8B, context=131_072, rope_factor=8.0, rope_original_context=8192)

# Pruned and distilled from Llama 3.1 (Meta 2024, model card of Llama 3.2).
LLAMA32_1B = replace(
    LLAMA31_8B, width=2048, layers=16, head_dim=64, intermediate_size=8192, rope_factor=32.0, tie_embeddings=True
)

# Abdin et al. 2024, section 2; the 4k models' published config.json. Their window is 2,047 tokens.
PHI3_MINI = replace(
    LLAMA3_8B,
    vocab=32_064,
    context=4096,
    width=3072,
    heads=32,
    kv_heads=32,
    head_dim=96,
    intermediate_size=8192,
    rope_theta=10_000.0,
    sliding_window=2047,
)

# Yang et al. 2025, table 1. Heads are of size 128 at every width.
QWEN3_8B = replace(
    LLAMA3_8B,
    vocab=151_936,
    context=40_960,
    layers=36,
    intermediate_size=12_288,
    norm_eps=1e-6,
    rope_theta=1_000_000.0,
    qk_norm=True,
)
QWEN3_SMALL = replace(QWEN3_8B, layers=28, heads=16, tie_embeddings=True)

# Allal et al. 2025: Llama's architecture, small.
SMOLLM2_135M = replace(
    LLAMA3_8B,
    vocab=49_152,
    width=576,
    layers=30,
    heads=9,
    kv_heads=3,
    head_dim=64,
    intermediate_size=1536,
    rope_theta=100_000.0,
    tie_embeddings=True,
)

PUBLISHED: dict[str, TransformerConfig] = {
    "llama3-8b": LLAMA3_8B,
    "llama3-70b": LLAMA3_70B,
    "llama3.1-8b": LLAMA31_8B,
    "llama3.1-70b": replace(LLAMA31_8B, width=8192, layers=80, heads=64, intermediate_size=28_672),
    "llama3.2-1b": LLAMA32_1B,
    "llama3.2-3b": replace(LLAMA32_1B, width=3072, layers=28, heads=24, head_dim=128),
    "phi3-mini": PHI3_MINI,
    "phi3-medium": replace(
        PHI3_MINI, width=5120, layers=40, heads=40, kv_heads=10, head_dim=128, intermediate_size=17_920
    ),
    "qwen3-0.6b": replace(QWEN3_SMALL, width=1024, intermediate_size=3072),
    "qwen3-1.7b": replace(QWEN3_SMALL, width=2048, intermediate_size=6144),
    "qwen3-4b": replace(QWEN3_8B, width=2560, intermediate_size=9728, tie_embeddings=True),
    "qwen3-8b": QWEN3_8B,
    "qwen3-14b": replace(QWEN3_8B, width=5120, layers=40, heads=40, intermediate_size=17_408),
    "qwen3-32b": replace(QWEN3_8B, width=5120, layers=64, heads=64, intermediate_size=25_600),
    "smollm2-135m": SMOLLM2_135M,
    "smollm2-360m": replace(SMOLLM2_135M, width=960, layers=32, heads=15, kv_heads=5, intermediate_size=2560),
    "smollm2-1.7b": replace(
        SMOLLM2_135M, width=2048, layers=24, heads=32, kv_heads=32, intermediate_size=8192, rope_theta=130_000.0
    ),
}
