"""Stack: what stands between a model's words and its answer: places, blocks, last norm. Every shape is made of these.

Vaswani et al. 2017, figure 1: its left half is one stack, its right half another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import ContextOverflow, VocabularyMismatch
from clearstory.models.base import TokenBatch
from clearstory.models.capabilities import Capability
from clearstory.models.transformer.attention import RotaryAngles, Source
from clearstory.models.transformer.block import Block, make_norm
from clearstory.models.transformer.cache import RowCache
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.positions import RelativePositionBias, Rotary, sinusoidal_embedding

Initialization = Literal["normal", "zero"]

TRANSFORMER = frozenset(
    {
        Capability.ATTENTION,
        Capability.HIDDEN_STATES,
        Capability.EMBEDDINGS,
        Capability.OUTPUT_EMBEDDINGS,
        Capability.GRADIENTS,
    }
)
"""Capabilities that every Transformer has."""

INIT_STD = 0.02
"""Radford et al. 2019. torch's own N(0, 1) embedding, tied to the output, begins at 34 nats where ln V is 3.4."""

EMBEDDINGS = (
    "embedding",
    "position_embedding",
    "token_type_embedding",
    "encoder.position_embedding",
    "decoder.position_embedding",
)
"""What the names of tables begin with whose rows are added up at the foot of a stack."""


class CompilableStack(nn.Module):
    """A model whose forward pass over whole sequences, `run_stack`, torch.compile can replace."""

    _compiled_run_stack: Callable[..., Tensor] | None = None

    def run_stack(self, *args: Any, **kwargs: Any) -> Tensor:
        """The forward pass over whole sequences, without a cache: what training runs and torch.compile compiles."""
        raise NotImplementedError

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile `run_stack` with torch.compile; `forward` uses the compiled version from then on."""
        self._compiled_run_stack = torch.compile(self.run_stack, *args, **kwargs)

    @property
    def compiled_stack(self) -> Callable[..., Tensor]:
        """`run_stack`, compiled after `compile` has been called."""
        return self._compiled_run_stack or self.run_stack

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles are not compiled: a compiled function is bound to the module it was made from."""
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]  # torch's
        state.pop("_compiled_run_stack", None)
        return state


class Stack(CompilableStack):
    """Blocks one above the other, over vectors that know their places.

    causal: each token sees those before it; else all. cross: every block also looks across at a source. words: whether
    the stack has an embedding of its own, or is handed vectors.
    """

    def __init__(
        self, config: TransformerConfig, layers: int, *, causal: bool = True, cross: bool = False, words: bool = True
    ) -> None:
        super().__init__()
        c = config
        self.config = c
        self.vocab = c.vocab
        self.context: int | None = c.context
        self.compute_dtype: torch.dtype | None = None  # of the stream; None: that of the weights
        if words:
            self.embedding = nn.Embedding(c.vocab, c.width)
        self.position_embedding = nn.Embedding(c.context, c.width) if c.positions == "learned" else None
        self.token_type_embedding = nn.Embedding(c.token_types, c.width) if c.token_types else None
        stretch = (c.rope_theta, c.rope_factor, c.rope_original_context)
        self.rotary = Rotary(c.head_dim, c.context, *stretch) if c.positions == "rotary" else None
        self.relative_position_bias = (
            RelativePositionBias(c.heads, bidirectional=not causal) if c.positions == "relative_bias" else None
        )
        self.sinusoidal_positions: Tensor | None
        self.register_buffer(
            "sinusoidal_positions",
            sinusoidal_embedding(c.context, c.width) if c.positions == "sinusoidal" else None,
            persistent=False,
        )
        self.embedding_norm = make_norm(c, c.width) if c.embed_norm else None
        self.blocks = nn.ModuleList(Block(c, causal, cross) for _ in range(layers))
        # Where norms follow their steps, the last block ends with one.
        self.norm = make_norm(c, c.width) if c.norm_first else None

    def embed_inputs(
        self,
        x: Float[Tensor, "B T W"],
        places: Int[Tensor, "B T"] | slice,
        token_type_ids: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T W"]:
        """What the first block reads: each token's vector, plus its place's and its segment's, as the config has them.

        Without `token_type_ids` every token is of segment 0.
        """
        if self.config.embed_scale:
            x = x * math.sqrt(self.config.width)
        if self.position_embedding is not None:
            x = x + self.position_embedding.weight[places]
        if self.sinusoidal_positions is not None:
            x = x + self.sinusoidal_positions[places].to(x.dtype)
        if self.token_type_embedding is not None:
            x = x + (
                self.token_type_embedding.weight[0]
                if token_type_ids is None
                else self.token_type_embedding(token_type_ids)
            )
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        return x if self.compute_dtype is None else x.to(self.compute_dtype)

    def run_blocks(
        self, x: Float[Tensor, "B T W"], lengths: Int[Tensor, "B"] | None = None, source: Source | None = None
    ) -> Float[Tensor, "B T W"]:
        """All blocks and the last norm, without a cache. `lengths`: of the rows, where what follows must not be seen;
        a causal stack needs none.
        """
        count = x.shape[1]
        turn = None if self.rotary is None else self.rotary.cos_sin(slice(0, count), x.dtype)
        bias = None if lengths is None else padding_mask(lengths, count, x.dtype)
        if self.relative_position_bias is not None:
            near = self.relative_position_bias(count, count).to(x.dtype)
            bias = near if bias is None else near + bias
        for block in self.blocks:
            x = block(x, turn, None, bias, source)
        return x if self.norm is None else self.norm(x)

    def run_blocks_with_cache(
        self, x: Float[Tensor, "B T W"], rows: Sequence[RowCache], new: Sequence[int], places: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T W"]:
        """All blocks over the caches of rows that have just grown by `new` tokens each, whose vectors are x."""
        turn: RotaryAngles | None = None if self.rotary is None else self.rotary.cos_sin(places, x.dtype)
        bias = None
        if self.relative_position_bias is not None:
            bias = [self.relative_position_bias(n, row.kept) for row, n in zip(rows, new, strict=True)]
        layers = zip(*(row.by_layer(n) for row, n in zip(rows, new, strict=True)), strict=True)
        across = cross_sources(rows)
        for number, (block, past) in enumerate(zip(self.blocks, layers, strict=True)):
            x = block(x, turn, list(past), bias, None if across is None else across[number])
        return x if self.norm is None else self.norm(x)

    def extend_caches(
        self, tokens: TokenBatch, before: Sequence[RowCache]
    ) -> tuple[tuple[RowCache, ...], list[int], Tensor]:
        """Room in every row for its new tokens: the caches, how many are new in each, and the places they take."""
        count = tokens.ids.shape[1]
        new = [count] * len(before) if tokens.lengths is None else tokens.lengths.tolist()
        self.check_ids(tokens.ids, max(row.length + n for row, n in zip(before, new, strict=True)))
        rows = tuple(row.grown(n, self.config.sliding_window) for row, n in zip(before, new, strict=True))
        starts = torch.tensor([row.length for row in before], device=tokens.ids.device)
        # Padding may stand past the context; its place does not matter, only that it has one.
        places = (starts[:, None] + torch.arange(count, device=starts.device)).clamp(max=self.config.context - 1)
        return rows, new, places

    def apply_dropout(self, x: Tensor) -> Tensor:
        """Dropout at the foot of the stack."""
        return F.dropout(x, self.config.dropout, self.training)

    def check_ids(self, ids: Tensor, length: int) -> None:
        """Refuse what would otherwise fail far away, or not at all."""
        if length > self.config.context:
            raise ContextOverflow(
                f"{length:,} tokens do not fit the model's context of {self.config.context:,}; "
                "shorten the text, or pass --truncate left to keep its end"
            )
        if ids.numel() and not ids.is_meta and (worst := int(ids.max())) >= self.vocab:
            raise VocabularyMismatch(
                f"token id {worst:,} lies outside the model's vocabulary of {self.vocab:,}; "
                "open the tokenizer saved beside the model"
            )


def padding_mask(lengths: Int[Tensor, "B"], count: int, dtype: torch.dtype) -> Float[Tensor, "B 1 1 T"]:
    """-inf where a row has ended, 0 where it has not."""
    padding = torch.arange(count, device=lengths.device) >= lengths[:, None]
    return torch.zeros(padding.shape, dtype=dtype, device=lengths.device).masked_fill_(padding, -torch.inf)[
        :, None, None
    ]


def cross_sources(rows: Sequence[RowCache]) -> list[list[tuple[Tensor, Tensor]]] | None:
    """Layer by layer, every row's keys and values of the text it looks across at; None where there is none."""
    if not rows or rows[0].source is None:
        return None
    every = [row.source.unbind() for row in rows if row.source is not None]
    return [[(pair[0], pair[1]) for pair in layer] for layer in zip(*every, strict=True)]


@torch.no_grad()
def init_weights(model: nn.Module, config: TransformerConfig, birth: Initialization = "normal") -> None:
    """Weights as at birth.

    normal: N(0, 0.02), what is added to the residual stream scaled down by its depth (Radford et al. 2019).
    still: every block and the unembedding begin by saying nothing, embeddings at N(0, 1), all else at a scale that
    keeps a norm's output as large as it was (Zhang et al. 2019, "Fixup"; Yang et al. 2022 for the scales). It
    learns faster where the steps are few; tied embeddings cannot be zero, and keep 0.02.
    """
    for name, weight in model.named_parameters():
        if weight.is_meta:
            return
        if name.startswith("recall."):
            continue
        # What is added to the residual stream, or is the answer itself.
        residual = name.endswith(("output.weight", "down.weight", "relative_position_bias.bias.weight"))
        if weight.ndim < 2:
            nn.init.constant_(weight, 0.0 if name.endswith("bias") else 1.0)
        elif config.logit_scale and name == "embedding.weight":
            nn.init.normal_(weight)  # as large as the division of what it is held against takes away
        elif birth == "normal":
            # Section 2.3: 1/√N for N residual layers.
            nn.init.normal_(weight, std=INIT_STD / math.sqrt(2 * config.layers) if residual else INIT_STD)
        elif residual or name == "unembedding.weight":
            nn.init.zeros_(weight)
        elif name.startswith(EMBEDDINGS):
            nn.init.normal_(weight, std=INIT_STD if config.tie_embeddings else 1.0)
        else:
            nn.init.normal_(weight, std=0.5 / math.sqrt(weight.shape[1]))
