"""EncoderForInference: an encoder whose blocks are one call of the compiled kernels, with constant weights in panels.

Sequences lie behind each other without padding, and only the norms, attention and products of their own tokens are
computed. Made for many texts at once, never saved.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clearstory.models.base import TokenBatch
from clearstory.models.capabilities import Capability
from clearstory.models.native.library import load_library
from clearstory.models.native.panels import PanelPrecision
from clearstory.models.shallow_copy import shallow_copy
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.transformer.native_blocks import EncoderBlocks, is_plain
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
        and c.positions not in ("rotary", "relative_bias")
        and is_plain(model)
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
        raise TypeError("an inference copy of an encoder cannot be saved; save the original model")
