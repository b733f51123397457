"""Config: what every family's config can say; TransformerConfig: the fields in which Transformers differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from clearstory.errors import BadSetting

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
Norm = Literal["layer", "rms"]
Positions = Literal["learned", "rotary", "none"]


class Config(Protocol):
    """A family's settings as a frozen dataclass that imports no torch; its type names the model in FAMILIES."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def vocab(self) -> int:
        """Tokens the model knows."""

    @property
    def family(self) -> str:
        """The kind in one word: transformer, ngram, lstm."""

    @property
    def shape(self) -> str:
        """The model in words."""


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """One Transformer's shape and wiring. A preset is a difference from another (`dataclasses.replace`).

    Args:
        vocab: tokens the model knows.
        context: tokens it can look back on, itself included.
        width: length of the residual stream's vectors (d_model).
        layers: blocks, one above the other.
        heads: query heads in each block.
        kv_heads: key and value heads; fewer than heads means grouped queries (Ainslie et al. 2023).
        head_width: length of each head's queries and keys.
        hidden: width of the feed-forward layer.
        norm: layer norm (Ba et al. 2016) or root-mean-square norm (Zhang and Sennrich 2019).
        norm_eps: added under the norm's root.
        positions: learned rows, rotary angles (Su et al. 2021) or none.
        rope_theta: longest wavelength of the rotary angles, in tokens over two pi.
        activation: the feed-forward layer's bend.
        gated: whether the feed-forward layer multiplies by a gate (Shazeer 2020).
        bias: whether linear maps and layer norms add a vector.
        tied: whether the unembedding is the embedding's transpose (Press and Wolf 2017).
        qk_norm: whether each head's queries and keys are root-mean-square normalised (Dehghani et al. 2023).
        window: tokens each one may look back on, itself included; None for all of the context.
        dropout: share of the embedding, and of what each step adds to the stream, that is dropped in training.
        recall: orders of the hashed n-grams whose learnt rows stand beside the network; none for most.
        recall_rows: rows of each order's table.
    """

    vocab: int
    context: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    hidden: int
    norm: Norm = "layer"
    norm_eps: float = 1e-5
    positions: Positions = "learned"
    rope_theta: float = 10_000.0
    activation: Activation = "gelu_tanh"
    gated: bool = False
    bias: bool = True
    tied: bool = True
    qk_norm: bool = False
    window: int | None = None
    dropout: float = 0.0
    recall: tuple[int, ...] = ()
    recall_rows: int = 0

    @property
    def family(self) -> str:
        """The kind in one word."""
        return "transformer"

    @property
    def shape(self) -> str:
        """The model in words."""
        return f"{self.layers} layer{'s' * (self.layers > 1)} of width {self.width}, context {self.context}"

    def __post_init__(self) -> None:
        for name in ("vocab", "context", "width", "layers", "heads", "kv_heads", "head_width", "hidden"):
            value = getattr(self, name)
            # A ceiling, so that a lying config.json is refused before anything is allocated.
            if not 1 <= value <= 2**24:
                raise BadSetting(f"model.{name} is {value:,}; it must lie between 1 and {2**24:,}")
        if self.heads % self.kv_heads:
            raise BadSetting(
                f"{self.heads} query heads do not share {self.kv_heads} key-value heads evenly; "
                f"set model.kv_heads to a divisor of {self.heads}"
            )
        if self.positions == "rotary" and self.head_width % 2:
            raise BadSetting(f"rotary positions turn pairs, and model.head_width is {self.head_width}; make it even")
        if not 0 <= self.dropout < 1:
            raise BadSetting(f"model.dropout is {self.dropout}; it must be at least 0 and under 1")
        if self.window is not None and self.window < 1:
            raise BadSetting(f"model.window is {self.window}; it must be at least 1, or null for all of the context")
        if self.recall and (
            min(self.recall) < 2 or list(self.recall) != sorted(set(self.recall)) or self.recall[-1] > 32
        ):
            raise BadSetting(f"model.recall is {self.recall}; give rising orders from 2 to 32")
        if self.recall and not 1 <= self.recall_rows * len(self.recall) * self.vocab <= 2**31:
            raise BadSetting(
                f"{len(self.recall)} tables of {self.recall_rows:,} rows of {self.vocab:,} tokens are none or too many "
                "numbers; set model.recall_rows, and use a small vocabulary: characters or bytes"
            )
        if self.norm_eps <= 0 or self.rope_theta <= 0:
            raise BadSetting(
                f"model.norm_eps ({self.norm_eps}) and model.rope_theta ({self.rope_theta}) must be positive"
            )
