"""Trace: every quantity between a text and a prediction has a name, a tap. What is there can be watched, or changed.

Taps of a Transformer, layer by layer (i from 0); those of an encoder-decoder begin with `encoder.` and `decoder.`:

    embedding                       (B, T, W)     each token's own vector
    foot                            (B, T, W)     what the first block reads: its place and segment added
    blocks.i.attention.input        (B, T, W)     what attention reads: the stream, after the norm where that is first
    blocks.i.attention.query        (B, H, T, D)  turned by its place where the model turns
    blocks.i.attention.key          (B, K, S, D)  for K heads, where several share one
    blocks.i.attention.value        (B, K, S, D)
    blocks.i.attention.scores       (B, H, T, S)  Q Kᵀ / √d, and biases; -inf where nobody may look
    blocks.i.attention.pattern      (B, H, T, S)  their softmax
    blocks.i.attention.answer       (B, H, T, D)  pattern · V
    blocks.i.attention              (B, T, W)     what attention adds, ΔE
    blocks.i.middle                 (B, T, W)     the stream after it
    blocks.i.cross_attention...                   the same across at a source, and blocks.i.across, the stream after it
    blocks.i.feed_forward.input     (B, T, W)
    blocks.i.feed_forward.neurons   (B, T, hidden)
    blocks.i.feed_forward           (B, T, W)     what it adds
    blocks.i                        (B, T, W)     the stream after the block
    norm                            (B, T, W)     after the last norm, where there is one

and of a recurrent model `embedding` and `layers.i`, both (T, B, W): what a layer says after each token. The model is
the one that trains and writes: nothing in it knows of taps, and one that is not looked at pays nothing for them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clearstory.errors import BadSetting, CannotDo, UnknownName, nearest
from clearstory.models.block import Attention, Past, band
from clearstory.models.encoder_decoder import EncoderDecoder
from clearstory.models.layout import View
from clearstory.models.recurrent.model import Recurrent
from clearstory.models.stack import Stack

Replacement = Callable[[Tensor], Tensor] | Tensor
"""What to put in a tap's place: a function of what was there, or the thing itself, of the same shape."""

ATTENTION = ("input", "query", "key", "value", "scores", "pattern", "answer")


@contextmanager
def record_activations(model: Any, *patterns: str, keep: Callable[[Tensor], Tensor] | None = None) -> Iterator[dict[str, Tensor]]:
    """What stands at the taps whose names match while the model reads: after reading it is in the dictionary.

    In a pattern, `*` is one part of a name and `**` any number of them. Read twice, a tap holds the later value. A
    watched model answers as an unwatched one, bit for bit. Of what is seen only `keep` of it is held, where that is
    given: all layers' weights at once are 151 MB for 512 tokens of GPT-2. Raises UnknownName for a pattern that no tap
    matches.

    >>> from clearstory.models.base import TokenBatch
    >>> from clearstory.models.families import build
    >>> from clearstory.models.presets import NANOGPT_CHAR
    >>> model = build(NANOGPT_CHAR, seed=1).eval()
    >>> with watch(model, "blocks.*.attention.pattern") as seen:
    ...     _ = model.forward(TokenBatch.from_sequences([[1, 2, 3]]))
    >>> seen["blocks.0.attention.pattern"].shape
    torch.Size([1, 4, 3, 3])
    """
    known = activation_names(model)
    wanted = {name for pattern in patterns for name in matching(pattern, known)}
    seen: dict[str, Tensor] = {}
    with probed(model) as probe:
        probe.watching.append((wanted, seen, keep))
        try:
            yield seen
        finally:
            probe.watching = [each for each in probe.watching if each[1] is not seen]


@contextmanager
def replace_activations(model: Any, changes: Mapping[str, Replacement]) -> Iterator[None]:
    """Other values at some taps while the model reads; all that follows is computed from them.

    Changes made inside of others come after them. What is watched at a tap is what was put there. Raises UnknownName
    for a tap that is not there, BadSetting for a value of another shape.

    >>> from clearstory.models.base import TokenBatch
    >>> from clearstory.models.families import build
    >>> from clearstory.models.presets import NANOGPT_CHAR
    >>> model = build(NANOGPT_CHAR, seed=1).eval()
    >>> with edit(model, {"blocks.0.attention": torch.zeros_like}), watch(model, "blocks.0.*") as seen:
    ...     _ = model.forward(TokenBatch.from_sequences([[1, 2, 3]]))
    >>> float(seen["blocks.0.attention"].abs().max())
    0.0
    """
    known = activation_names(model)
    for name in changes:
        if name not in known:
            raise UnknownName(f"there is no tap called '{name}'; {nearest(name, known)}")
    with probed(model) as probe:
        probe.changes.append(changes)
        try:
            yield
        finally:
            probe.changes = [each for each in probe.changes if each is not changes]


def activation_names(model: Any) -> list[str]:
    """The names of all taps of a model. Raises CannotDo for one that has none: its views ask it by other ways."""
    model = unwrap_model(model)
    if isinstance(model, Recurrent):
        return ["embedding", *(f"layers.{number}" for number in range(len(model.layers)))]
    names = []
    for prefix, stack in transformer_stacks(model):
        names += [f"{prefix}embedding", f"{prefix}foot"]
        for number, block in enumerate(stack.blocks):
            own = f"{prefix}blocks.{number}"
            names += [*attention_taps(f"{own}.attention"), f"{own}.middle"]
            if getattr(block, "cross_attention", None) is not None:
                names += [*attention_taps(f"{own}.cross_attention"), f"{own}.across"]
            names += [f"{own}.feed_forward{part}" for part in (".input", ".neurons", "")]
            names.append(own)
        if stack.norm is not None:
            names.append(f"{prefix}norm")
    return names


def attention_taps(own: str) -> list[str]:
    """The taps of one attention."""
    return [*(f"{own}.{part}" for part in ATTENTION), own]


def transformer_stacks(model: Any) -> list[tuple[str, Stack]]:
    """A Transformer's stacks, each with what the names of its taps begin with. Raises CannotDo for other models."""
    model = unwrap_model(model)
    if isinstance(model, EncoderDecoder):
        return [("encoder.", model.encoder), ("decoder.", model.decoder)]
    if not isinstance(model, Stack):
        family = getattr(getattr(model, "config", None), "family", type(model).__name__)
        raise CannotDo(
            f"this model ({family}) has no taps: those are a Transformer's and a recurrent network's; look at it by "
            "the views of its family (clearstory inspect --help)"
        )
    return [("", model)]


def unwrap_model(model: Any) -> Any:
    """The model that a view laid out for speed was made of, in that layout."""
    return model.inner if isinstance(model, View) else model


def matching(pattern: str, known: list[str]) -> list[str]:
    """The taps that a pattern names. Raises UnknownName where there is none.

    >>> matching("blocks.*.middle", ["foot", "blocks.0", "blocks.0.middle"])
    ['blocks.0.middle']
    """
    parts = re.split(r"(\*\*|\*)", pattern)
    means = {"**": ".+", "*": r"[^.]+"}
    exact = re.compile("".join(means.get(part) or re.escape(part) for part in parts))
    found = [name for name in known if exact.fullmatch(name)]
    if not found:
        raise UnknownName(f"no tap is called '{pattern}'; {nearest(pattern, known)}")
    return found


class ActivationHooks:
    """What is watched and changed in one model at the moment."""

    def __init__(self) -> None:
        self.watching: list[tuple[set[str], dict[str, Tensor], Callable[[Tensor], Tensor] | None]] = []
        self.changes: list[Mapping[str, Replacement]] = []
        self.users = 0
        self.undo = ExitStack()

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """What goes on from a tap, seen by those who watch it."""
        for changes in self.changes:
            if name in changes:
                value = changed(name, value, changes[name])
        for wanted, seen, keep in self.watching:
            if name in wanted:
                seen[name] = value if keep is None else keep(value)
        return value

    def wants(self, name: str) -> bool:
        """Whether anyone looks at a tap, or changes it."""
        return self.changing(name) or any(name in wanted for wanted, _, _ in self.watching)

    def changing(self, name: str) -> bool:
        """Whether anyone changes it."""
        return any(name in changes for changes in self.changes)


def changed(name: str, value: Tensor, change: Replacement) -> Tensor:
    """What a change puts in a value's place. Raises BadSetting for another shape."""
    new = change if isinstance(change, Tensor) else change(value)
    if new.shape != value.shape:
        raise BadSetting(
            f"the tap '{name}' holds {tuple(value.shape)} and was given {tuple(new.shape)}; give one of the same shape"
        )
    return new.to(value)


ACTIVE_HOOKS: WeakKeyDictionary[nn.Module, ActivationHooks] = WeakKeyDictionary()


@contextmanager
def probed(model: Any) -> Iterator[ActivationHooks]:
    """The model with taps; they go with the last who needs them."""
    model = unwrap_model(model)
    if (probe := ACTIVE_HOOKS.get(model)) is None:
        probe = ActivationHooks()
        for prefix, stack in [("", model)] if isinstance(model, Recurrent) else transformer_stacks(model):
            install(stack, prefix, probe)
        ACTIVE_HOOKS[model] = probe
    probe.users += 1
    try:
        yield probe
    finally:
        probe.users -= 1
        if not probe.users:
            probe.undo.close()
            del ACTIVE_HOOKS[model]


def install(stack: Any, prefix: str, probe: ActivationHooks) -> None:
    """Taps in a recurrent model, or in a stack and all its blocks."""
    undo = probe.undo
    if isinstance(stack, Recurrent):
        undo.enter_context(outgoing(stack.embedding, partial(probe, "embedding")))
        for number, layer in enumerate(stack.layers):
            undo.enter_context(outgoing(layer, partial(probe, f"layers.{number}")))
        return
    undo.enter_context(shadowed(stack, "foot", lambda own, x, *more: own(probe(f"{prefix}embedding", x), *more)))
    undo.enter_context(shadowed(stack, "drop", lambda own, x: probe(f"{prefix}foot", own(x))))
    for number, block in enumerate(stack.blocks):
        install_block(block, f"{prefix}blocks.{number}", probe)
    if stack.norm is not None:
        undo.enter_context(outgoing(stack.norm, partial(probe, f"{prefix}norm")))


def install_block(block: Any, own: str, probe: ActivationHooks) -> None:
    """Taps in a block: what each step reads, what it adds, and the stream after it."""
    steps = {
        block.attention_norm: (f"{own}.attention", f"{own}.middle"),
        block.cross_attention_norm: (f"{own}.cross_attention", f"{own}.across"),
        block.feed_forward_norm: (f"{own}.feed_forward", own),
    }

    def add(add: Callable[..., Tensor], x: Tensor, norm: nn.Module, step: Callable[[Tensor], Tensor]) -> Tensor:
        added, after = steps[norm]
        return probe(after, add(x, norm, lambda y: probe(added, step(probe(f"{added}.input", y)))))

    undo = probe.undo
    undo.enter_context(shadowed(block, "add", add))
    undo.enter_context(incoming(block.feed_forward.down, partial(probe, f"{own}.feed_forward.neurons")))
    install_attention(block.attention, f"{own}.attention", probe)
    if block.cross_attention is not None:
        install_attention(block.cross_attention, f"{own}.cross_attention", probe)


def install_attention(attention: Attention, own: str, probe: ActivationHooks) -> None:
    """Taps in an attention. torch's fused kernel gives no weights: they are computed beside it, from the very queries
    and keys that it is given, and only where someone asks; where they have been changed they are multiplied out.
    """
    names = (f"{own}.scores", f"{own}.pattern")

    def weigh(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor | None:
        """The weights, if they are others than the kernel's own."""
        computed = attention_scores(attention, q, k, bias)
        scores = probe(names[0], computed.clone())  # who changes it may do so in place
        pattern = scores.softmax(-1)
        weights = probe(names[1], pattern.clone())
        return None if torch.equal(scores, computed) and torch.equal(weights, pattern) else weights

    def queries(queries: Callable[..., Tensor], *given: Any) -> Tensor:
        return probe(f"{own}.query", queries(*given))

    def keys_and_values(both: Callable[..., tuple[Tensor, Tensor]], *given: Any) -> tuple[Tensor, Tensor]:
        k, v = both(*given)
        return probe(f"{own}.key", k), probe(f"{own}.value", v)

    def attend(attend: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        if not any(map(probe.wants, names)):
            return attend(q, k, v, bias)
        weights = weigh(q, k, bias)
        return attend(q, k, v, bias) if weights is None else weighted_values(weights, v)

    def attend_past(
        attend: Callable[..., Tensor],
        q: Tensor,
        k: Tensor,
        v: Tensor,
        past: list[Past],
        bias: list[Tensor] | None = None,
    ) -> Tensor:
        out = attend(q, k, v, past, bias)  # fills the rooms that are in `past`
        if not any(map(probe.wants, names)):
            return out
        if len({(keys.shape[1], room.shape[2]) for keys, _, room in past}) > 1:
            raise CannotDo("rows of several lengths cannot be watched while they are read on; read them one at a time")
        weights = weigh(q, torch.stack([keys for keys, _, _ in past]), None if bias is None else torch.stack(bias))
        return out if weights is None else weighted_values(weights, torch.stack([values for _, values, _ in past]))

    def leave(leave: Callable[..., Tensor], answer: Tensor) -> Tensor:
        return leave(probe(f"{own}.answer", answer))

    for around in (queries, keys_and_values, attend, attend_past, leave):
        probe.undo.enter_context(shadowed(attention, around.__name__, around))


def attention_scores(
    attention: Attention, q: Float[Tensor, "B H T D"], k: Float[Tensor, "B K S D"], bias: Tensor | None = None
) -> Float[Tensor, "B H T S"]:
    """Q Kᵀ / √d, with biases, and -inf where the attention may not look. Vaswani et al. 2017, eq. 1."""
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    if attention.causal:
        scores = scores.masked_fill(~band(q.shape[2], k.shape[2], attention.window, q.device), -torch.inf)
    return scores


def weighted_values(weights: Float[Tensor, "B H T S"], v: Float[Tensor, "B K S D"]) -> Float[Tensor, "B H T D"]:
    """The values, added up by the weights."""
    return weights @ v.repeat_interleave(weights.shape[1] // v.shape[1], 1)


@contextmanager
def shadowed(owner: nn.Module, method: str, around: Callable[..., Any]) -> Iterator[None]:
    """`around(method, ...)` in a method's place, on this one object."""
    setattr(owner, method, partial(around, getattr(owner, method)))
    try:
        yield
    finally:
        delattr(owner, method)


@contextmanager
def incoming(module: nn.Module, probe: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """A probe before a module."""
    handle = module.register_forward_pre_hook(lambda _, args: (probe(args[0]), *args[1:]))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def outgoing(module: nn.Module, probe: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """A probe behind a module; of several things that it says, the first."""
    handle = module.register_forward_hook(
        lambda _, args, out: (probe(out[0]), *out[1:]) if isinstance(out, tuple) else probe(out)
    )
    try:
        yield
    finally:
        handle.remove()
