"""Presets of the Transformer: named configs, each a difference from another."""

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

# Gemma Team 2025, section 2 and table 1, and the published config.json: five layers with a window to one without.
GEMMA3_1B = replace(
    LLAMA3_8B,
    vocab=262_144,
    context=32_768,
    width=1152,
    layers=26,
    heads=4,
    kv_heads=1,
    head_dim=256,
    intermediate_size=6912,
    norm="rms_unit_offset",
    norm_eps=1e-6,
    sandwich_norm=True,
    embed_scale=True,
    rope_theta=1_000_000.0,
    local_rope_theta=10_000.0,
    activation="gelu_tanh",
    tie_embeddings=True,
    qk_norm=True,
    sliding_window=512,
    global_interval=6,
)

PUBLISHED: dict[str, TransformerConfig] = {
    "gemma3-270m": replace(GEMMA3_1B, width=640, layers=18, intermediate_size=2048),
    "gemma3-1b": GEMMA3_1B,
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
"""Presets of decoders with published weights: each config equals the published config.json, so parameter counts equal
those of the published weights exactly.
"""


def _heads(config: TransformerConfig, width: int, heads: int, layers: int, **other: object) -> TransformerConfig:
    """The config at another size in GPT's proportions: full heads, feed-forward four times as wide."""
    return replace(
        config,
        width=width,
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        intermediate_size=4 * width,
        layers=layers,
        **other,  # type: ignore[arg-type]  # field names are checked by replace itself
    )


# Radford et al. 2019, table 2; the names and sizes of the published weights.
GPT2 = TransformerConfig(
    vocab=50_257, context=1024, width=768, layers=12, heads=12, kv_heads=12, head_dim=64, intermediate_size=3072
)

# Brown et al. 2020, table 2.1. Their alternating banded attention is not modelled: every layer attends to all.
GPT3 = replace(GPT2, context=2048)

# Our own preset: the architecture of Qwen3 (Yang et al. 2025), so that other tools open it; sized by `clear_config`.
CLEAR = replace(
    LLAMA3_8B,
    vocab=8192,
    context=256,
    width=192,
    layers=5,
    heads=3,
    kv_heads=3,
    head_dim=64,
    intermediate_size=512,
    norm_eps=1e-6,
    rope_theta=10_000.0,
    tie_embeddings=False,
    qk_norm=True,
)

# Devlin et al. 2019, section 3; eps and positions as in the published config.json.
BERT_BASE = replace(
    _heads(GPT2, width=768, heads=12, layers=12),
    architecture="encoder",
    vocab=30_522,
    context=512,
    norm_eps=1e-12,
    norm_first=False,
    embed_norm=True,
    token_types=2,
    activation="gelu",
    unembed_bias=True,
    mlm_transform=True,
    pooler=True,
    dropout=0.1,
)

# Turc et al. 2019, table 1: the small BERTs.
BERT_TINY = _heads(BERT_BASE, width=128, heads=2, layers=2)

# Wang et al. 2020 (MiniLM), as the published sentence encoder has it: twelve heads of 32, no MLM head.
MINILM = replace(_heads(BERT_BASE, width=384, heads=12, layers=6), mlm_transform=False, unembed_bias=False)

# Vaswani et al. 2017, table 3: base. Post-norm, sinusoidal positions, one embedding for source, target and output.
TRANSFORMER_BASE = replace(
    _heads(GPT2, width=512, heads=8, layers=6),
    architecture="encoder-decoder",
    vocab=37_000,
    norm_first=False,
    embed_scale=True,
    positions="sinusoidal",
    activation="relu",
    dropout=0.1,
)

# Raffel et al. 2020, section 3.1.2, as the published config.json has it. Relative positions, so any context.
T5_SMALL = replace(
    _heads(GPT2, width=512, heads=8, layers=6),
    architecture="encoder-decoder",
    vocab=32_128,
    context=512,
    norm="rms",
    norm_eps=1e-6,
    positions="relative_bias",
    activation="relu",
    bias=False,
    attention_scale=1.0,
    logit_scale=True,
    dropout=0.1,
)

# Shazeer 2020, and T5's release 1.1: gated, untied unembedding.
T5_11_SMALL = replace(
    T5_SMALL, heads=6, kv_heads=6, layers=8, intermediate_size=1024, activation="gelu_tanh", gated=True,
    tie_embeddings=False, logit_scale=False,
)  # fmt: skip

# Our own preset for translation in CPU minutes: T5 1.1's architecture with one embedding, so that other tools open it.
# Its dropout is for runs without a time limit; others choose it by their number of epochs.
CLEAR_TRANSLATE = replace(
    T5_11_SMALL, vocab=8192, context=256, width=192, heads=3, kv_heads=3, layers=3, intermediate_size=384,
    activation="silu", tie_embeddings=True, dropout=0.1,
)  # fmt: skip

# Junczys-Dowmunt et al. 2018 (Marian), as Helsinki-NLP's opus-mt models have it.
MARIAN = replace(TRANSFORMER_BASE, vocab=58_101, context=512, activation="silu", unembed_bias=True)

# nanoGPT's config/train_shakespeare_char.py as its README runs it on a CPU: no biases, no dropout.
NANOGPT_CHAR = _heads(replace(GPT2, vocab=67, context=64, bias=False), width=128, heads=4, layers=4)

# Another architecture of our own, for characters and bytes: a small network with hashed n-grams of the last tokens.
# No other tool opens it. The size was chosen on presidents' addresses, not on the texts it is measured on.
RECALL = replace(
    CLEAR,
    vocab=67,
    context=128,
    width=64,
    layers=1,
    heads=4,
    kv_heads=1,
    head_dim=16,
    intermediate_size=128,
    tie_embeddings=False,
    recall=(2, 3, 4, 5, 6, 8),
    recall_rows=2**17,
)

# The same for subwords: `clear`, at its size, with tables of 50 MB in fp32 at any vocabulary. Orders, rows and their
# size were chosen on presidents' addresses; four times the rows gain 0.03 nats per token there and lose it to saving.
RECALL_SUBWORDS = replace(CLEAR, recall=(2, 3, 4), recall_rows=2**16, recall_dim=64)

MAX_VOCAB_OF_HASHED_LOGITS = 1024
"""The largest vocabulary for which `recall` stores a logit of every token, beside its own small network."""

TRANSFORMER_PRESETS: dict[str, TransformerConfig] = {
    "gpt2": GPT2,
    "gpt2-medium": _heads(GPT2, width=1024, heads=16, layers=24),
    "gpt2-large": _heads(GPT2, width=1280, heads=20, layers=36),
    "gpt2-xl": _heads(GPT2, width=1600, heads=25, layers=48),
    "gpt3-small": _heads(GPT3, width=768, heads=12, layers=12),
    "gpt3-medium": _heads(GPT3, width=1024, heads=16, layers=24),
    "gpt3-large": _heads(GPT3, width=1536, heads=16, layers=24),
    "gpt3-xl": replace(_heads(GPT3, width=2048, heads=24, layers=24), head_dim=128),
    "gpt3-2.7b": _heads(GPT3, width=2560, heads=32, layers=32),
    "gpt3-6.7b": _heads(GPT3, width=4096, heads=32, layers=32),
    "gpt3-13b": replace(_heads(GPT3, width=5140, heads=40, layers=40), head_dim=128),
    "gpt3-175b": _heads(GPT3, width=12_288, heads=96, layers=96),
    **PUBLISHED,
    "bert-tiny": BERT_TINY,
    "bert-mini": _heads(BERT_BASE, width=256, heads=4, layers=4),
    "bert-small": _heads(BERT_BASE, width=512, heads=8, layers=4),
    "bert-base": BERT_BASE,
    "bert-large": _heads(BERT_BASE, width=1024, heads=16, layers=24),
    "minilm": MINILM,
    "transformer-base": TRANSFORMER_BASE,
    "transformer-big": replace(_heads(TRANSFORMER_BASE, width=1024, heads=16, layers=6), dropout=0.3),
    "t5-small": T5_SMALL,
    "t5-base": _heads(T5_SMALL, width=768, heads=12, layers=12),
    "t5-large": _heads(T5_SMALL, width=1024, heads=16, layers=24),
    "t5-v1.1-small": T5_11_SMALL,
    "t5-v1.1-base": replace(T5_11_SMALL, width=768, heads=12, kv_heads=12, layers=12, intermediate_size=2048),
    "marian": MARIAN,
    "clear-translate": CLEAR_TRANSLATE,
    "nanogpt-char": NANOGPT_CHAR,
    "clear": CLEAR,
    "recall": RECALL,
}

TRANSFORMER_USES: dict[str, str] = {
    name: use
    for prefix, use in {
        "clear": "default: trains in minutes on a CPU; its size is chosen for the training time",
        "recall": "small Transformer with hashed n-gram embeddings; trains in minutes on a CPU",
        "clear-translate": "translation and other text-to-text tasks; trains in minutes on a CPU",
        "nanogpt-char": "nanoGPT's character-level model for a CPU",
        "gpt2": "GPT-2; published weights can be loaded",
        "gpt3": "sizes of GPT-3, for the command plan; the weights are not published",
        "gemma3": "Gemma 3; published weights can be loaded; the smallest model runs on any laptop",
        "llama3": "Llama 3; published weights can be loaded",
        "phi3": "Phi-3; published weights can be loaded",
        "qwen3": "Qwen3; published weights can be loaded",
        "smollm2": "SmolLM2; published weights can be loaded; the smallest model runs on any laptop",
        "bert": "BERT, for masked language modelling, embeddings and classification; the small sizes train on a CPU",
        "minilm": "MiniLM sentence encoder; published weights can be loaded",
        "transformer": "Transformer of Vaswani et al. 2017, for translation",
        "t5": "T5, for text-to-text tasks; published weights can be loaded",
        "marian": "Marian translation models (Helsinki-NLP); published weights can be loaded",
    }.items()
    for name in TRANSFORMER_PRESETS
    if name == prefix or (name.startswith(prefix) and not prefix.startswith("clear"))
}
"""Purpose of each preset, in a phrase; presets with the same prefix share one."""
