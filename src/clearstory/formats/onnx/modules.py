"""Models as functions of tensors only, for torch's ONNX exporter, built from the same layers as in training.

Attention masks are 1 at real tokens, and positions count only real tokens. Therefore padding can be on either side, and
the result for a sequence does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.models.heads import ClassificationHead, SequenceClassifier
from clearstory.models.recurrent.cells import RecurrentLayer
from clearstory.models.recurrent.config import Cell
from clearstory.models.recurrent.model import Recurrent
from clearstory.models.transformer.attention import Attention, RotaryAngles
from clearstory.models.transformer.block import Block
from clearstory.models.transformer.decoder import Transformer
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.models.transformer.stack import Stack


class DecoderModule(nn.Module):
    """A decoder with its key-value cache as input and output."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Int[Tensor, "B T"], attention_mask: Int[Tensor, "B S"], past: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Logits, then keys and values of each layer, past and new ones concatenated."""
        model = self.model
        indices = past[0].shape[2] + torch.arange(input_ids.shape[1])
        key_positions = token_positions(attention_mask)
        positions = key_positions.index_select(1, indices)
        bias = causal_biases(model, attention_mask, key_positions, positions, indices)
        x, present = run_causal_stack(model, model.embed_tokens(input_ids, positions), positions, bias, past)
        return model.logits(x), *present


class CachedAttention:
    """Self-attention of one block over past and new tokens; `present` holds the keys and values after a call."""

    def __init__(self, attention: Attention, rotary: RotaryAngles | None, bias: Tensor, past: Sequence[Tensor]) -> None:
        self.attention, self.rotary, self.bias, self.past = attention, rotary, bias, past
        self.present: tuple[Tensor, ...] = ()

    def __call__(self, x: Float[Tensor, "B T W"]) -> Float[Tensor, "B T W"]:
        """The attention output, (B, T, W)."""
        q, (k, v) = self.attention.queries(x, self.rotary), self.attention.keys_and_values(x, self.rotary)
        if self.past:
            k, v = (torch.cat(pair, 2) for pair in zip(self.past, (k, v), strict=True))
        self.present = (k, v)
        grouped = k.shape[1] != q.shape[1]
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias, enable_gqa=grouped)
        return self.attention.project_output(heads)


class EncoderModule(nn.Module):
    """An encoder: hidden states, logits if it has an MLM head, pooled output if it has a pooler."""

    def __init__(self, model: Encoder) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        attention_mask: Int[Tensor, "B T"],
        token_type_ids: Int[Tensor, "B T"] | None = None,
    ) -> tuple[Tensor, ...]:
        """The outputs that `encoder_outputs` names."""
        model = self.model
        hidden = run_bidirectional_stack(model, model.embedding(input_ids), attention_mask, token_type_ids)
        outputs = [hidden]
        if model.mlm_transform is not None:
            outputs.append(model.logits(hidden))
        if model.pooler is not None:
            outputs.append(model.pool(hidden))
        return tuple(outputs)


class ClassifierModule(nn.Module):
    """A classification head over an encoder or a decoder: logits of the labels of each text, or of each token."""

    def __init__(self, model: ClassificationHead) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        attention_mask: Int[Tensor, "B T"],
        token_type_ids: Int[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B *T labels"]]:
        """Logits of the labels."""
        model, backbone = self.model, self.model.backbone
        if isinstance(backbone, Encoder):
            x = backbone.embedding(input_ids)
            hidden = run_bidirectional_stack(backbone, x, attention_mask, token_type_ids)
        else:
            positions = token_positions(attention_mask)
            bias = causal_biases(backbone, attention_mask, positions, positions, torch.arange(input_ids.shape[1]))
            x = backbone.embed_tokens(input_ids, positions)
            hidden, _ = run_causal_stack(backbone, x, positions, bias)
        if isinstance(model, SequenceClassifier):
            hidden = self.pool(model, hidden, attention_mask)
        return (model.classify_features(hidden),)

    def pool(
        self, model: SequenceClassifier, hidden: Float[Tensor, "B T W"], mask: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B W"]:
        """One vector per text, as `SequenceClassifier.pool`, with padding on either side."""
        if model.config.pooling == "mean":
            weights = mask.to(hidden.dtype)[..., None]
            return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
        real = token_positions(mask) + mask  # 1 at the first token, rising; padding repeats the number before it
        index = real.argmax(1) if model.config.pooling == "last" else mask.argmax(1)
        chosen = hidden.gather(1, index[:, None, None].expand(-1, 1, hidden.shape[2]))[:, 0]
        return torch.tanh(model.pooler(chosen)) if model.pooler is not None else chosen


class SourceEncoderModule(nn.Module):
    """The encoder of an encoder-decoder."""

    def __init__(self, model: EncoderDecoder) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Int[Tensor, "B S"], attention_mask: Int[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B S W"]]:
        """Hidden states of the source tokens."""
        return (run_bidirectional_stack(self.model.encoder, self.model.embedding(input_ids), attention_mask),)


class TargetDecoderModule(nn.Module):
    """The decoder of an encoder-decoder, without a cache."""

    def __init__(self, model: EncoderDecoder) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        encoder_attention_mask: Int[Tensor, "B S"],
        input_ids: Int[Tensor, "B T"],
        encoder_hidden_states: Float[Tensor, "B S W"],
    ) -> tuple[Float[Tensor, "B T V"]]:
        """Logits after each target token."""
        model = self.model
        source_bias = mask_bias(encoder_attention_mask, encoder_hidden_states.dtype)[:, None, None]
        mask = torch.ones_like(input_ids)  # no mask: padding must be on the right, where no token attends to it
        positions = token_positions(mask)
        bias = causal_biases(model.decoder, mask, positions, positions, torch.arange(input_ids.shape[1]))
        x = model.decoder.embed_inputs(model.embedding(input_ids), positions)
        x, _ = run_causal_stack(model.decoder, x, positions, bias, source=(encoder_hidden_states, source_bias))
        return (model.logits(model.scale_hidden(x)),)


OPERATORS: dict[Cell, tuple[str, tuple[int, ...], dict[str, int]]] = {
    "rnn": ("RNN", (0,), {}),
    "gru": ("GRU", (1, 0, 2), {"linear_before_reset": 1}),
    "lstm": ("LSTM", (0, 3, 1, 2), {}),
}
"""Each cell's ONNX operator: its name, the order of its gates as indices of Clearstory's, and its attributes.

The exporter's own conversion to these operators would fix the sequence length to that of the example input.
"""


class RecurrentModule(nn.Module):
    """A recurrent model with its state as input and output. It has no mask: sequences must have equal length."""

    def __init__(self, model: Recurrent) -> None:
        super().__init__()
        self.model = model
        self.layers = nn.ModuleList(RecurrentLayerModule(cast(RecurrentLayer, layer)) for layer in model.layers)

    def forward(self, input_ids: Int[Tensor, "B T"], past: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Logits, then the state of each layer."""
        x = self.model.embedding(input_ids.t())
        per_layer = len(past) // len(self.layers)
        present: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            x, *state = layer(x, past[per_layer * index : per_layer * (index + 1)])
            present += state
        return self.model.logits(x.transpose(0, 1)), *present


class RecurrentLayerModule(nn.Module):
    """One recurrent layer, its weights in ONNX's order of gates."""

    def __init__(self, layer: RecurrentLayer) -> None:
        super().__init__()
        self.operator, order, self.attributes = OPERATORS[layer.cell]

        def reorder_gates(weight: Tensor) -> Tensor:
            gates = weight.detach().chunk(len(order))
            return torch.cat([gates[gate] for gate in order])[None]

        self.input = nn.Parameter(reorder_gates(layer.input.weight))
        self.recurrent = nn.Parameter(reorder_gates(layer.recurrent.weight))
        self.bias = nn.Parameter(torch.cat([reorder_gates(layer.input.bias), reorder_gates(layer.recurrent.bias)], 1))

    def forward(self, x: Float[Tensor, "T B I"], state: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Hidden states, (T, B, U), and the state after the last token."""
        length, batch_size, units = x.shape[0], x.shape[1], self.recurrent.shape[2]
        hidden, *new_state = torch.onnx.ops.symbolic_multi_out(
            self.operator,
            (x, self.input, self.recurrent, self.bias, None, *(each[None] for each in state)),
            {"hidden_size": units, **self.attributes},
            dtypes=[x.dtype] * (1 + len(state)),
            shapes=[(length, 1, batch_size, units), *[(1, batch_size, units)] * len(state)],
        )
        return hidden[:, 0], *(each[0] for each in new_state)


def token_positions(mask: Int[Tensor, "B S"]) -> Int[Tensor, "B S"]:
    """The position of each token among the real tokens of its sequence, from 0."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def mask_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """An additive attention bias: 0 where the mask is positive, else the lowest number of `dtype`, so that weights are
    0.

    Not -inf: for a padding token before all real tokens every key is masked, and softmax would give NaN.
    """
    return torch.where(mask > 0, 0.0, torch.finfo(dtype).min).to(dtype)


def causal_biases(
    stack: Stack,
    mask: Int[Tensor, "B S"],
    key_positions: Int[Tensor, "B S"],
    positions: Int[Tensor, "B T"],
    indices: Int[Tensor, "T"],
) -> list[Float[Tensor, "B H T S"]]:
    """The additive bias of causal attention in each block; see `causal_bias`."""
    windows = [stack.config.window(layer) for layer in range(len(stack.blocks))]
    by_window = {each: causal_bias(stack, each, mask, key_positions, positions, indices) for each in set(windows)}
    return [by_window[each] for each in windows]


def causal_bias(
    stack: Stack,
    window: int | None,
    mask: Int[Tensor, "B S"],
    key_positions: Int[Tensor, "B S"],
    positions: Int[Tensor, "B T"],
    indices: Int[Tensor, "T"],
) -> Float[Tensor, "B H T S"]:
    """The additive bias of causal attention: mask, sliding window and relative position bias, (B, 1 | H, T, S).

    `indices` are the columns of the queries in the sequence, `positions` their positions.
    """
    visible = (torch.arange(mask.shape[1]) <= indices[:, None]) & (mask[:, None] > 0)
    if window is not None:
        visible = visible & (key_positions[:, None] > positions[:, :, None] - window)
    bias = mask_bias(visible, torch.float32)[:, None]
    return bias if stack.relative_position_bias is None else bias + relative_bias(stack, key_positions, positions)


def relative_bias(
    stack: Stack, key_positions: Int[Tensor, "B S"], positions: Int[Tensor, "B T"]
) -> Float[Tensor, "B H T S"]:
    """`RelativePositionBias` for sequences that differ in their positions."""
    assert stack.relative_position_bias is not None
    distance = key_positions[:, None] - positions[:, :, None]
    bias: Tensor = stack.relative_position_bias.bias(stack.relative_position_bias.bucket(distance.flatten(0, 1)))
    return bias.view(*distance.shape, -1).permute(0, 3, 1, 2)


def run_causal_stack(
    stack: Stack,
    x: Float[Tensor, "B T W"],
    positions: Int[Tensor, "B T"],
    biases: Sequence[Float[Tensor, "B H T S"]],
    past: Sequence[Tensor] = (),
    source: tuple[Tensor, Tensor] | None = None,
) -> tuple[Float[Tensor, "B T W"], list[Tensor]]:
    """Hidden states of a causal stack after a past, and the keys and values of past and new tokens."""
    rotary = stack.rotary_angles(positions, x.dtype)
    present: list[Tensor] = []
    for index, each in enumerate(stack.blocks):
        block = cast(Block, each)
        attention = CachedAttention(block.self_attention, rotary[index], biases[index], past[2 * index : 2 * index + 2])
        x = block.residual(x, block.attention_norm, attention)
        if source is not None and block.cross_attention is not None and block.cross_attention_norm is not None:
            x = block.residual(
                x, block.cross_attention_norm, partial(block.cross_attention.cross_attend, source=source)
            )
        x = block.residual(x, block.feed_forward_norm, block.feed_forward)
        present += attention.present
    return x if stack.norm is None else stack.norm(x), present


def run_bidirectional_stack(
    stack: Stack, x: Float[Tensor, "B T W"], mask: Int[Tensor, "B T"], token_type_ids: Int[Tensor, "B T"] | None = None
) -> Float[Tensor, "B T W"]:
    """Hidden states of a bidirectional stack from token embeddings: `Stack.run_blocks`, with padding on either side."""
    positions = token_positions(mask)
    x = stack.embed_inputs(x, positions, token_type_ids)
    rotary = None if stack.rotary is None else stack.rotary.cos_sin(positions, x.dtype)
    bias = mask_bias(mask, x.dtype)[:, None, None]
    if stack.relative_position_bias is not None:
        bias = bias + relative_bias(stack, positions, positions)
    for block in stack.blocks:
        x = block(x, rotary, None, bias)
    return x if stack.norm is None else stack.norm(x)
