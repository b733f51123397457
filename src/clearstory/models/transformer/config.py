"""TransformerConfig: settings of Transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clearstory.errors import BadSetting

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
Norm = Literal["layer", "rms", "rms_unit_offset"]
Positions = Literal["learned", "rotary", "sinusoidal", "relative_bias", "none"]
Architecture = Literal["encoder", "decoder", "encoder-decoder"]
DecoderAutoregression = Literal["self_attention", "ssru"]


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Size and architecture of a Transformer. A preset is a difference from another (`dataclasses.replace`).

    Args:
        architecture: encoder (bidirectional), decoder (causal), or encoder-decoder (a decoder with cross-attention to
            an encoder).
        vocab: vocabulary size in tokens.
        context: longest sequence in tokens.
        width: size of the residual stream (d_model).
        layers: number of blocks.
        decoder_layers: number of decoder blocks of an encoder-decoder; 0: as many as encoder blocks.
        decoder_start_token_id: token that the decoder of an encoder-decoder starts from; default: the tokenizer's.
        decoder_autoregression: how the decoder of an encoder-decoder processes previous target tokens: self_attention,
            or ssru, a recurrence (Kim et al. 2019).
        heads: number of query heads in each block.
        kv_heads: number of key and value heads in each block; fewer than heads for grouped-query attention (Ainslie et
            al. 2023).
        head_dim: size of each head's queries, keys and values.
        intermediate_size: hidden size of the feed-forward layers.
        norm: layer: layer norm (Ba et al. 2016); rms: RMS norm (Zhang and Sennrich 2019); rms_unit_offset: RMS norm
            with gains of 1 + weight (Gemma).
        norm_eps: epsilon of the norms.
        norm_first: whether norms precede the sublayers (pre-norm; Radford et al. 2019) or follow them (post-norm;
            Vaswani et al. 2017).
        sandwich_norm: whether each sublayer's output is normalised before it is added to the residual stream, in
            addition to its input (Ding et al. 2021, section 2.4; Gemma 3).
        embed_norm: whether the input of the first block is normalised (Devlin et al. 2019).
        embed_scale: whether embeddings are multiplied by the square root of the width (Vaswani et al. 2017, section
            3.4).
        token_types: number of token types, each with an embedding (Devlin et al. 2019); 0: none.
        positions: learned (position embeddings), rotary (Su et al. 2021), sinusoidal (Vaswani et al. 2017),
            relative_bias (Raffel et al. 2020) or none.
        rope_theta: base of the rotary frequencies.
        rope_factor: factor by which rotary frequencies are divided to extend the context.
        rope_original_context: context before the extension; rotary pairs of high frequency are not changed, as in Llama
            3.1; None: all frequencies are divided (Chen et al. 2023).
        activation: activation function of the feed-forward layers.
        gated: whether feed-forward layers are gated (Shazeer 2020).
        bias: whether linear layers and layer norms have biases.
        tie_embeddings: whether the unembedding is the transpose of the embedding matrix (Press and Wolf 2017).
        qk_norm: whether queries and keys of each head are RMS-normalised (Dehghani et al. 2023).
        attention_scale: factor of attention scores; None: 1/√head_dim (T5: 1).
        logit_scale: whether final hidden states are divided by the square root of the width (T5).
        unembed_bias: whether the unembedding has a bias (BERT, Marian).
        mlm_transform: whether a linear layer, an activation and a norm precede the unembedding, as in the masked
            language modelling head of BERT.
        pooler: whether an encoder has a pooler, a linear layer on the first token's hidden state; with mlm_transform,
            also a next-sentence prediction head (BERT).
        sliding_window: number of tokens that each token attends to, including itself; None: the whole context.
        global_interval: every n-th layer attends to the whole context, the others to the sliding window (Gemma 3: 6);
            None: all layers are alike.
        local_rope_theta: base of the rotary frequencies of sliding-window layers, to which rope_factor does not apply;
            None: the base of all layers.
        dropout: dropout rate of embeddings and sublayer outputs in training.
        recall: orders of the hashed n-grams whose learned predictions are added to the network's; empty: none.
        recall_rows: number of rows in each order's table of hashed n-grams.
        recall_dim: size of a row, a vector that is added to hidden states after a projection; 0: a row has a logit for
            every token, which is better for small vocabularies.
    """

    architecture: Architecture = "decoder"
    vocab: int
    context: int
    width: int
    layers: int
    decoder_layers: int = 0
    decoder_start_token_id: int | None = None
    decoder_autoregression: DecoderAutoregression = "self_attention"
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    norm: Norm = "layer"
    norm_eps: float = 1e-5
    norm_first: bool = True
    sandwich_norm: bool = False
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
    sliding_window: int | None = None
    global_interval: int | None = None
    local_rope_theta: float | None = None
    dropout: float = 0.0
    recall: tuple[int, ...] = ()
    recall_rows: int = 0
    recall_dim: int = 0

    @property
    def family(self) -> str:
        """The family in one word: transformer."""
        return "transformer"

    @property
    def start_token_id(self) -> int | None:
        """The token that generation starts after; None if the tokenizer names it."""
        return self.decoder_start_token_id

    def is_local(self, layer: int) -> bool:
        """Whether a layer has the sliding window while others attend to the whole context."""
        return self.global_interval is not None and (layer + 1) % self.global_interval != 0

    def window(self, layer: int) -> int | None:
        """Tokens that each token attends to in a layer; None for the whole context."""
        return self.sliding_window if self.global_interval is None or self.is_local(layer) else None

    @property
    def cache_window(self) -> int | None:
        """Tokens whose keys and values some layer needs; None for the whole context."""
        return self.sliding_window if self.global_interval is None else None

    @property
    def summary(self) -> str:
        """Layers, width and context in one phrase."""
        layers = f"{self.layers} layer{'s' * (self.layers > 1)}"
        if self.architecture == "encoder-decoder":
            layers = f"{self.layers} and {self.decoder_layers or self.layers} layers"
        return f"{layers} of width {self.width}, context {self.context}"

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_positions()
        self._check_hashed_ngrams()
        self._check_heads()
        if not 0 <= self.dropout < 1:
            raise BadSetting(f"model.dropout is {self.dropout}; it must be at least 0 and under 1")
        if self.norm_eps <= 0 or self.rope_theta <= 0:
            raise BadSetting(
                f"model.norm_eps ({self.norm_eps}) and model.rope_theta ({self.rope_theta}) must be positive"
            )

    def _check_sizes(self) -> None:
        for name in ("vocab", "context", "width", "layers", "heads", "kv_heads", "head_dim", "intermediate_size"):
            value = getattr(self, name)
            # A ceiling, so that a lying config.json is refused before anything is allocated.
            if not 1 <= value <= 2**24:
                raise BadSetting(f"model.{name} is {value:,}; it must lie between 1 and {2**24:,}")
        if self.heads % self.kv_heads:
            raise BadSetting(
                f"{self.heads} query heads cannot share {self.kv_heads} key-value heads evenly; "
                f"set model.kv_heads to a divisor of {self.heads}"
            )
        if not 0 <= self.decoder_layers <= 2**12 or not 0 <= self.token_types <= 2**12:
            raise BadSetting(
                f"model.decoder_layers is {self.decoder_layers} and model.token_types {self.token_types}; "
                "both must lie between 0 and 4,096"
            )
        if self.decoder_start_token_id is not None and not 0 <= self.decoder_start_token_id < self.vocab:
            raise BadSetting(
                f"model.decoder_start_token_id is {self.decoder_start_token_id:,}; it must be one of the "
                f"{self.vocab:,} tokens, from 0"
            )
        if self.attention_scale is not None and not 0 < self.attention_scale < 1e6:
            raise BadSetting(f"model.attention_scale is {self.attention_scale}; it must be positive, or null")

    def _check_positions(self) -> None:
        if self.positions == "rotary" and self.head_dim % 2:
            raise BadSetting(f"rotary positions rotate pairs, and model.head_dim is {self.head_dim}; make it even")
        if not 1 <= self.rope_factor <= 2**16:
            raise BadSetting(f"model.rope_factor is {self.rope_factor}; it must lie between 1 and {2**16:,}")
        if self.rope_original_context is not None and not 1 <= self.rope_original_context <= 2**24:
            raise BadSetting(
                f"model.rope_original_context is {self.rope_original_context}; it must lie between 1 and {2**24:,}, or "
                "null"
            )
        if self.sliding_window is not None and self.sliding_window < 1:
            raise BadSetting(
                f"model.sliding_window is {self.sliding_window}; it must be at least 1, or null for the whole context"
            )
        self._check_local_layers()

    def _check_local_layers(self) -> None:
        interval, theta = self.global_interval, self.local_rope_theta
        if interval is not None and (interval < 2 or self.sliding_window is None):
            raise BadSetting(
                f"model.global_interval is {interval} and model.sliding_window {self.sliding_window}; the interval "
                "must be at least 2, and the layers between need a window, or leave model.global_interval out"
            )
        if theta is not None and (theta <= 0 or interval is None or self.positions != "rotary"):
            raise BadSetting(
                f"model.local_rope_theta is {theta}, model.global_interval {interval} and model.positions "
                f"'{self.positions}'; it must be positive, with layers of both kinds and rotary positions"
            )

    def _check_hashed_ngrams(self) -> None:
        if self.recall and (
            min(self.recall) < 2 or list(self.recall) != sorted(set(self.recall)) or self.recall[-1] > 32
        ):
            raise BadSetting(f"model.recall is {self.recall}; give increasing orders from 2 to 32")
        if not 0 <= self.recall_dim <= 2**16:
            raise BadSetting(f"model.recall_dim is {self.recall_dim:,}; it must lie between 0 and {2**16:,}")
        row = self.recall_dim or self.vocab
        if self.recall and not 1 <= self.recall_rows * len(self.recall) * row <= MAX_TABLE_NUMBERS:
            raise BadSetting(
                f"{len(self.recall)} tables of {self.recall_rows:,} rows of {row:,} numbers are none or more than "
                f"{MAX_TABLE_NUMBERS:,} numbers; set model.recall_rows, or model.recall_dim for shorter rows"
            )

    def _check_heads(self) -> None:
        if self.sandwich_norm and not self.norm_first:
            raise BadSetting(
                "model.sandwich_norm is true and model.norm_first false; sandwich norms need the norm before each "
                "sublayer, so set model.norm_first to true"
            )
        for name, architectures in ARCHITECTURE_FIELDS.items():
            if (
                getattr(self, name) != self.__dataclass_fields__[name].default
                and self.architecture not in architectures
            ):
                raise BadSetting(
                    f"model.{name} is {getattr(self, name)} and model.architecture '{self.architecture}'; only "
                    f"{' and '.join(architectures)} models have it, so leave model.{name} out or choose such an "
                    "architecture"
                )


MAX_TABLE_NUMBERS = 2**31
"""Maximum number of elements in all tables of hashed n-grams: 8 GB in fp32."""

ARCHITECTURE_FIELDS: dict[str, tuple[Architecture, ...]] = {
    "decoder_layers": ("encoder-decoder",),
    "decoder_start_token_id": ("encoder-decoder",),
    "decoder_autoregression": ("encoder-decoder",),
    "token_types": ("encoder",),
    "mlm_transform": ("encoder",),
    "pooler": ("encoder",),
    "unembed_bias": ("encoder", "encoder-decoder"),
    "logit_scale": ("encoder-decoder",),
    "recall": ("decoder",),
    "sandwich_norm": ("decoder",),
    "global_interval": ("decoder",),
}
"""Settings that only some architectures have."""
