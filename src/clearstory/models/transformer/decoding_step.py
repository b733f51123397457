"""A decoding step in one call of the compiled kernels: one token of each sequence through all blocks, without Python
or PyTorch between them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clearstory.models.autograd_functions import RMSNorm
from clearstory.models.native.library import BlockStruct, CacheStruct, DecoderStruct, NormStruct, load_library
from clearstory.models.native.linear import NativeMatrix
from clearstory.models.transformer.cache import RowCache
from clearstory.models.transformer.config import TransformerConfig

ACTIVATIONS = {"gelu": 0, "gelu_tanh": 1, "relu": 2, "silu": 3}
"""Activation functions; decoder.h."""

RMS_NORM, LAYER_NORM = range(2)
"""Kinds of norms; decoder.h."""


@dataclass(frozen=True)
class StepBlock:
    """A block as the kernels read it.

    Args:
        attention_norm: its norm.
        feed_forward_norm: its norm.
        attention_output_norm: of the output of attention; None without.
        feed_forward_output_norm: of the output of the feed-forward layers; None without.
        head_norm: gains of all queries and keys, (heads + kv_heads, head_dim), and the epsilon; None without.
        matrices: query, key and value joined; output; gate and up joined, or up; down.
    """

    attention_norm: nn.Module
    feed_forward_norm: nn.Module
    attention_output_norm: nn.Module | None
    feed_forward_output_norm: nn.Module | None
    head_norm: tuple[Tensor, float] | None
    matrices: Sequence[NativeMatrix]


class DecodingStep:
    """All blocks and the final norm of a decoder; called with one token of each sequence."""

    def __init__(self, config: TransformerConfig, blocks: Sequence[StepBlock], final_norm: nn.Module | None) -> None:
        library = load_library()
        assert library is not None, "the kernels are looked for before a step is made"
        self.run: Any = library.decoder_step
        # What the structures point to must live as long.
        self.blocks, self.tensors = blocks, list[Tensor]()
        structs = (BlockStruct * len(blocks))(*(self.block_struct(config, *each) for each in enumerate(blocks)))
        scale = config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale
        self.struct = DecoderStruct(
            config.layers, config.width, config.heads, config.kv_heads, config.head_dim, config.intermediate_size,
            ACTIVATIONS[config.activation], config.gated, config.norm_first, scale,
            self.norm_struct(final_norm), structs,
        )  # fmt: skip
        self.reference = ctypes.byref(self.struct)

    def __call__(
        self,
        x: Float[Tensor, "N W"],
        turns: tuple[Float[Tensor, "N P"], Float[Tensor, "N P"]] | None,
        local_turns: tuple[Float[Tensor, "N P"], Float[Tensor, "N P"]] | None,
        rows: Sequence[RowCache],
    ) -> Float[Tensor, "N W"]:
        """Output of the final norm for the embeddings x of one new token of each sequence; x may be overwritten.

        `turns` are the cosines and sines of the rotations, for a half of each head, and `local_turns` those of layers
        with a window of their own; `rows` have a slot for the new token's key and value at their end, which is filled.
        """
        x = x.contiguous()
        tables = [each.contiguous() for pair in (turns, local_turns) if pair is not None for each in pair]
        caches = (CacheStruct * len(rows))(
            *(CacheStruct(row.buffer.data.data_ptr(), row.buffer.data.shape[3], row.kept) for row in rows)
        )
        angles: list[int | None] = [each.data_ptr() for each in tables] or [None] * 4
        if self.run(self.reference, x.data_ptr(), len(x), *angles, caches, torch.get_num_threads()):
            raise MemoryError(f"a decoding step of {len(x)} sequences does not fit into memory")
        return x

    def block_struct(self, config: TransformerConfig, layer: int, block: StepBlock) -> BlockStruct:
        """A block's structure."""
        head_norm = NormStruct(RMS_NORM, None, None, 0.0)
        if block.head_norm is not None:
            gains, eps = block.head_norm
            head_norm = NormStruct(RMS_NORM, self.address(gains), None, eps)
        norms = (block.attention_norm, block.feed_forward_norm)
        outputs = (block.attention_output_norm, block.feed_forward_output_norm)
        structs = [self.norm_struct(each) for each in (*norms, *outputs)]
        matrices = (each.struct for each in block.matrices)
        return BlockStruct(*structs, head_norm, config.window(layer) or 0, config.is_local(layer), *matrices)

    def norm_struct(self, norm: nn.Module | None) -> NormStruct:
        """The structure of a norm; without a gain for none."""
        struct, tensors = native_norm(norm)
        self.tensors += tensors
        return struct

    def address(self, tensor: Tensor) -> int:
        """The address of a tensor's numbers, fp32 and side by side."""
        self.tensors.append(tensor.detach().float().contiguous())
        return self.tensors[-1].data_ptr()


def native_norm(norm: nn.Module | None) -> tuple[NormStruct, list[Tensor]]:
    """The structure of a norm, without a gain for none, and the tensors that it points to."""
    if norm is None:
        return NormStruct(RMS_NORM, None, None, 0.0), []
    assert isinstance(norm, RMSNorm | nn.LayerNorm), "a Transformer has layer norms or RMS norms"
    parts = (norm.weight, norm.bias) if isinstance(norm, nn.LayerNorm) else (norm.gain,)
    tensors = [each.detach().float().contiguous() for each in parts if each is not None]
    addresses = [each.data_ptr() for each in tensors] + [None] * (2 - len(tensors))
    return NormStruct(LAYER_NORM if isinstance(norm, nn.LayerNorm) else RMS_NORM, *addresses, norm.eps), tensors
