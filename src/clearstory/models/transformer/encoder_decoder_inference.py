"""EncoderDecoderForInference: an encoder-decoder in which each stack is one call of the compiled kernels.

Sources lie behind each other without padding. A step of decoding computes one new token of each sequence, whatever
their lengths. Made for many texts at once, never saved.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clearstory.models.base import TokenBatch, check_sources
from clearstory.models.native.library import load_library
from clearstory.models.native.panels import PanelPrecision
from clearstory.models.shallow_copy import shallow_copy
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.models.transformer.native_blocks import CrossDecoderBlocks, EncoderBlocks, is_plain
from clearstory.models.transformer.packed_sequences import PackedSequences
from clearstory.models.transformer.token_cache import EncodedSources, TokenCache


def has_native_form(model: object) -> bool:
    """Whether the compiled kernels compute a model: an encoder-decoder in fp32 on a CPU with plain linear layers."""
    if type(model) is not EncoderDecoder or load_library() is None:
        return False
    weight = model.embedding.weight
    return (
        weight.dtype == torch.float32
        and weight.device.type == "cpu"
        and model.compute_dtype in (None, torch.float32)
        and model.config.positions != "rotary"
        and is_plain(model.encoder)
        and is_plain(model.decoder)
    )


class EncoderDecoderForInference(nn.Module):
    """An encoder-decoder without gradients. Linear layers of the blocks are packed in a precision; embeddings are the
    model's own. States are `TokenCache`s.
    """

    def __init__(self, model: EncoderDecoder, precision: PanelPrecision) -> None:
        super().__init__()
        blocks = (model.encoder.blocks, model.decoder.blocks, model.unembedding)

        def without_blocks(name: str, module: nn.Module) -> nn.Module | None:
            return nn.ModuleList() if any(module is each for each in blocks) else None

        self.config = model.config
        self.stacks = cast(EncoderDecoder, shallow_copy(model, without_blocks))
        self.encoder = EncoderBlocks(model.encoder, precision)
        self.decoder = CrossDecoderBlocks(model.decoder, precision)
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def init_state(self, batch_size: int = 1, source: TokenBatch | None = None) -> TokenCache:
        """The state of `batch_size` empty sequences, each with the encoded source of its row.

        Raises CannotDo without a source, or with another number of sources.
        """
        source = check_sources(source, batch_size)
        encoder = self.stacks.encoder
        count = source.ids.shape[1]
        encoder.check_ids(source.ids, count)
        x = encoder.embed_inputs(self.stacks.embedding(source.ids), slice(0, count))
        lengths = torch.full((batch_size,), count) if source.lengths is None else source.lengths
        packed = PackedSequences(lengths, count)
        hidden = self.encoder(packed.pack(x), packed.lengths)
        return TokenCache.of_sources(self.project_sources(hidden.squeeze(0), packed))

    def project_sources(self, hidden: Float[Tensor, "N W"], packed: PackedSequences) -> EncodedSources:
        """Keys and values of the sources' hidden states in every layer, in the order of the batch."""
        tokens = self.decoder.source_projection.multiply(hidden).view(len(hidden), *self.token_shape)
        order = torch.empty_like(packed.order).index_copy_(0, packed.order, torch.arange(len(packed.order)))
        starts, lengths = packed.starts[order], packed.lengths[order]
        return EncodedSources(tokens, starts.tolist(), lengths.tolist())

    @property
    def token_shape(self) -> tuple[int, int, int, int]:
        """Shape of a token's keys and values, (layers, 2, kv_heads, head_dim)."""
        c = self.config
        return c.decoder_layers or c.layers, 2, c.kv_heads, c.head_dim

    @torch.no_grad()
    def forward(self, tokens: TokenBatch, state: TokenCache | None = None) -> tuple[Float[Tensor, "B T W"], TokenCache]:
        """Hidden states after each token, (B, T, W), 0 for padding, and the state after the last. Raises CannotDo
        without a state, and the errors of `EncoderDecoder.forward`.
        """
        if state is None:
            check_sources(None, len(tokens.ids))
        assert state is not None, "a model that reads a source continues a state"
        batch_size, count = tokens.ids.shape
        new = [count] * batch_size if tokens.lengths is None else tokens.lengths.tolist()
        longest = max((length + n for length, n in zip(state.lengths, new, strict=True)), default=0)
        self.stacks.decoder.check_ids(tokens.ids, longest)
        before = torch.tensor(state.lengths, dtype=torch.long)
        positions = before[:, None] + torch.arange(count)
        x = self.stacks.embed_target(tokens.ids, positions.clamp(max=self.config.context - 1)).flatten(0, 1)
        row = torch.arange(batch_size).repeat_interleave(torch.tensor(new, dtype=torch.long))
        inside: Tensor | None = None
        if tokens.lengths is not None:
            inside = (torch.arange(count) < tokens.lengths[:, None]).flatten().nonzero().squeeze(1)
            x = x.index_select(0, inside)
        state = state.extended(new, x.new_empty(len(x), *self.token_shape))
        ends = positions.flatten() + 1
        tables = state.addresses.data_ptr() + row * (state.addresses.shape[1] * 8)
        sources = state.source_rows.index_select(0, row)
        rows = torch.cat([tables[:, None], (ends if inside is None else ends[inside])[:, None], sources], 1)
        hidden = self.stacks.scale_hidden(self.decoder(x.contiguous(), rows))
        if inside is not None:
            hidden = hidden.new_zeros(batch_size * count, hidden.shape[1]).index_copy_(0, inside, hidden)
        return hidden.view(batch_size, count, -1), state
