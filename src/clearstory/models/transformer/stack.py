"""Stack: position embeddings, blocks and final norm, the common part of all Transformer architectures.

Vaswani et al. 2017, figure 1: its left half is one stack, its right half another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clearstory.errors import ContextOverflow, VocabularyMismatch
from clearstory.models.autograd_functions import dropout, whole_head_angles
from clearstory.models.base import TokenBatch
from clearstory.models.capabilities import Capability
from clearstory.models.transformer.attention import RotaryAngles, Source
from clearstory.models.transformer.batched_cache import BatchedLayer
from clearstory.models.transformer.block import Block, make_norm
from clearstory.models.transformer.cache import RowCache
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.packed_sequences import PackedSequences
from clearstory.models.transformer.positions import RelativePositionBias, Rotary, sinusoidal_embedding

Initialization = Literal["normal", "zero"]

TRANSFORMER_CAPABILITIES = frozenset(
    {
        Capability.ATTENTION,
        Capability.HIDDEN_STATES,
        Capability.EMBEDDINGS,
        Capability.OUTPUT_EMBEDDINGS,
        Capability.GRADIENTS,
    }
)
"""Capabilities of every Transformer."""

INIT_STD = 0.02
"""Radford et al. 2019. PyTorch's own N(0, 1) embedding, tied to the output, starts at 34 nats where ln V is 3.4."""

EMBEDDINGS = (
    "embedding",
    "position_embedding",
    "token_type_embedding",
    "encoder.position_embedding",
    "decoder.position_embedding",
)
"""Prefixes of the names of embedding tables, whose rows are summed into the input of a stack."""


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
    """Transformer blocks with position embeddings and a final norm.

    Args:
        config: settings.
        layers: number of blocks.
        causal: whether each token attends only to those before it.
        cross: whether every block has cross-attention to a source.
        embed: whether the stack has a token embedding of its own, or is given vectors.
    """

    def __init__(
        self, config: TransformerConfig, layers: int, *, causal: bool = True, cross: bool = False, embed: bool = True
    ) -> None:
        super().__init__()
        c = config
        self.config = c
        self.vocab = c.vocab
        self.context: int | None = c.context
        self.packs_sequences = True  # False: activations have the shape of the padded batch
        self.compute_dtype: torch.dtype | None = None  # of the residual stream; None: that of the weights
        if embed:
            self.embedding = nn.Embedding(c.vocab, c.width)
        self.position_embedding = nn.Embedding(c.context, c.width) if c.positions == "learned" else None
        self.token_type_embedding = nn.Embedding(c.token_types, c.width) if c.token_types else None
        rope = (c.rope_theta, c.rope_factor, c.rope_original_context)
        self.rotary = Rotary(c.head_dim, c.context, *rope) if c.positions == "rotary" else None
        local_theta = c.local_rope_theta
        self.local_rotary = None if local_theta is None else Rotary(c.head_dim, c.context, local_theta)
        self.relative_position_bias = (
            RelativePositionBias(c.heads, bidirectional=not causal)
            if c.positions == "relative_bias" and not (cross and c.decoder_autoregression == "ssru")
            else None
        )
        self.sinusoidal_positions: Tensor | None
        sinusoidal = sinusoidal_embedding(c.context, c.width) if c.positions == "sinusoidal" else None
        self.register_buffer("sinusoidal_positions", sinusoidal, persistent=False)
        self.embedding_norm = make_norm(c, c.width) if c.embed_norm else None
        self.blocks = nn.ModuleList(Block(c, causal, cross, layer) for layer in range(layers))
        # Where norms follow the sublayers, the last block ends with one.
        self.norm = make_norm(c, c.width) if c.norm_first else None

    def embed_inputs(
        self,
        x: Float[Tensor, "B T W"],
        positions: Int[Tensor, "B T"] | slice,
        token_type_ids: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T W"]:
        """Input of the first block, (B, T, W): token embeddings x plus embeddings of positions and token types, as the
        config has them. Without `token_type_ids` every token is of type 0.
        """
        if self.config.embed_scale:
            x = x * math.sqrt(self.config.width)
        if self.position_embedding is not None:
            x = x + self.position_embedding.weight[positions]
        if self.sinusoidal_positions is not None:
            x = x + self.sinusoidal_positions[positions].to(x.dtype)
        if self.token_type_embedding is not None:
            table = self.token_type_embedding
            x = x + (table.weight[0] if token_type_ids is None else table(token_type_ids))
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        return x if self.compute_dtype is None else x.to(self.compute_dtype)

    def run_blocks(
        self, x: Float[Tensor, "B T W"], lengths: Int[Tensor, "B"] | None = None, source: Source | None = None
    ) -> Float[Tensor, "B T W"]:
        """Output of all blocks and the final norm, (B, T, W), without a cache.

        `lengths` of the sequences masks their padding; a causal stack needs none.
        """
        count = x.shape[1]
        if lengths is not None and source is None and self.packs_sequences and self.can_pack(x):
            packed = PackedSequences(lengths, count)
            x = packed.pack(x)
            for block in self.blocks:
                x = block(x, None, None, packed)
            return packed.unpack(x if self.norm is None else self.norm(x))
        rotary = self.rotary_angles(slice(0, count), x.dtype)
        bias = None if lengths is None else padding_mask(lengths, count, x.dtype)
        if self.relative_position_bias is not None:
            relative = self.relative_position_bias(count, count).to(x.dtype)
            bias = relative if bias is None else relative + bias
        for block, angles in zip(self.blocks, rotary, strict=True):
            x = block(x, angles, None, bias, source)
        return x if self.norm is None else self.norm(x)

    def run_blocks_for_first(self, x: Float[Tensor, "B T W"], lengths: Int[Tensor, "B"] | None) -> Float[Tensor, "B W"]:
        """Output of all blocks and the final norm for the first token of each sequence, (B, W), without a cache.

        Where sequences are packed, the last block computes no other token.
        """
        count = x.shape[1]
        empty = lengths is not None and bool((lengths == 0).any())
        if empty or not (self.packs_sequences and self.can_pack(x) and len(self.blocks)):
            return self.run_blocks(x, lengths)[:, 0]
        packed = PackedSequences(torch.full((len(x),), count) if lengths is None else lengths, count)
        x = packed.pack(x)
        for block in self.blocks[:-1]:
            x = block(x, None, None, packed)
        x = cast(Block, self.blocks[-1]).forward_first(x, packed)
        return packed.in_batch_order((x if self.norm is None else self.norm(x)).squeeze(0))

    def rotary_angles(
        self, positions: Int[Tensor, "*B T"] | slice, dtype: torch.dtype, *, whole_heads: bool = False
    ) -> list[RotaryAngles | None]:
        """The rotary angles of these positions for each block; with `whole_heads`, for both elements of each pair."""
        if self.rotary is None:
            return [None] * len(self.blocks)

        def angles(rotary: Rotary) -> RotaryAngles:
            found = rotary.cos_sin(positions, dtype)
            return whole_head_angles(*found) if whole_heads else found

        everywhere = angles(self.rotary)
        local = everywhere if self.local_rotary is None else angles(self.local_rotary)
        return [local if self.config.is_local(layer) else everywhere for layer in range(len(self.blocks))]

    def can_pack(self, x: Tensor) -> bool:
        """Whether padding is left out: on a CPU, where positions have no part in attention. On a GPU, and in compiled
        code, one call for each length takes longer.
        """
        in_attention = self.rotary is not None or self.relative_position_bias is not None
        return x.device.type == "cpu" and not in_attention and not torch.compiler.is_compiling()

    def run_blocks_with_cache(
        self, x: Float[Tensor, "B T W"], rows: Sequence[RowCache], new: Sequence[int], positions: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T W"]:
        """Output of all blocks and the final norm for new tokens, (B, T, W), over caches just extended by `new`."""
        rotary = self.rotary_angles(positions, x.dtype)
        bias = None
        if self.relative_position_bias is not None:
            bias = [self.relative_position_bias(n, row.kept) for row, n in zip(rows, new, strict=True)]
        layers = zip(*(row.by_layer(n) for row, n in zip(rows, new, strict=True)), strict=True)
        sources = cross_sources(rows)
        for index, (block, caches) in enumerate(zip(self.blocks, layers, strict=True)):
            x = block(x, rotary[index], list(caches), bias, None if sources is None else sources[index])
        return x if self.norm is None else self.norm(x)

    def run_blocks_batched(
        self,
        x: Float[Tensor, "R 1 W"],
        layers: Sequence[BatchedLayer],
        positions: Int[Tensor, "R 1"],
        sources: Sequence[BatchedLayer] | None = None,
    ) -> Float[Tensor, "R 1 W"]:
        """Output of all blocks and the final norm for one token of each sequence of a batched cache, (R, 1, W)."""
        # For whole heads, made once: three kernels for each layer's queries in place of eight.
        rotary = self.rotary_angles(positions, x.dtype, whole_heads=True)
        for index, block in enumerate(self.blocks):
            x = block(x, rotary[index], layers[index], None, None if sources is None else sources[index])
        return x if self.norm is None else self.norm(x)

    def extend_caches(
        self, tokens: TokenBatch, before: Sequence[RowCache]
    ) -> tuple[tuple[RowCache, ...], list[int], Tensor]:
        """Caches with slots for the new tokens, the number of new tokens in each, and their positions (B, T)."""
        count = tokens.ids.shape[1]
        new = [count] * len(before) if tokens.lengths is None else tokens.lengths.tolist()
        self.check_ids(tokens.ids, max(row.length + n for row, n in zip(before, new, strict=True)))
        rows = tuple(row.extended(n, self.config.cache_window) for row, n in zip(before, new, strict=True))
        starts = torch.tensor([row.length for row in before], device=tokens.ids.device)
        # Padding may lie past the context; its position does not matter, only that it has one.
        positions = (starts[:, None] + torch.arange(count, device=starts.device)).clamp(max=self.config.context - 1)
        return rows, new, positions

    def apply_dropout(self, x: Tensor) -> Tensor:
        """Dropout of the first block's input."""
        return dropout(x, self.config.dropout, self.training)

    def check_ids(self, ids: Tensor, length: int) -> None:
        """Raises ContextOverflow for sequences longer than the context, VocabularyMismatch for an unknown id."""
        if length > self.config.context:
            raise ContextOverflow(
                f"{length:,} tokens do not fit the model's context of {self.config.context:,}; "
                "shorten the text, or pass --truncate left to keep its end"
            )
        if ids.numel() and not ids.is_meta and (worst := int(ids.max())) >= self.vocab:
            raise VocabularyMismatch(
                f"token id {worst:,} lies outside the model's vocabulary of {self.vocab:,}; "
                "open the tokenizer that was saved with the model"
            )


def padding_mask(lengths: Int[Tensor, "B"], count: int, dtype: torch.dtype) -> Float[Tensor, "B 1 1 T"]:
    """Bias of attention scores that hides padding, (B, 1, 1, T): -inf past each sequence's end, else 0."""
    padding = torch.arange(count, device=lengths.device) >= lengths[:, None]
    return torch.zeros(padding.shape, dtype=dtype, device=lengths.device).masked_fill_(padding, -torch.inf)[
        :, None, None
    ]


def cross_sources(rows: Sequence[RowCache]) -> list[list[tuple[Tensor, Tensor]]] | None:
    """Layer by layer, every sequence's cross-attention keys and values; None if there is no source."""
    if not rows or rows[0].source is None:
        return None
    every = [row.source.unbind() for row in rows if row.source is not None]
    return [[(pair[0], pair[1]) for pair in layer] for layer in zip(*every, strict=True)]


@torch.no_grad()
def init_weights(model: nn.Module, config: TransformerConfig, initialization: Initialization = "normal") -> None:
    """Initialise the weights of a Transformer in place.

    normal: N(0, 0.02); output projections of sublayers are scaled down by depth (Radford et al. 2019).
    zero: output projections of sublayers and the unembedding are zero, embeddings N(0, 1), all else at a scale that
    keeps the size of a norm's output (Zhang et al. 2019, "Fixup"; Yang et al. 2022 for the scales). It trains faster
    in short runs; tied embeddings cannot be zero and keep 0.02.
    """
    for name, weight in model.named_parameters():
        if weight.is_meta:
            return
        if name.startswith("recall."):
            continue
        # What is added to the residual stream or to attention scores.
        residual = name.endswith(("output.weight", "down.weight", "relative_position_bias.bias.weight"))
        if weight.ndim < 2:
            zero = name.endswith("bias") or config.norm == "rms_unit_offset"
            nn.init.constant_(weight, 0.0 if zero else 1.0)
        elif config.logit_scale and name == "embedding.weight":
            nn.init.normal_(weight)  # as large as the division by the root of the width takes away
        elif initialization == "normal":
            # Section 2.3: 1/√N for N residual layers.
            nn.init.normal_(weight, std=INIT_STD / math.sqrt(2 * config.layers) if residual else INIT_STD)
        elif residual or name == "unembedding.weight":
            nn.init.zeros_(weight)
        elif name.startswith(EMBEDDINGS):
            nn.init.normal_(weight, std=INIT_STD if config.tie_embeddings else 1.0)
        else:
            nn.init.normal_(weight, std=0.5 / math.sqrt(weight.shape[1]))
