"""ONNX modules: each kind of model as a function of tensors alone, drawn with the house's own blocks.

A mask is 1 where a token is real, and places are counted over real tokens. So padding may stand on either side of them,
and every row is read as if alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.models.transformer.attention import Attention, RotaryAngles
from clearstory.models.transformer.block import Block
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.models.recurrent.cells import RecurrentLayer
from clearstory.models.recurrent.config import Cell
from clearstory.models.recurrent.model import Recurrent
from clearstory.models.transformer.stack import Stack
from clearstory.models.transformer.decoder import Transformer


class DecoderModule(nn.Module):
    """A decoder, with its cache handed in and out."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Int[Tensor, "B T"], attention_mask: Int[Tensor, "B S"], past: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Logits, then the keys and values of each layer, those of the past in front."""
        model = self.model
        here = past[0].shape[2] + torch.arange(input_ids.shape[1])
        places = counted(attention_mask)
        own = places.index_select(1, here)
        shade = shaded(model, attention_mask, places, own, here)
        x, present = write_on(model, model.embed_tokens(input_ids, own), own, shade, past)
        return model.logits(x), *present


class CachedAttention:
    """One block's attention over the past and itself, which remembers the keys and values it looked at."""

    def __init__(self, attention: Attention, turn: RotaryAngles | None, shade: Tensor, past: Sequence[Tensor]) -> None:
        self.attention, self.turn, self.shade, self.past = attention, turn, shade, past
        self.present: tuple[Tensor, ...] = ()

    def __call__(self, x: Float[Tensor, "B T W"]) -> Float[Tensor, "B T W"]:
        """What attention adds to each token."""
        q, (k, v) = self.attention.queries(x, self.turn), self.attention.keys_and_values(x, self.turn)
        if self.past:
            k, v = (torch.cat(pair, 2) for pair in zip(self.past, (k, v), strict=True))
        self.present = (k, v)
        shared = k.shape[1] != q.shape[1]
        return self.attention.project_output(F.scaled_dot_product_attention(q, k, v, attn_mask=self.shade, enable_gqa=shared))


class EncoderModule(nn.Module):
    """An encoder: vectors, and logits and the pooler's word on the text where it has such heads."""

    def __init__(self, model: Encoder) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        attention_mask: Int[Tensor, "B T"],
        token_type_ids: Int[Tensor, "B T"] | None = None,
    ) -> tuple[Tensor, ...]:
        """As `encoder_outputs` names them."""
        model = self.model
        hidden = climb(model, model.embedding(input_ids), attention_mask, token_type_ids)
        found = [hidden]
        if model.mlm_transform is not None:
            found.append(model.logits(hidden))
        if model.pooler is not None:
            found.append(model.pool(hidden))
        return tuple(found)


class SourceEncoderModule(nn.Module):
    """The encoder of an encoder-decoder."""

    def __init__(self, model: EncoderDecoder) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Int[Tensor, "B S"], attention_mask: Int[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B S W"]]:
        """Every source token's vector."""
        return (climb(self.model.encoder, self.model.embedding(input_ids), attention_mask),)


class TargetDecoderModule(nn.Module):
    """The decoder of an encoder-decoder, which reads all that was written at each step."""

    def __init__(self, model: EncoderDecoder) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        encoder_attention_mask: Int[Tensor, "B S"],
        input_ids: Int[Tensor, "B T"],
        encoder_hidden_states: Float[Tensor, "B S W"],
    ) -> tuple[Float[Tensor, "B T V"]]:
        """Logits after each token."""
        model = self.model
        hidden = hidden_from(encoder_attention_mask, encoder_hidden_states.dtype)[:, None, None]
        written = torch.ones_like(input_ids)  # padding on the right, if there is some, is seen by none before it
        own = counted(written)
        shade = shaded(model.decoder, written, own, own, torch.arange(input_ids.shape[1]))
        x = model.decoder.embed_inputs(model.embedding(input_ids), own)
        x, _ = write_on(model.decoder, x, own, shade, source=(encoder_hidden_states, hidden))
        return (model.logits(model.scale_hidden(x)),)


OPERATORS: dict[Cell, tuple[str, tuple[int, ...], dict[str, int]]] = {
    "rnn": ("RNN", (0,), {}),
    "gru": ("GRU", (1, 0, 2), {"linear_before_reset": 1}),
    "lstm": ("LSTM", (0, 3, 1, 2), {}),
}
"""Each cell in ONNX: its name, the order of its gates as numbers of ours, and how it is set to our formula.

The exporter's own way to these words makes of every text one as long as that it was drawn with.
"""


class RecurrentModule(nn.Module):
    """A recurrent model, with its memory handed in and out. Rows are read whole: none of their tokens is padding."""

    def __init__(self, model: Recurrent) -> None:
        super().__init__()
        self.model = model
        self.layers = nn.ModuleList(RecurrentLayerModule(cast(RecurrentLayer, layer)) for layer in model.layers)

    def forward(self, input_ids: Int[Tensor, "B T"], past: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Logits, then what each layer remembers."""
        x = self.model.embedding(input_ids.t())
        each = len(past) // len(self.layers)
        present: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            x, *after = layer(x, past[each * number : each * (number + 1)])
            present += after
        return self.model.logits(x.transpose(0, 1)), *present


class RecurrentLayerModule(nn.Module):
    """One layer, its weights in the order that ONNX has them."""

    def __init__(self, layer: RecurrentLayer) -> None:
        super().__init__()
        self.word, order, self.settings = OPERATORS[layer.cell]

        def transposed(weight: Tensor) -> Tensor:
            parts = weight.detach().chunk(len(order))
            return torch.cat([parts[gate] for gate in order])[None]

        self.input = nn.Parameter(transposed(layer.input.weight))
        self.memory = nn.Parameter(transposed(layer.memory.weight))
        self.bias = nn.Parameter(torch.cat([transposed(layer.input.bias), transposed(layer.memory.bias)], 1))

    def forward(self, x: Float[Tensor, "T B I"], before: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The hidden vector after each token, (T, B, U), and what is remembered after the last."""
        count, rows, units = x.shape[0], x.shape[1], self.memory.shape[2]
        out, *after = torch.onnx.ops.symbolic_multi_out(
            self.word,
            (x, self.input, self.memory, self.bias, None, *(each[None] for each in before)),
            {"hidden_size": units, **self.settings},
            dtypes=[x.dtype] * (1 + len(before)),
            shapes=[(count, 1, rows, units), *[(1, rows, units)] * len(before)],
        )
        return out[:, 0], *(each[0] for each in after)


def counted(mask: Int[Tensor, "B S"]) -> Int[Tensor, "B S"]:
    """The place of each token among the real ones of its row."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def hidden_from(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores: 0 where a token may be seen, else so little that its weight is 0 to the last bit.

    Not -inf: where a row is padding alone, as to a token that stands before all real ones, nothing would be left, and
    what is no number spreads.
    """
    return torch.where(mask > 0, 0.0, torch.finfo(dtype).min).to(dtype)


def shaded(
    stack: Stack,
    mask: Int[Tensor, "B S"],
    places: Int[Tensor, "B S"],
    own: Int[Tensor, "B T"],
    here: Int[Tensor, "T"],
) -> Float[Tensor, "B H T S"]:
    """What a decoder's tokens, which stand at `here` of their rows, may see of them: (B, 1 | H, T, S)."""
    seen = (torch.arange(mask.shape[1]) <= here[:, None]) & (mask[:, None] > 0)
    if stack.config.sliding_window is not None:
        seen = seen & (places[:, None] > own[:, :, None] - stack.config.sliding_window)
    shade = hidden_from(seen, torch.float32)[:, None]
    return shade if stack.relative_position_bias is None else shade + near(stack, places, own)


def near(stack: Stack, places: Int[Tensor, "B S"], own: Int[Tensor, "B T"]) -> Float[Tensor, "B H T S"]:
    """The learnt biases by the distance of key and query (`positions.RelativePositionBias`), where rows differ in their places."""
    assert stack.relative_position_bias is not None
    distance = places[:, None] - own[:, :, None]
    bias: Tensor = stack.relative_position_bias.bias(stack.relative_position_bias.bucket(distance.flatten(0, 1)))
    return bias.view(*distance.shape, -1).permute(0, 3, 1, 2)


def write_on(
    stack: Stack,
    x: Float[Tensor, "B T W"],
    own: Int[Tensor, "B T"],
    shade: Float[Tensor, "B H T S"],
    past: Sequence[Tensor] = (),
    source: tuple[Tensor, Tensor] | None = None,
) -> tuple[Float[Tensor, "B T W"], list[Tensor]]:
    """A stack that reads left to right, after a past: its vectors, and the keys and values of past and present."""
    turn = None if stack.rotary is None else stack.rotary.cos_sin(own, x.dtype)
    present: list[Tensor] = []
    for number, each in enumerate(stack.blocks):
        block = cast(Block, each)
        look = CachedAttention(block.attention, turn, shade, past[2 * number : 2 * number + 2])
        x = block.residual(x, block.attention_norm, look)
        if source is not None and block.cross_attention is not None and block.cross_attention_norm is not None:
            x = block.residual(x, block.cross_attention_norm, partial(block.cross_attention.cross_attend, source=source))
        x = block.residual(x, block.feed_forward_norm, block.feed_forward)
        present += look.present
    return x if stack.norm is None else stack.norm(x), present


def climb(
    stack: Stack, x: Float[Tensor, "B T W"], mask: Int[Tensor, "B T"], token_type_ids: Int[Tensor, "B T"] | None = None
) -> Float[Tensor, "B T W"]:
    """A stack that reads both ways, from its words' vectors on; as `Stack.run_blocks`, for padding on either side."""
    places = counted(mask)
    x = stack.embed_inputs(x, places, token_type_ids)
    turn = None if stack.rotary is None else stack.rotary.cos_sin(places, x.dtype)
    shade = hidden_from(mask, x.dtype)[:, None, None]
    if stack.relative_position_bias is not None:
        shade = shade + near(stack, places, places)
    for block in stack.blocks:
        x = block(x, turn, None, shade)
    return x if stack.norm is None else stack.norm(x)
