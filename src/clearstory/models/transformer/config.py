"""TransformerConfig: the settings in which Transformers differ, checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from clearstory.errors import BadSetting

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
Norm = Literal["layer", "rms"]
Positions = Literal["learned", "rotary", "sinusoidal", "relative_bias", "none"]
Architecture = Literal["encoder", "decoder", "encoder-decoder"]
Labelled = Literal["text", "token"]


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """One Transformer's shape and wiring. A preset is a difference from another (`dataclasses.replace`).

    Args:
        architecture: encoder (reads both ways), decoder (left to right), or a decoder that looks across at an encoder.
        vocab: tokens the model knows.
        context: tokens it can look back on, itself included.
        width: length of the residual stream's vectors (d_model).
        layers: blocks, one above the other.
        decoder_layers: blocks of the decoder beside an encoder; 0 for as many as the encoder's.
        decoder_start_token_id: the token that a decoder beside an encoder writes after; the tokenizer's when not given.
        heads: query heads in each block.
        kv_heads: key and value heads; fewer than heads means grouped queries (Ainslie et al. 2023).
        head_dim: length of each head's queries and keys.
        intermediate_size: width of the feed-forward layer.
        norm: layer norm (Ba et al. 2016) or root-mean-square norm (Zhang and Sennrich 2019).
        norm_eps: added under the norm's root.
        norm_first: each step reads a normed stream (Radford et al. 2019), or the norm follows (Vaswani et al. 2017).
        embed_norm: whether what the first block reads is normed (Devlin et al. 2019).
        embed_scale: whether embeddings are multiplied by the root of the width (Vaswani et al. 2017, section 3.4).
        token_types: kinds of sentence a token may belong to, each with a vector (Devlin et al. 2019); 0 for none.
        positions: learned rows, rotary angles (Su et al. 2021), sines and cosines (Vaswani et al. 2017), learnt biases
            by bucketed distance (Raffel et al. 2020) or none.
        rope_theta: longest wavelength of the rotary angles, in tokens over two pi.
        rope_factor: how many times slower the angles turn, so that a model reads texts longer than it learnt on.
        rope_original_context: context before it was stretched: pairs that turn often within it keep their speed, as in
            Llama 3.1; None slows all pairs alike (Chen et al. 2023).
        activation: the feed-forward layer's bend.
        gated: whether the feed-forward layer multiplies by a gate (Shazeer 2020).
        bias: whether linear maps and layer norms add a vector.
        tie_embeddings: whether the unembedding is the embedding's transpose (Press and Wolf 2017).
        qk_norm: whether each head's queries and keys are root-mean-square normalised (Dehghani et al. 2023).
        attention_scale: what queries times keys are multiplied by; None for 1/√head_dim (T5: 1).
        logit_scale: whether vectors are divided by the root of the width before the unembedding (T5).
        unembed_bias: whether each word has a logit of its own beside its vector (BERT, Marian).
        mlm_transform: whether a linear map, a bend and a norm stand before the unembedding (BERT).
        pooler: whether an encoder's first vector is mapped once more, to stand for the text; beside `mlm_transform`, to
            say if a sentence follows another too (BERT).
        labels: what a head tells apart, by name, in the order of its logits; none for most.
        label_level: what has a label, a text (told from the pooler's vector) or each token (from its own).
        sliding_window: tokens each one may look back on, itself included; None for all of the context.
        dropout: share of the embedding, and of what each step adds to the stream, that is dropped in training.
        recall: orders of the hashed n-grams whose learnt rows stand beside the network; none for most.
        recall_rows: rows of each order's table.
    """

    architecture: Architecture = "decoder"
    vocab: int
    context: int
    width: int
    layers: int
    decoder_layers: int = 0
    decoder_start_token_id: int | None = None
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    norm: Norm = "layer"
    norm_eps: float = 1e-5
    norm_first: bool = True
    embed_norm: bool = False
    embed_scale: bool = False
    token_types: int = 0
    positions: Positions = "learned"
    rope_theta: float = 10_000.0
    rope_factor: float = 1.0
    rope_original_context: int | None = None
    activation: Activation = "gelu_tanh"
    gated: bool = False
    bias: bool = True
    tie_embeddings: bool = True
    qk_norm: bool = False
    attention_scale: float | None = None
    logit_scale: bool = False
    unembed_bias: bool = False
    mlm_transform: bool = False
    pooler: bool = False
    labels: tuple[str, ...] = ()
    label_level: Labelled = "text"
    sliding_window: int | None = None
    dropout: float = 0.0
    recall: tuple[int, ...] = ()
    recall_rows: int = 0

    @property
    def family(self) -> str:
        """The kind in one word."""
        return "transformer"

    @property
    def start_token_id(self) -> int | None:
        """The token that generation starts after; None where the tokenizer says it."""
        return self.decoder_start_token_id

    @property
    def summary(self) -> str:
        """The model in words."""
        layers = f"{self.layers} layer{'s' * (self.layers > 1)}"
        if self.architecture == "encoder-decoder":
            layers = f"{self.layers} and {self.decoder_layers or self.layers} layers"
        return f"{layers} of width {self.width}, context {self.context}"

    def __post_init__(self) -> None:
        for name in ("vocab", "context", "width", "layers", "heads", "kv_heads", "head_dim", "intermediate_size"):
            value = getattr(self, name)
            # A ceiling, so that a lying config.json is refused before anything is allocated.
            if not 1 <= value <= 2**24:
                raise BadSetting(f"model.{name} is {value:,}; it must lie between 1 and {2**24:,}")
        if self.heads % self.kv_heads:
            raise BadSetting(
                f"{self.heads} query heads do not share {self.kv_heads} key-value heads evenly; "
                f"set model.kv_heads to a divisor of {self.heads}"
            )
        if self.positions == "rotary" and self.head_dim % 2:
            raise BadSetting(f"rotary positions turn pairs, and model.head_dim is {self.head_dim}; make it even")
        if not 1 <= self.rope_factor <= 2**16:
            raise BadSetting(f"model.rope_factor is {self.rope_factor}; it must lie between 1 and {2**16:,}")
        if self.rope_original_context is not None and not 1 <= self.rope_original_context <= 2**24:
            raise BadSetting(
                f"model.rope_original_context is {self.rope_original_context}; it must lie between 1 and {2**24:,}, or null"
            )
        if not 0 <= self.dropout < 1:
            raise BadSetting(f"model.dropout is {self.dropout}; it must be at least 0 and under 1")
        if self.sliding_window is not None and self.sliding_window < 1:
            raise BadSetting(
                f"model.sliding_window is {self.sliding_window}; it must be at least 1, or null for all of the context"
            )
        if self.recall and (
            min(self.recall) < 2 or list(self.recall) != sorted(set(self.recall)) or self.recall[-1] > 32
        ):
            raise BadSetting(f"model.recall is {self.recall}; give rising orders from 2 to 32")
        if self.recall and not 1 <= self.recall_rows * len(self.recall) * self.vocab <= 2**31:
            raise BadSetting(
                f"{len(self.recall)} tables of {self.recall_rows:,} rows of {self.vocab:,} tokens are none or too many "
                "numbers; set model.recall_rows, and use a small vocabulary: characters or bytes"
            )
        if not 0 <= self.decoder_layers <= 2**12 or not 0 <= self.token_types <= 2**12:
            raise BadSetting(
                f"model.decoder_layers is {self.decoder_layers} and model.token_types {self.token_types}; "
                "neither may be negative, nor over 4,096"
            )
        if self.decoder_start_token_id is not None and not 0 <= self.decoder_start_token_id < self.vocab:
            raise BadSetting(
                f"model.decoder_start_token_id is {self.decoder_start_token_id:,}; it must be one of the {self.vocab:,} tokens, from 0"
            )
        if len(self.labels) > MOST_LABELS:
            raise BadSetting(f"model.labels are {len(self.labels):,}; give at most {MOST_LABELS:,}")
        if len(set(self.labels)) < len(self.labels):
            [(twice, _)] = Counter(self.labels).most_common(1)
            raise BadSetting(f"model.labels has {twice[:60]!r} more than once; give each label a name of its own")
        if self.attention_scale is not None and not 0 < self.attention_scale < 1e6:
            raise BadSetting(f"model.attention_scale is {self.attention_scale}; it must be positive, or null")
        for name, kinds in ONLY.items():
            if getattr(self, name) != self.__dataclass_fields__[name].default and self.architecture not in kinds:
                raise BadSetting(
                    f"model.{name} is {getattr(self, name)} and model.architecture '{self.architecture}'; only {' and '.join(kinds)} "
                    f"models have it, so leave model.{name} out or choose such a kind"
                )
        if self.labels and self.label_level == "text" and not self.pooler:
            raise BadSetting(
                "model.labels are of texts, which a pooler's vector stands for, and model.pooler is false; set it to "
                "true, or model.label_level to token"
            )
        if self.norm_eps <= 0 or self.rope_theta <= 0:
            raise BadSetting(
                f"model.norm_eps ({self.norm_eps}) and model.rope_theta ({self.rope_theta}) must be positive"
            )


MOST_LABELS = 2**16
"""The longest list of classes that anyone tells of a text has some thirty thousand."""

ONLY: dict[str, tuple[Architecture, ...]] = {
    "decoder_layers": ("encoder-decoder",),
    "decoder_start_token_id": ("encoder-decoder",),
    "token_types": ("encoder",),
    "mlm_transform": ("encoder",),
    "pooler": ("encoder",),
    "labels": ("encoder",),
    "label_level": ("encoder",),
    "unembed_bias": ("encoder", "encoder-decoder"),
    "logit_scale": ("encoder-decoder",),
    "recall": ("decoder",),
}
"""Fields that only some kinds have."""
