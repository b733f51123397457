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

and in a recurrent model `embedding` and `layers.i`, both (T, B, W): the output of each layer. The model itself has no
hooks: they are installed while something is recorded or replaced, and removed afterwards.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clearstory.errors import BadSetting, CannotDo, UnknownName, nearest
from clearstory.models.base import LanguageModel
from clearstory.models.capabilities import Capability, family_name, require
from clearstory.models.inference_model import InferenceView
from clearstory.models.recurrent.model import Recurrent
from clearstory.models.transformer.attention import Attention, LayerCache, causal_mask
from clearstory.models.transformer.block import Block
from clearstory.models.transformer.stack import Stack

Replacement = Callable[[Tensor], Tensor] | Tensor
"""The new value of an activation, of the same shape: a tensor, or a function of the old value."""

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
            raise UnknownName(f"there is no activation called '{name}'; {nearest(name, known)}")
    with installed_hooks(model) as hooks:
        hooks.replacements.append(replacements)
        try:
            yield
        finally:
            hooks.replacements = [each for each in hooks.replacements if each is not replacements]


def activation_names(model: LanguageModel) -> list[str]:
    """The names of all activations of a model, in the order of computation. Raises CannotDo for a model without any."""
    if Capability.RECURRENT_STATE in model.capabilities:
        return ["embedding", *(f"layers.{layer}" for layer in range(len(unwrap_model(model).layers)))]
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


def unwrap_model(model: LanguageModel) -> Any:
    """The original model of one whose weights were laid out for decoding; any other model itself."""
    return model.base_model if isinstance(model, InferenceView) else model


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
    """The activation names that match a pattern. Raises UnknownName where none does.

    >>> match_names("blocks.*.after_attention", ["embedding", "blocks.0", "blocks.0.after_attention"])
    ['blocks.0.after_attention']
    """
    parts = re.split(r"(\*\*|\*)", pattern)
    wildcards = {"**": ".+", "*": r"[^.]+"}
    regex = re.compile("".join(wildcards.get(part) or re.escape(part) for part in parts))
    matches = [name for name in names if regex.fullmatch(name)]
    if not matches:
        raise UnknownName(f"no activation is called '{pattern}'; {nearest(pattern, names)}")
    return matches


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


ACTIVE_HOOKS: WeakKeyDictionary[nn.Module, ActivationHooks] = WeakKeyDictionary()


@contextmanager
def installed_hooks(model: LanguageModel) -> Iterator[ActivationHooks]:
    """Hooks of a model, installed by the first user and removed after the last."""
    network = unwrap_model(model)
    if (hooks := ACTIVE_HOOKS.get(network)) is None:
        hooks = ActivationHooks()
        if Capability.RECURRENT_STATE in model.capabilities:
            install_recurrent(network, hooks)
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


def install_recurrent(model: Recurrent, hooks: ActivationHooks) -> None:
    """Hooks in a recurrent model."""
    hooks.installed.enter_context(output_hook(model.embedding, partial(hooks, "embedding")))
    for layer, cell in enumerate(model.layers):
        hooks.installed.enter_context(output_hook(cell, partial(hooks, f"layers.{layer}")))


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
    install_attention(block.attention, f"{name}.attention", hooks)
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
