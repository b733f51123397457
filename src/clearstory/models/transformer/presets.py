"""Presets of the Transformer: named configs, each a difference from another."""

from __future__ import annotations

from dataclasses import replace

from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.published import LLAMA3_8B, PUBLISHED


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

# Our own preset for translation in CPU minutes: T5 1.1's architecture, so that other tools open it.
CLEAR_TRANSLATE = replace(
    T5_11_SMALL, vocab=8192, context=256, width=256, heads=4, kv_heads=4, layers=3, intermediate_size=512,
    activation="silu", dropout=0.0,
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
