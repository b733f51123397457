"""DecoderForInference: a decoder-only Transformer with joined constant weights and few operations per layer.

Decoding one token is reading all weights once; what remains is the fixed cost of each operation (1 to 2 µs). So query,
key and value are one product, gate and up another; a rotation is one complex product; keys and values are cached by one
copy; residual additions are in place.

Norms, attention of one token and the gate are TorchScript functions, which have no Python between their operators;
torch.compile would take half a minute before the first token. The cache is fp32: in fp16, attention over 4,000 tokens
takes five times as long on a CPU (2.2 ms in place of 0.4 for a layer of SmolLM2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clearstory.models.autograd_functions import RMSNorm
from clearstory.models.base import TokenBatch
from clearstory.models.matmul.kernels import scripted
from clearstory.models.matmul.packed import NativeLinear, pack_linear
from clearstory.models.shallow_copy import shallow_copy
from clearstory.models.transformer.block import Block
from clearstory.models.transformer.cache import KVCache, RowCache
from clearstory.models.transformer.cached_attention import Attend, SingleTokens, WholeSequences, choose_attention
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.decoder import Transformer
from clearstory.models.transformer.decoding_step import DecodingStep, StepBlock

Turns = tuple[Float[Tensor, "N P"], Float[Tensor, "N P"]] | None
"""Cosines and sines of rotations, a row for each token; None without rotary positions."""

JoinedLinearFactory = Callable[[Sequence[nn.Linear]], nn.Module]
"""From linear layers of one input to a module that computes them all, outputs concatenated."""


def can_join(model: object) -> bool:
    """Whether a model has the joined form: a decoder in fp32 on a CPU whose layers are plain linear layers (no
    adapters), without a relative position bias. All others decode in their own form.
    """
    if not isinstance(model, Transformer) or model.config.positions == "relative_bias":
        return False
    weight = model.embedding.weight
    plain = weight.dtype == torch.float32 and weight.device.type == "cpu"
    return (
        plain
        and model.compute_dtype in (None, torch.float32)
        and all(isinstance(each, nn.Linear) for block in model.blocks for each in linear_layers(cast(Block, block)))
    )


def linear_layers(block: Block) -> list[nn.Module]:
    """The linear layers of a block of a decoder."""
    attention, feed_forward = block.self_attention, block.feed_forward
    gate = [] if feed_forward.gate is None else [feed_forward.gate]
    projections = [attention.query, attention.key, attention.value, attention.output]
    return [*projections, *gate, feed_forward.up, feed_forward.down]


class DecoderForInference(nn.Module):
    """A decoder whose blocks are replaced by joined ones; embeddings, norms and hashed n-grams are the model's own.

    `forward` is that of `Transformer`, without gradients; `make_linear` packs the layers. Blocks and unembedding of the
    model are not kept. States are KV caches, but of this form: pairs of rotated keys lie side by side in them.
    """

    def __init__(self, model: Transformer, make_linear: JoinedLinearFactory) -> None:
        super().__init__()
        self.config = model.config
        self.blocks = nn.ModuleList(
            JoinedBlock(cast(Block, block), model.config, make_linear) for block in model.blocks
        )

        def replace_part(name: str, module: nn.Module) -> nn.Module | None:
            if module is model.blocks or module is model.unembedding:
                return nn.ModuleList()
            # Those of hashed n-grams: packed for independent rows, and not rounded.
            return pack_linear([module], "fp32") if isinstance(module, nn.Linear) else None

        self.stack = cast(Transformer, shallow_copy(model, replace_part))
        self.norm = None if model.norm is None else fast_norm(model.norm)
        self.step = decoding_step(self.blocks, model)
        self.requires_grad_(False)
        self.eval()

    def init_state(self, batch_size: int = 1) -> KVCache:
        """The KV cache of `batch_size` empty sequences."""
        return self.stack.init_state(batch_size)

    @torch.no_grad()
    def forward(
        self, tokens: TokenBatch, state: KVCache | None = None
    ) -> tuple[Float[Tensor, "B T W"], KVCache | None]:
        """Hidden states after each token, (B, T, W), and the KV cache after the last; without a state, None."""
        batch_size, count = tokens.ids.shape
        if state is None:
            self.stack.check_ids(tokens.ids, count)
            positions = torch.arange(count).expand(batch_size, count)
            stored = None if self.stack.recall is None else self.stack.recall(tokens.ids)
            attend: Attend | None = WholeSequences(self.config, batch_size, ())
            rows: tuple[RowCache, ...] = ()
        else:
            rows, new, positions = self.stack.extend_caches(tokens, state.rows)
            stored = None
            if self.stack.recall is not None:
                rows, stored = self.stack.look_up_hashed_ngrams(tokens.ids, state.rows, rows, new)
            attend = None
            if self.step is None or count > 1 or min(new, default=0) == 0:
                attend = choose_attention(self.config, rows, new, count)
        x = self.stack.embed_tokens(tokens.ids, positions, stored).flatten(0, 1)
        if attend is not None:
            x = self.run_blocks(x, positions, attend)
        elif self.step is not None:
            x = self.step(x, *self.angles(positions), rows)
        x = x.view(batch_size, count, -1)
        return self.stack.apply_hashed_ngrams(x, stored), None if state is None else replace(state, rows=rows)

    @torch.no_grad()
    def forward_rows(self, ids: Int[Tensor, "N"], positions: Int[Tensor, "N"], attend: Attend) -> Float[Tensor, "N W"]:
        """Hidden states of tokens at these positions, (N, W), where `attend` says which of them see which; not for
        models with hashed n-grams.
        """
        self.stack.check_ids(ids, int(positions.max()) + 1)
        x = self.stack.embed_tokens(ids[None], positions[None]).squeeze(0)
        return self.run_blocks(x, positions[None], attend)

    def run_blocks(self, x: Float[Tensor, "N W"], positions: Int[Tensor, "B T"], attend: Attend) -> Tensor:
        """Output of all blocks and the final norm, (N, W)."""
        turns = [None if each is None else torch.complex(*each)[:, None] for each in self.angles(positions)]
        for layer, block in enumerate(self.blocks):  # turns: (N, 1, D / 2)
            x = cast(JoinedBlock, block).run(x, turns[self.config.is_local(layer)], layer, attend)
        return x if self.norm is None else cast(Tensor, self.norm(x))

    def angles(self, positions: Int[Tensor, "B T"]) -> tuple[Turns, Turns]:
        """Rotations at these positions for each pair, and those of layers with a window of their own."""
        if self.stack.rotary is None:
            return None, None
        cos, sin = self.stack.rotary.cos_sin(positions.flatten(), torch.float32)
        turns = cos.squeeze(-2), sin.squeeze(-2)
        if self.stack.local_rotary is None:
            return turns, turns
        cos, sin = self.stack.local_rotary.cos_sin(positions.flatten(), torch.float32)
        return turns, (cos.squeeze(-2), sin.squeeze(-2))


def decoding_step(blocks: nn.ModuleList, model: Transformer) -> DecodingStep | None:
    """The step of single tokens in compiled code; None unless the compiled kernels compute all linear layers."""
    every = []
    for joined, block in zip(blocks, model.blocks, strict=True):
        assert isinstance(joined, JoinedBlock)
        assert isinstance(block, Block)
        layers = (joined.query_key_value, joined.output, joined.gate_up, joined.down)
        matrices = [each.matrix for each in layers if isinstance(each, NativeLinear)]
        if len(matrices) < len(layers):
            return None
        outputs = block.self_attention.output_norm, block.feed_forward.output_norm
        every.append(StepBlock(block.attention_norm, block.feed_forward_norm, *outputs, joined.head_gains, matrices))
    return DecodingStep(model.config, every, model.norm)


class JoinedBlock(nn.Module):
    """A block of a decoder with joined linear layers. Its input and output are rows, (N, W), whatever the batch."""

    def __init__(self, block: Block, config: TransformerConfig, make_linear: JoinedLinearFactory) -> None:
        super().__init__()
        attention, feed_forward = block.self_attention, block.feed_forward
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        self.query_key_value = make_linear([attention.query, attention.key, attention.value])
        self.output = make_linear([attention.output])
        gate = [] if feed_forward.gate is None else [feed_forward.gate]
        self.gate_up = make_linear([*gate, feed_forward.up])
        self.down = make_linear([feed_forward.down])
        self.activation, self.is_silu = feed_forward.activation, config.activation == "silu"
        self.gated, self.norm_first = bool(gate), block.norm_first
        self.attention_norm, self.feed_forward_norm = map(fast_norm, (block.attention_norm, block.feed_forward_norm))
        self.attention_output_norm = fast_norm(attention.output_norm)
        self.feed_forward_output_norm = fast_norm(feed_forward.output_norm)
        self.head_gains: tuple[Tensor, float] | None = None
        self.head_norm: FastRMSNorm | None = None
        if attention.query_norm is not None and attention.key_norm is not None:
            query, key = attention.query_norm.gain.data, attention.key_norm.gain.data
            gains = torch.stack([query] * self.heads + [key] * self.kv_heads)
            self.head_gains = gains, attention.query_norm.eps
            self.head_norm = FastRMSNorm(*self.head_gains)

    def run(self, x: Float[Tensor, "N W"], turns: Tensor | None, layer: int, attend: Attend) -> Float[Tensor, "N W"]:
        """The residual stream after this block; x may be overwritten."""
        if self.norm_first:
            x += self.attend(self.attention_norm(x), turns, layer, attend)
            x += self.feed_forward(self.feed_forward_norm(x))
            return x
        x = self.attention_norm(x + self.attend(x, turns, layer, attend))
        return cast(Tensor, self.feed_forward_norm(x + self.feed_forward(x)))

    def attend(self, x: Float[Tensor, "N W"], turns: Tensor | None, layer: int, attend: Attend) -> Float[Tensor, "N W"]:
        """Output of the attention sublayer."""
        projected: Tensor = self.query_key_value(x)
        if isinstance(attend, SingleTokens) and self.head_norm is None:
            return self.attention_output_norm(self.output(attend.rotated(layer, projected, turns)))  # type: ignore[no-any-return]  # the same
        rotated = self.heads + self.kv_heads
        if turns is not None or self.head_norm is not None:
            part = projected.narrow(-1, 0, rotated * self.head_dim)
            heads = part.view(len(x), rotated, self.head_dim)
            if self.head_norm is not None:
                heads = self.head_norm(heads)
            if turns is None:
                part.copy_(heads.flatten(1))
            else:
                # Pairs (i, i + half) are written side by side: a product of queries and keys is the same.
                first, second = heads.view(len(x), rotated, 2, -1).unbind(2)
                pairs = part.view(torch.complex64).view(len(x), rotated, -1)
                torch.mul(torch.complex(first, second), turns, out=pairs)
        heads = projected.view(len(x), rotated + self.kv_heads, self.head_dim)
        return self.attention_output_norm(self.output(attend(layer, heads)))  # type: ignore[no-any-return]  # nn.Module returns Any

    def feed_forward(self, x: Float[Tensor, "N W"]) -> Float[Tensor, "N W"]:
        """Output of the feed-forward sublayer."""
        hidden: Tensor = self.gate_up(x)
        if not self.gated:
            hidden = self.activation(hidden)
        elif self.is_silu:
            hidden = scripted(silu_gated)(hidden)
        else:
            gate, up = hidden.chunk(2, -1)
            hidden = self.activation(gate).mul_(up)
        return self.feed_forward_output_norm(self.down(hidden))  # type: ignore[no-any-return]  # nn.Module returns Any


class FastRMSNorm(nn.Module):
    """RMS norm of vectors in four operations: x √n g / √(x·x + n ε), (..., n)."""

    def __init__(self, gain: Tensor, eps: float) -> None:
        super().__init__()
        width = gain.shape[-1]
        self.gain = gain.data * math.sqrt(width)
        self.root_eps = torch.tensor(math.sqrt(width * eps), dtype=gain.dtype)

    def forward(self, x: Float[Tensor, "*D W"]) -> Float[Tensor, "*D W"]:
        """Over the last dimension."""
        out: Tensor = scripted(rms_norm)(x, self.gain, self.root_eps)
        return out


def rms_norm(x: Tensor, gain: Tensor, root_eps: Tensor) -> Tensor:
    """x times the gain over the root of x·x + ε, for a gain times √n and the root of n ε."""
    length = torch.linalg.vector_norm(x, 2.0, [-1], True)
    out: Tensor = (x / length.hypot_(root_eps)).mul_(gain)
    return out


def silu_gated(joined: Tensor) -> Tensor:
    """silu(gate) · up, from the two joined, (..., 2 F) -> (..., F)."""
    gate, up = joined.chunk(2, -1)
    out: Tensor = torch.ops.aten.silu(gate).mul_(up)
    return out


def fast_norm(norm: nn.Module | None) -> nn.Module:
    """A norm for inference: `FastRMSNorm` for an RMS norm, the identity for none, else a copy with shared weights."""
    if norm is None:
        return nn.Identity()
    return FastRMSNorm(norm.gain, norm.eps) if isinstance(norm, RMSNorm) else shallow_copy(norm, lambda *_: None)
