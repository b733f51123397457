"""Hooks in the modules of a model, through which every named activation passes; see `activations`.

The model itself has no hooks: they wrap methods of its blocks and attentions, and are removed afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clearstory.errors import BadSetting, CannotDo
from clearstory.models.recurrent.model import Recurrent
from clearstory.models.recurrent.source_attention import SourceAttention
from clearstory.models.transformer.attention import Attention, LayerCache, causal_mask
from clearstory.models.transformer.block import Block
from clearstory.models.transformer.stack import Stack

Replacement = Callable[[Tensor], Tensor] | Tensor
"""The new value of an activation, of the same shape: a tensor, or a function of the old value."""


class ActivationHooks:
    """The recorders and replacements that are active in one model."""

    def __init__(self) -> None:
        self.recorders: list[tuple[set[str], dict[str, Tensor], Callable[[Tensor], Tensor] | None]] = []
        self.replacements: list[Mapping[str, Replacement]] = []
        self.users = 0
        self.installed = ExitStack()

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """The value that the forward pass continues with, after replacing and recording."""
        for replacements in self.replacements:
            if name in replacements:
                value = replaced_value(name, value, replacements[name])
        for names, recorded, keep in self.recorders:
            if name in names:
                recorded[name] = value if keep is None else keep(value)
        return value

    def is_active(self, name: str) -> bool:
        """Whether an activation is recorded or replaced."""
        return any(name in replacements for replacements in self.replacements) or any(
            name in names for names, _, _ in self.recorders
        )


def replaced_value(name: str, value: Tensor, replacement: Replacement) -> Tensor:
    """The new value of an activation. Raises BadSetting for another shape."""
    new = replacement if isinstance(replacement, Tensor) else replacement(value)
    if new.shape != value.shape:
        raise BadSetting(
            f"the activation '{name}' has shape {tuple(value.shape)} and the replacement {tuple(new.shape)}; give one "
            "of the same shape"
        )
    return new.to(value)


def install_recurrent(model: Recurrent, hooks: ActivationHooks) -> None:
    """Hooks in a recurrent model."""
    hooks.installed.enter_context(output_hook(model.embedding, partial(hooks, "embedding")))
    for layer, cell in enumerate(model.layers):
        hooks.installed.enter_context(output_hook(cell, partial(hooks, f"layers.{layer}")))


def install_source_attention(attention: SourceAttention, hooks: ActivationHooks) -> None:
    """Hooks in the attention of a recurrent encoder-decoder: its weights as those of one head, (B, 1, T, S)."""
    name = "cross_attention.pattern"

    def pattern(pattern: Callable[[Tensor], Tensor], weights: Tensor) -> Tensor:
        weights = pattern(weights)
        if not torch.equal(hooks(name, weights[:, None]), weights[:, None]):
            raise CannotDo(
                "the attention weights of a recurrent decoder cannot be replaced, since its states were computed from "
                "them; record them, or use a Transformer"
            )
        return weights

    hooks.installed.enter_context(wrapped_method(attention.pattern, pattern))


def install_stack(stack: Stack, prefix: str, hooks: ActivationHooks) -> None:
    """Hooks in a stack and all its blocks."""

    def embed(embed: Callable[..., Tensor], x: Tensor, *args: Any) -> Tensor:
        return embed(hooks(f"{prefix}embedding", x), *args)

    def drop(drop: Callable[..., Tensor], x: Tensor) -> Tensor:
        return hooks(f"{prefix}embedding_output", drop(x))

    hooks.installed.callback(setattr, stack, "packs_sequences", stack.packs_sequences)
    stack.packs_sequences = False
    hooks.installed.enter_context(wrapped_method(stack.embed_inputs, embed))
    hooks.installed.enter_context(wrapped_method(stack.apply_dropout, drop))
    for layer, block in enumerate(stack.blocks):
        install_block(cast(Block, block), f"{prefix}blocks.{layer}", hooks)
    if stack.norm is not None:
        hooks.installed.enter_context(output_hook(stack.norm, partial(hooks, f"{prefix}norm")))


def install_block(block: Block, name: str, hooks: ActivationHooks) -> None:
    """Hooks in a block: the input and output of each sublayer, and the residual stream after it."""
    sublayers = {
        block.attention_norm: (f"{name}.attention", f"{name}.after_attention"),
        block.cross_attention_norm: (f"{name}.cross_attention", f"{name}.after_cross_attention"),
        block.feed_forward_norm: (f"{name}.feed_forward", name),
    }

    def residual(
        residual: Callable[..., Tensor], x: Tensor, norm: nn.Module, sublayer: Callable[[Tensor], Tensor]
    ) -> Tensor:
        output, after = sublayers[norm]
        return hooks(after, residual(x, norm, lambda y: hooks(output, sublayer(hooks(f"{output}.input", y)))))

    hooks.installed.enter_context(wrapped_method(block.residual, residual))
    hooks.installed.enter_context(input_hook(block.feed_forward.down, partial(hooks, f"{name}.feed_forward.neurons")))
    install_attention(block.self_attention, f"{name}.attention", hooks)
    if block.cross_attention is not None:
        install_attention(block.cross_attention, f"{name}.cross_attention", hooks)


def install_attention(attention: Attention, name: str, hooks: ActivationHooks) -> None:
    """Hooks in an attention. PyTorch's fused kernel returns no weights: where scores or pattern are recorded or
    replaced, they are computed from the same queries and keys, and the kernel's result is used unless they changed.
    """
    names = (f"{name}.scores", f"{name}.pattern")

    def changed_weights(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor | None:
        """The attention weights where a replacement changed them; else None."""
        computed = attention_scores(attention, q, k, bias)
        scores = hooks(names[0], computed.clone())  # a replacement may change it in place
        pattern = scores.softmax(-1)
        weights = hooks(names[1], pattern.clone())
        return None if torch.equal(scores, computed) and torch.equal(weights, pattern) else weights

    def queries(queries: Callable[..., Tensor], *args: Any) -> Tensor:
        return hooks(f"{name}.query", queries(*args))

    def keys_and_values(keys_and_values: Callable[..., tuple[Tensor, Tensor]], *args: Any) -> tuple[Tensor, Tensor]:
        k, v = keys_and_values(*args)
        return hooks(f"{name}.key", k), hooks(f"{name}.value", v)

    def attend(attend: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        if not any(map(hooks.is_active, names)):
            return attend(q, k, v, bias)
        weights = changed_weights(q, k, bias)
        return attend(q, k, v, bias) if weights is None else weighted_values(weights, v)

    def attend_with_cache(
        attend: Callable[..., Tensor],
        q: Tensor,
        k: Tensor,
        v: Tensor,
        past: list[LayerCache],
        bias: list[Tensor] | None = None,
    ) -> Tensor:
        out = attend(q, k, v, past, bias)  # writes the new keys and values into `past`
        if not any(map(hooks.is_active, names)):
            return out
        if len({(keys.shape[1], new.shape[2]) for keys, _, new in past}) > 1:
            raise CannotDo(
                "the attention of a batch with sequences of different lengths in its cache cannot be recorded; "
                "run them one at a time"
            )
        weights = changed_weights(
            q, torch.stack([keys for keys, _, _ in past]), None if bias is None else torch.stack(bias)
        )
        return out if weights is None else weighted_values(weights, torch.stack([values for _, values, _ in past]))

    def project(project: Callable[..., Tensor], head_outputs: Tensor) -> Tensor:
        return project(hooks(f"{name}.head_outputs", head_outputs))

    wrappers: list[tuple[Callable[..., Any], Callable[..., Any]]] = [
        (attention.query_heads, queries),
        (attention.key_value_heads, keys_and_values),
        (attention.attend, attend),
        (attention.attend_with_cache, attend_with_cache),
        (attention.project_output, project),
    ]
    for method, wrapper in wrappers:
        hooks.installed.enter_context(wrapped_method(method, wrapper))


def attention_scores(
    attention: Attention, q: Float[Tensor, "B H T D"], k: Float[Tensor, "B K S D"], bias: Tensor | None = None
) -> Float[Tensor, "B H T S"]:
    """Q Kᵀ / √d plus biases, -inf where the causal mask applies. Vaswani et al. 2017, eq. 1."""
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    if attention.causal:
        scores = scores.masked_fill(
            ~causal_mask(q.shape[2], k.shape[2], attention.sliding_window, q.device), -torch.inf
        )
    return scores


def weighted_values(weights: Float[Tensor, "B H T S"], v: Float[Tensor, "B K S D"]) -> Float[Tensor, "B H T D"]:
    """Values averaged by the attention weights; each value head is shared by H / K heads."""
    return weights @ v.repeat_interleave(weights.shape[1] // v.shape[1], 1)


@contextmanager
def wrapped_method(method: Any, wrapper: Callable[..., Any]) -> Iterator[None]:
    """Call `wrapper(method, ...)` in place of a bound method, on this object only."""
    owner, name = method.__self__, method.__func__.__name__
    setattr(owner, name, partial(wrapper, method))
    try:
        yield
    finally:
        delattr(owner, name)


@contextmanager
def input_hook(module: nn.Module, hook: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Pass a module's first input through `hook`."""
    handle = module.register_forward_pre_hook(lambda _, args: (hook(args[0]), *args[1:]))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def output_hook(module: nn.Module, hook: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Pass a module's output through `hook`; the first of several outputs."""
    handle = module.register_forward_hook(
        lambda _, args, out: (hook(out[0]), *out[1:]) if isinstance(out, tuple) else hook(out)
    )
    try:
        yield
    finally:
        handle.remove()
