"""Resumed passes: forward passes that start from the residual stream of an earlier pass.

A change in block l has no effect on lower blocks, so these are not computed again, which saves half of the work of an
ablation over all layers. In a causal model a change at token t also has no effect on earlier tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from clearstory.lens.hooks.activations import replace_activations, transformer_stacks
from clearstory.lens.hooks.installation import wrapped_method
from clearstory.models.base import LanguageModel


def block_streams(model: LanguageModel) -> list[str]:
    """The names of the residual streams after every block of a Transformer, which `resumed_after` needs."""
    stacks = transformer_stacks(model)
    return [f"{prefix}blocks.{layer}" for prefix, stack in stacks for layer in range(len(stack.blocks))]


@contextmanager
def resumed_after(
    model: LanguageModel, prefix: str, layer: int, streams: Mapping[str, Float[Tensor, "1 T W"]]
) -> Iterator[None]:
    """The forward passes inside start after block `layer` of the stack `prefix`; after −1 they compute all its blocks.

    `streams` are the `block_streams` of a pass over one sequence; the passes inside process copies of it, or copies of
    its end with a cache of its start. An encoder before the stack is not computed either. Skipped activations are not
    recorded or replaced.

    >>> from clearstory.lens.hooks.activations import record_activations
    >>> from clearstory.models.base import TokenBatch
    >>> from clearstory.models.build import build
    >>> from clearstory.models.transformer.presets import NANOGPT_CHAR
    >>> model, tokens = build(NANOGPT_CHAR, seed=1).eval(), TokenBatch.from_sequences([[1, 2, 3]])
    >>> with record_activations(model, *block_streams(model)) as streams:
    ...     hidden, _ = model.forward(tokens)
    >>> with resumed_after(model, "", 2, streams):
    ...     bool((model.forward(tokens)[0] - hidden).abs().max() < 1e-5)
    True
    """
    with ExitStack() as active:
        for name, stack in transformer_stacks(model):
            last = layer if name == prefix else len(stack.blocks) - 1
            if last >= 0:
                copied = partial(copy_stream, streams[f"{name}blocks.{last}"])
                active.enter_context(replace_activations(model, {f"{name}embedding_output": copied}))
            for block in list(stack.blocks)[: last + 1]:
                active.enter_context(wrapped_method(block.forward, skip_block))
            if name == prefix:
                break
        yield


def last_unchanged(model: LanguageModel, changed: Collection[str]) -> tuple[str, int]:
    """The prefix of the first stack with any of these activations, and its last block before all of them, or −1."""
    for prefix, stack in transformer_stacks(model):
        for layer in range(-1, len(stack.blocks)):
            start = f"{prefix}embedding" if layer < 0 else f"{prefix}blocks.{layer}"
            if any(name == start or name.startswith((f"{start}.", f"{prefix}embedding")) for name in changed):
                return prefix, max(layer - 1, -1)
    return transformer_stacks(model)[0][0], -1


def copy_stream(stream: Float[Tensor, "1 T W"], value: Float[Tensor, "B N W"]) -> Float[Tensor, "B N W"]:
    """The last N tokens of a residual stream, for each of B sequences."""
    return stream[:, -value.shape[1] :].expand_as(value)


def skip_block(_: Callable[..., Tensor], x: Tensor, *args: Any) -> Tensor:
    """In place of a block: its input."""
    return x
