"""Activations: the named tensors of a forward pass, which can be recorded or replaced.

Names in a Transformer, for each layer i from 0; in an encoder-decoder they begin with `encoder.` and `decoder.`:

    embedding                       (B, T, W)     token embeddings
    embedding_output                (B, T, W)     input of the first block: position and segment embeddings added
    blocks.i.attention.input        (B, T, W)     input of attention, after the norm in a pre-norm model
    blocks.i.attention.query        (B, H, T, D)  after rotary embedding where the model has it
    blocks.i.attention.key          (B, K, S, D)  for K key-value heads
    blocks.i.attention.value        (B, K, S, D)
    blocks.i.attention.scores       (B, H, T, S)  Q Kᵀ / √d plus biases; -inf where masked
    blocks.i.attention.pattern      (B, H, T, S)  softmax of the scores
    blocks.i.attention.head_outputs (B, H, T, D)  pattern · V
    blocks.i.attention              (B, T, W)     output of attention, added to the residual stream
    blocks.i.after_attention        (B, T, W)     residual stream after attention
    blocks.i.cross_attention...                   the same for cross-attention, and blocks.i.after_cross_attention
    blocks.i.feed_forward.input     (B, T, W)
    blocks.i.feed_forward.neurons   (B, T, hidden) input of the down projection
    blocks.i.feed_forward           (B, T, W)     output of the feed-forward, added to the residual stream
    blocks.i                        (B, T, W)     residual stream after the block
    norm                            (B, T, W)     output of the final norm, where there is one

and in a recurrent model `embedding` and `layers.i`, both (T, B, W): the output of each layer; in a recurrent
encoder-decoder `cross_attention.pattern`, (B, 1, T, S), which can be recorded and not replaced. The model itself has no
hooks: they are installed while something is recorded or replaced, and removed afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from clearstory.errors import CannotDo, UnknownName, nearest
from clearstory.lens.hooks.installation import (
    ActivationHooks,
    Replacement,
    install_recurrent,
    install_source_attention,
    install_stack,
)
from clearstory.models.base import LanguageModel
from clearstory.models.capabilities import Capability, family_name, require
from clearstory.models.heads import backbone_of
from clearstory.models.inference_model import InferenceView
from clearstory.models.recurrent.encoder_decoder import RecurrentEncoderDecoder
from clearstory.models.transformer.stack import Stack

ATTENTION_ACTIVATIONS = ("input", "query", "key", "value", "scores", "pattern", "head_outputs")


@contextmanager
def record_activations(
    model: LanguageModel, *patterns: str, keep: Callable[[Tensor], Tensor] | None = None
) -> Iterator[dict[str, Tensor]]:
    """Dictionary that is filled with the activations whose names match, by name, during the forward passes inside.

    In a pattern, `*` matches one component of a name and `**` any number of them. A second forward pass overwrites the
    first. Recording does not change the model's outputs, bit for bit. With `keep`, only its result is stored: the
    attention patterns of all layers are 151 MB for 512 tokens of GPT-2. Raises UnknownName for a pattern without a
    match.

    >>> from clearstory.models.base import TokenBatch
    >>> from clearstory.models.build import build
    >>> from clearstory.models.transformer.presets import NANOGPT_CHAR
    >>> model = build(NANOGPT_CHAR, seed=1).eval()
    >>> with record_activations(model, "blocks.*.attention.pattern") as recorded:
    ...     _ = model.forward(TokenBatch.from_sequences([[1, 2, 3]]))
    >>> recorded["blocks.0.attention.pattern"].shape
    torch.Size([1, 4, 3, 3])
    """
    known = activation_names(model)
    names = {name for pattern in patterns for name in match_names(pattern, known)}
    recorded: dict[str, Tensor] = {}
    with installed_hooks(model) as hooks:
        hooks.recorders.append((names, recorded, keep))
        try:
            yield recorded
        finally:
            hooks.recorders = [each for each in hooks.recorders if each[1] is not recorded]


@contextmanager
def replace_activations(model: LanguageModel, replacements: Mapping[str, Replacement]) -> Iterator[None]:
    """Replace activations during the forward passes inside; everything after them is computed from the new values.

    Replacements of an inner context are applied after those of an outer one. `record_activations` records the new
    values. Raises UnknownName for an unknown activation, BadSetting for a value of another shape.

    >>> from clearstory.models.base import TokenBatch
    >>> from clearstory.models.build import build
    >>> from clearstory.models.transformer.presets import NANOGPT_CHAR
    >>> model = build(NANOGPT_CHAR, seed=1).eval()
    >>> zero = {"blocks.0.attention": torch.zeros_like}
    >>> with replace_activations(model, zero), record_activations(model, "blocks.0.*") as recorded:
    ...     _ = model.forward(TokenBatch.from_sequences([[1, 2, 3]]))
    >>> float(recorded["blocks.0.attention"].abs().max())
    0.0
    """
    known = activation_names(model)
    for name in replacements:
        if name not in known:
            raise UnknownName(f"unknown activation '{name}'; {nearest(name, known)}")
    with installed_hooks(model) as hooks:
        hooks.replacements.append(replacements)
        try:
            yield
        finally:
            hooks.replacements = [each for each in hooks.replacements if each is not replacements]


ACTIVE_HOOKS: WeakKeyDictionary[nn.Module, ActivationHooks] = WeakKeyDictionary()


@contextmanager
def installed_hooks(model: LanguageModel) -> Iterator[ActivationHooks]:
    """Hooks of a model, installed by the first user and removed after the last."""
    network = unwrap_model(model)
    if (hooks := ACTIVE_HOOKS.get(network)) is None:
        hooks = ActivationHooks()
        if Capability.RECURRENT_STATE in model.capabilities:
            install_recurrent(network, hooks)
        elif is_recurrent_with_attention(model):
            install_source_attention(network.decoder.cross_attention, hooks)
        else:
            for prefix, stack in transformer_stacks(model):
                install_stack(stack, prefix, hooks)
        ACTIVE_HOOKS[network] = hooks
    hooks.users += 1
    try:
        yield hooks
    finally:
        hooks.users -= 1
        if not hooks.users:
            hooks.installed.close()
            del ACTIVE_HOOKS[network]


def activation_names(model: LanguageModel) -> list[str]:
    """The names of all activations of a model, in the order of computation. Raises CannotDo for a model without any."""
    if Capability.RECURRENT_STATE in model.capabilities:
        return ["embedding", *(f"layers.{layer}" for layer in range(len(unwrap_model(model).layers)))]
    if is_recurrent_with_attention(model):
        return ["cross_attention.pattern"]
    names = []
    for prefix, stack in transformer_stacks(model):
        names += [f"{prefix}embedding", f"{prefix}embedding_output"]
        for layer, block in enumerate(stack.blocks):
            name = f"{prefix}blocks.{layer}"
            names += [*attention_activation_names(f"{name}.attention"), f"{name}.after_attention"]
            if getattr(block, "cross_attention", None) is not None:
                names += [*attention_activation_names(f"{name}.cross_attention"), f"{name}.after_cross_attention"]
            names += [f"{name}.feed_forward{part}" for part in (".input", ".neurons", "")]
            names.append(name)
        if stack.norm is not None:
            names.append(f"{prefix}norm")
    return names


def attention_activation_names(attention: str) -> list[str]:
    """The names of the activations of one attention, its output last."""
    return [*(f"{attention}.{part}" for part in ATTENTION_ACTIVATIONS), attention]


def transformer_stacks(model: LanguageModel) -> list[tuple[str, Stack]]:
    """A Transformer's stacks, each with the prefix of its activation names. Raises CannotDo for other models."""
    require(model, Capability.HIDDEN_STATES)
    network = unwrap_model(model)
    if Capability.SOURCE in model.capabilities:
        return [("encoder.", network.encoder), ("decoder.", network.decoder)]
    return [("", network)]


def is_recurrent_with_attention(model: LanguageModel) -> bool:
    """Whether a model is a recurrent encoder-decoder with attention to its source."""
    return Capability.ATTENTION in model.capabilities and isinstance(unwrap_model(model), RecurrentEncoderDecoder)


def unwrap_model(model: LanguageModel) -> Any:
    """The original model of one whose weights were laid out for decoding, the backbone of a classifier; any other
    model itself.
    """
    return model.base_model if isinstance(model, InferenceView) else backbone_of(cast(nn.Module, model))


def embedding_module(model: LanguageModel) -> nn.Module:
    """The module whose output is the input embedding of each token. Raises CannotDo for a model without one."""
    require(model, Capability.EMBEDDINGS)
    module = getattr(unwrap_model(model), "embedding", None)
    weight = getattr(module, "weight", None)
    if not isinstance(module, nn.Module) or not isinstance(weight, Tensor) or weight.dim() != 2:
        raise CannotDo(
            f"this model ({family_name(model)}) declares token embeddings and has no module `embedding` with a row for "
            "each token; use a model of another family"
        )
    return module


def model_device(model: LanguageModel) -> torch.device:
    """The device of a model's parameters; the CPU for one without parameters."""
    parameter = next(iter(model.parameters()), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


def match_names(pattern: str, names: list[str]) -> list[str]:
    """The activation names that match a pattern. Raises UnknownName if none does.

    >>> match_names("blocks.*.after_attention", ["embedding", "blocks.0", "blocks.0.after_attention"])
    ['blocks.0.after_attention']
    """
    parts = re.split(r"(\*\*|\*)", pattern)
    wildcards = {"**": ".+", "*": r"[^.]+"}
    regex = re.compile("".join(wildcards.get(part) or re.escape(part) for part in parts))
    matches = [name for name in names if regex.fullmatch(name)]
    if not matches:
        raise UnknownName(f"no activation matches '{pattern}'; {nearest(pattern, names)}")
    return matches
