"""EncoderForInference: an encoder whose blocks are one call of the compiled kernels, with constant weights in panels.

Sequences lie behind each other without padding, and only the norms, attention and products of their own tokens are
computed. Made for many texts at once, never saved.
"""

from __future__ import annotations

import ctypes
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clearstory.models.autograd_functions import Linear
from clearstory.models.base import TokenBatch
from clearstory.models.capabilities import Capability
from clearstory.models.matmul.packed import joined_bias, joined_weight
from clearstory.models.native.library import EncoderBlockStruct, EncoderStruct, NormStruct, load_library
from clearstory.models.native.panels import PanelMatrix, PanelPrecision
from clearstory.models.shallow_copy import shallow_copy
from clearstory.models.transformer.block import Block
from clearstory.models.transformer.decoding_step import ACTIVATIONS, native_norm
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.transformer.inference import linear_layers
from clearstory.models.transformer.packed_sequences import PackedSequences


def has_native_form(model: object) -> bool:
    """Whether the compiled kernels compute an encoder: in fp32 on a CPU, with plain linear layers (no adapters), and
    attention of all tokens by position embeddings that are added to the input.
    """
    if type(model) is not Encoder or load_library() is None:
        return False
    c, weight = model.config, model.embedding.weight
    return (
        weight.dtype == torch.float32
        and weight.device.type == "cpu"
        and model.compute_dtype in (None, torch.float32)
        and model.rotary is None
        and model.relative_position_bias is None
        and not c.qk_norm
        and c.sliding_window is None
        and all(type(each) is Linear for block in model.blocks for each in linear_layers(cast(Block, block)))
    )


class EncoderForInference(nn.Module):
    """An encoder without gradients; embeddings, the pooler and heads are the model's own. Linear layers of the blocks
    are packed in a precision.
    """

    trains = False

    def __init__(self, model: Encoder, precision: PanelPrecision = "fp32") -> None:
        super().__init__()
        self.config, self.vocab, self.context = model.config, model.vocab, model.context
        self.compute_dtype: torch.dtype | None = None
        self.stack = cast(
            Encoder, shallow_copy(model, lambda name, each: nn.ModuleList() if each is model.blocks else None)
        )
        self.blocks = EncoderBlocks(model, precision)
        self.requires_grad_(False)
        self.eval()

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Capabilities of the encoder without those of views of its blocks."""
        return self.stack.capabilities - {Capability.GRADIENTS, Capability.ATTENTION, Capability.HIDDEN_STATES}

    @torch.no_grad()
    def encode(self, tokens: TokenBatch, token_type_ids: Int[Tensor, "B T"] | None = None) -> Float[Tensor, "B T W"]:
        """Hidden states of every token, (B, T, W), as those of the encoder; 0 for padding."""
        x = self.embed(tokens, token_type_ids)
        if tokens.lengths is None:
            self.blocks(x, torch.full((len(x),), x.shape[1]))
            return x
        packed = PackedSequences(tokens.lengths, x.shape[1])
        rows = packed.pack(x)
        self.blocks(rows, packed.lengths)
        return packed.unpack(rows)

    @torch.no_grad()
    def encode_first(
        self, tokens: TokenBatch, token_type_ids: Int[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B W"]:
        """Hidden state of the first token of each sequence, (B, W)."""
        if tokens.lengths is not None and bool((tokens.lengths == 0).any()):
            return self.encode(tokens, token_type_ids)[:, 0]
        x = self.embed(tokens, token_type_ids)
        if tokens.lengths is None:
            return self.blocks(x, torch.full((len(x),), x.shape[1]), first_only=True)
        packed = PackedSequences(tokens.lengths, x.shape[1])
        return packed.in_batch_order(self.blocks(packed.pack(x), packed.lengths, first_only=True))

    def forward(self, tokens: TokenBatch, state: None = None) -> tuple[Float[Tensor, "B T W"], None]:
        """Hidden states as `encode` returns them, and None."""
        return self.encode(tokens), None

    def pool(self, hidden: Float[Tensor, "B T W"]) -> Float[Tensor, "B W"]:
        """One vector per text by the encoder's pooler."""
        return self.stack.pool(hidden)

    def embed(self, tokens: TokenBatch, token_type_ids: Tensor | None) -> Float[Tensor, "B T W"]:
        """Input of the first block. Raises the errors of `Encoder.encode`."""
        self.stack.check_ids(tokens.ids, tokens.ids.shape[1])
        return self.stack.embed_inputs(
            self.stack.embedding(tokens.ids), slice(0, tokens.ids.shape[1]), token_type_ids
        ).contiguous()

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Raises TypeError: packed weights are in forms that only this machine reads."""
        raise TypeError("a form of an encoder for inference is not saved; save the model it was made of")


class EncoderBlocks:
    """All blocks and the final norm of an encoder in one call of the compiled kernels."""

    def __init__(self, model: Encoder, precision: PanelPrecision) -> None:
        c = model.config
        self.width = c.width
        self.tensors, self.matrices = list[Tensor](), list[PanelMatrix]()  # what the structures point to
        blocks = (EncoderBlockStruct * c.layers)(
            *(self.block_struct(cast(Block, block), precision) for block in model.blocks)
        )
        scale = c.head_dim**-0.5 if c.attention_scale is None else c.attention_scale
        self.struct = EncoderStruct(
            c.layers, c.width, c.heads, c.kv_heads, c.head_dim, c.intermediate_size, ACTIVATIONS[c.activation],
            c.gated, c.norm_first, scale, self.norm_struct(model.norm), blocks,
        )  # fmt: skip

    def __call__(
        self, x: Float[Tensor, "*D W"], lengths: Int[Tensor, "S"], *, first_only: bool = False
    ) -> Float[Tensor, "*outputs W"]:
        """x, the input of the first block for all tokens of sequences of these lengths, overwritten by the output.

        With `first_only`, the output of each sequence's first token, (S, W).
        """
        library = load_library()
        assert library is not None, "the kernels are looked for before a form is made"
        rows = x.view(-1, self.width)
        threads = torch.get_num_threads()
        failed = library.encoder_forward(
            ctypes.byref(self.struct), rows.data_ptr(), lengths.data_ptr(), len(lengths), first_only, threads
        )
        if failed:
            raise MemoryError(f"a batch of {len(rows):,} tokens does not fit into memory; lower --batch-size")
        return rows[: len(lengths)] if first_only else x

    def block_struct(self, block: Block, precision: PanelPrecision) -> EncoderBlockStruct:
        """A block's structure."""
        attention, feed_forward = block.attention, block.feed_forward
        gate = [] if feed_forward.gate is None else [feed_forward.gate]
        joined = (
            [attention.query, attention.key, attention.value], [attention.output], [*gate, feed_forward.up],
            [feed_forward.down],
        )  # fmt: skip
        matrices = [PanelMatrix(joined_weight(each), joined_bias(each), precision) for each in joined]
        self.matrices += matrices
        norms = self.norm_struct(block.attention_norm), self.norm_struct(block.feed_forward_norm)
        return EncoderBlockStruct(*norms, *(each.struct for each in matrices))

    def norm_struct(self, norm: nn.Module | None) -> NormStruct:
        """The structure of a norm; without a gain for none."""
        struct, tensors = native_norm(norm)
        self.tensors += tensors
        return struct
