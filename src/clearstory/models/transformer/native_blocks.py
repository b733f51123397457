"""Blocks of a stack in one call of the compiled kernels, with constant weights in panels, for many rows at once."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clearstory.models.autograd_functions import Linear
from clearstory.models.matmul.packed import joined_bias, joined_weight
from clearstory.models.native.library import (
    CrossBlockStruct,
    CrossDecoderStruct,
    DistanceBiasStruct,
    EncoderBlockStruct,
    EncoderStruct,
    NormStruct,
    PanelMatrixStruct,
    load_library,
)
from clearstory.models.native.panels import PanelMatrix, PanelPrecision
from clearstory.models.transformer.attention import Attention
from clearstory.models.transformer.block import Block
from clearstory.models.transformer.decoding_step import ACTIVATIONS, native_norm
from clearstory.models.transformer.inference import linear_layers
from clearstory.models.transformer.positions import RelativePositionBias
from clearstory.models.transformer.stack import Stack


def is_plain(stack: Stack) -> bool:
    """Whether the kernels compute the blocks of a stack: plain linear layers (no adapters), attention to all tokens."""
    c = stack.config
    blocks = [cast(Block, block) for block in stack.blocks]
    if not all(isinstance(block.attention, Attention) for block in blocks):
        return False
    layers = [each for block in blocks for each in all_linear_layers(block)]
    return not c.qk_norm and c.sliding_window is None and all(type(each) is Linear for each in layers)


def all_linear_layers(block: Block) -> list[nn.Module]:
    """The linear layers of a block, those of cross-attention included."""
    cross = block.cross_attention
    return linear_layers(block) + ([] if cross is None else [cross.query, cross.key, cross.value, cross.output])


class NativeBlocks:
    """The structures of a stack's blocks, with the tensors that they point to."""

    def __init__(self, stack: Stack, precision: PanelPrecision) -> None:
        self.config, self.precision = stack.config, precision
        self.tensors, self.matrices = list[Tensor](), list[PanelMatrix]()
        c = self.config
        scale = c.head_dim**-0.5 if c.attention_scale is None else c.attention_scale
        self.settings = (
            len(stack.blocks), c.width, c.heads, c.kv_heads, c.head_dim, c.intermediate_size, ACTIVATIONS[c.activation],
            c.gated, c.norm_first, scale, self.bias(stack.relative_position_bias), self.norm(stack.norm),
        )  # fmt: skip

    def norm(self, norm: nn.Module | None) -> NormStruct:
        """The structure of a norm; without a gain for none."""
        struct, tensors = native_norm(norm)
        self.tensors += tensors
        return struct

    def matrix(self, linears: Sequence[nn.Linear]) -> PanelMatrixStruct:
        """The structure of linear layers of one input."""
        self.matrices.append(PanelMatrix(joined_weight(linears), joined_bias(linears), self.precision))
        return self.matrices[-1].struct

    def self_attention(self, attention: Attention) -> tuple[PanelMatrixStruct, PanelMatrixStruct]:
        """The structures of queries, keys and values together, and of the output."""
        return self.matrix([attention.query, attention.key, attention.value]), self.matrix([attention.output])

    def feed_forward(self, block: Block) -> tuple[PanelMatrixStruct, PanelMatrixStruct]:
        """The structures of gate and up together, and of down."""
        gate = [] if block.feed_forward.gate is None else [block.feed_forward.gate]
        return self.matrix([*gate, block.feed_forward.up]), self.matrix([block.feed_forward.down])

    def bias(self, relative: RelativePositionBias | None) -> DistanceBiasStruct:
        """The structure of the biases of all distances, which are the same from MAX_DISTANCE on."""
        if relative is None:
            return DistanceBiasStruct(None, 0)
        reach = relative.MAX_DISTANCE
        buckets = relative.bucket(torch.arange(-reach, reach + 1)[None])[0]
        self.tensors.append(relative.bias.weight.detach().float()[buckets].mT.contiguous())
        return DistanceBiasStruct(self.tensors[-1].data_ptr(), reach)


class EncoderBlocks(NativeBlocks):
    """All blocks and the final norm of a bidirectional stack."""

    def __init__(self, stack: Stack, precision: PanelPrecision) -> None:
        super().__init__(stack, precision)
        blocks = [cast(Block, block) for block in stack.blocks]
        structs = (EncoderBlockStruct * len(blocks))(*map(self.block, blocks))
        self.struct = EncoderStruct(*self.settings, structs)

    def block(self, block: Block) -> EncoderBlockStruct:
        """A block's structure."""
        norms = self.norm(block.attention_norm), self.norm(block.feed_forward_norm)
        return EncoderBlockStruct(*norms, *self.self_attention(block.self_attention), *self.feed_forward(block))

    def __call__(
        self, x: Float[Tensor, "*D W"], lengths: Int[Tensor, "S"], *, first_only: bool = False
    ) -> Float[Tensor, "*outputs W"]:
        """x, the input of the first block for all tokens of sequences of these lengths, overwritten by the output.

        With `first_only`, the output of each sequence's first token, (S, W).
        """
        library = load_library()
        assert library is not None, "the kernels are looked for before a form is made"
        rows = x.view(-1, self.config.width)
        threads = torch.get_num_threads()
        failed = library.encoder_forward(
            ctypes.byref(self.struct), rows.data_ptr(), lengths.data_ptr(), len(lengths), first_only, threads
        )
        if failed:
            raise MemoryError(f"a batch of {len(rows):,} tokens does not fit into memory; lower --batch-size")
        return rows[: len(lengths)] if first_only else x


class CrossDecoderBlocks(NativeBlocks):
    """All blocks and the final norm of a decoder with cross-attention."""

    def __init__(self, stack: Stack, precision: PanelPrecision) -> None:
        super().__init__(stack, precision)
        blocks = [cast(Block, block) for block in stack.blocks]
        cross = [block.cross_attention for block in blocks if block.cross_attention is not None]
        structs = (CrossBlockStruct * len(blocks))(*map(self.block, blocks, cross))
        self.struct = CrossDecoderStruct(*self.settings, structs)
        keys_and_values = [each for attention in cross for each in (attention.key, attention.value)]
        self.source_projection = PanelMatrix(joined_weight(keys_and_values), joined_bias(keys_and_values), precision)

    def block(self, block: Block, cross: Attention) -> CrossBlockStruct:
        """A block's structure; keys and values of the source are computed by `source_projection`."""
        norms = map(self.norm, (block.attention_norm, block.cross_attention_norm, block.feed_forward_norm))
        own, feed_forward = self.self_attention(block.self_attention), self.feed_forward(block)
        return CrossBlockStruct(*norms, *own, self.matrix([cross.query]), self.matrix([cross.output]), *feed_forward)

    def __call__(self, x: Float[Tensor, "N W"], rows: Int[Tensor, "N 4"]) -> Float[Tensor, "N W"]:
        """x, the input of the first block for new tokens, overwritten by the output.

        A row holds the address of the addresses of its sequence's tokens, their number with itself, the address of its
        source's keys and values, and their number; cross_decoder.h.
        """
        library = load_library()
        assert library is not None, "the kernels are looked for before a form is made"
        if library.cross_decoder_forward(
            ctypes.byref(self.struct), x.data_ptr(), len(x), rows.data_ptr(), torch.get_num_threads()
        ):
            raise MemoryError(f"a decoding step of {len(x):,} sequences does not fit into memory")
        return x
