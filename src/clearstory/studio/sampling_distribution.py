"""Choosing: the next token's probabilities under temperature, top-k, top-p and min-p, what is cut off among them.

final vector ─► logits ─► ÷ temperature ─► softmax ─► cuts ─► what is left, made to sum to one again
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadSetting
from clearstory.formats.folders import OpenedModel
from clearstory.generation.sampling import kept
from clearstory.generation.settings import Sampling
from clearstory.lens.probes.next_token import entropy
from clearstory.models.base import TokenBatch
from clearstory.models.encoder import Encoder
from clearstory.models.prompts import begun, fit_prompt, fit_source, resting
from clearstory.recipes.settings.schema import INLINE_SECTION
from clearstory.recipes.inference.loading import load_model_and_tokenizer
from clearstory.recipes.inference.prompt_format import PromptFormat

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, kw_only=True)
class NextTokenRequest:
    """The next token after a text.

    Args:
        model: its path in the studio's folder.
        text: what it reads.
        show: how many tokens to show, the likeliest first.
        sampling: what is cut off, and the temperature.
    """

    model: str
    text: str = ""
    show: int = 40
    sampling: Sampling = field(default_factory=Sampling, metadata=INLINE_SECTION)

    def __post_init__(self) -> None:
        if not 1 <= self.show <= 1000:
            raise BadSetting(f"show is {self.show}; show 1 to 1,000 tokens")


class LRUCache(Generic[K, V]):
    """The last few things that were reckoned: a slider asks for the same logits again and again."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.things: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """What is remembered under a key, made where it is not."""
        if key not in self.things:
            self.put(key, make())
        self.things.move_to_end(key)
        return self.things[key]

    def put(self, key: K, value: V) -> None:
        """Remember, and forget what was asked for longest ago."""
        self.things[key] = value
        self.things.move_to_end(key)
        while len(self.things) > self.most:
            self.things.popitem(last=False)


class NextTokenDistributions:
    """Logits of the last few texts, and what each way of choosing makes of them."""

    def __init__(self) -> None:
        # By model, weakly: one that is put away takes what was reckoned with it along.
        self.logits: WeakKeyDictionary[Any, LRUCache[str, Tensor]] = WeakKeyDictionary()

    def choose(self, opened: OpenedModel, request: NextTokenRequest) -> dict[str, Any]:
        """The likeliest tokens, each with its logit, its probability and what the cuts leave of it."""
        _, tokenizer = load_model_and_tokenizer(opened)
        recent = self.logits.setdefault(opened.model, LRUCache(16))
        logits = recent.get(request.text, lambda: last_logits(opened, request.text))
        return sampling_distribution(logits, request.sampling, tokenizer.display_token, request.show)


def last_logits(opened: OpenedModel, text: str) -> Float[Tensor, "V"]:
    """The logits after a text, in float64."""
    network, tokenizer = load_model_and_tokenizer(opened)
    if isinstance(network, Encoder):
        network.cannot_go_on()
    prompt_format = PromptFormat.of(network, tokenizer, None)
    prompt, source = prompt_format.encode(tokenizer, text)
    sources = fit_source(network, source)
    ids = fit_prompt(network, prompt, prompt_format.start_token_id)
    device = next(each.device for each in (*network.parameters(), *network.buffers()))
    with resting(network):
        hidden, _ = network.forward(TokenBatch.from_sequences([ids], device), begun(network, 1, [sources], device))
        logits: Tensor = network.logits(hidden[0, -1]).double().cpu()
    return logits


def sampling_distribution(logits: Float[Tensor, "V"], sampling: Sampling, piece: Callable[[int], str], show: int) -> dict[str, Any]:
    """What can be drawn, and how likely.

    `probability` is after the temperature and before any cut; `share` after the cuts, which sums to one over all that
    are kept. With temperature 0 the likeliest token has all of it.
    """
    warm = sampling.temperature or 1.0
    probabilities = ((logits - logits.max()) / warm).softmax(-1)
    shares = torch.zeros_like(probabilities)
    if sampling.temperature == 0:
        shares[int(logits.argmax())] = 1.0
    else:
        ids, left = kept((logits - logits.max()) / warm, sampling)
        shares[slice(None) if ids is None else ids] = left / left.sum()
    order = probabilities.argsort(descending=True, stable=True)[:show].tolist()
    rows = [
        {
            "id": id,
            "piece": piece(id),
            "logit": float(logits[id]),
            "probability": float(probabilities[id]),
            "share": float(shares[id]),
            "kept": bool(shares[id] > 0),
        }
        for id in order
    ]
    left_over = 1.0 - float(probabilities[order].sum()) if len(order) < len(logits) else 0.0
    return {
        "rows": rows,
        "vocab": len(logits),
        "kept": int((shares > 0).sum()),
        "mass": float(probabilities[shares > 0].sum()),
        "rest": max(left_over, 0.0),
        "entropy": entropy(probabilities),
        "entropy_after": entropy(shares),
    }
