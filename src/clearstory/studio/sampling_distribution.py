"""Next-token sampling distribution: probabilities under temperature, top-k, top-p and min-p.

final hidden state ─► logits ─► ÷ temperature ─► softmax ─► truncation ─► renormalized probabilities
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
from clearstory.generation.prompt_format import PromptFormat
from clearstory.generation.sampling import filtered_probabilities
from clearstory.generation.settings import Sampling
from clearstory.lens.probes.predictions import entropy_bits
from clearstory.models.base import TokenBatch, inference_mode, initial_state
from clearstory.models.capabilities import Capability, require
from clearstory.models.prompts import PromptOptions, prepare_prompt, prepare_source
from clearstory.recipes.inference.loading import load_model_and_tokenizer
from clearstory.recipes.settings.inference import PromptSettings
from clearstory.recipes.settings.schema import INLINE_SECTION
from clearstory.studio.view_api import prompt_options

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, kw_only=True)
class NextTokenRequest:
    """The distribution of the next token after a text.

    Args:
        model: the model's path in the studio's folder.
        text: the text; for an encoder-decoder, the source.
        show: number of tokens to return, the likeliest first.
        sampling: temperature and truncation.
        prompting: how the text becomes a prompt.
    """

    model: str
    text: str = ""
    show: int = 40
    sampling: Sampling = field(default_factory=Sampling, metadata=INLINE_SECTION)
    prompting: PromptSettings = field(default_factory=PromptSettings, metadata=INLINE_SECTION)

    def __post_init__(self) -> None:
        if not 1 <= self.show <= 1000:
            raise BadSetting(f"show is {self.show}; show 1 to 1,000 tokens")


class LRUCache(Generic[K, V]):
    """A mapping of at most `max_items` items; the least recently used item is removed first."""

    def __init__(self, max_items: int) -> None:
        self.max_items = max_items
        self.items: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The item of a key, created by `make` if it is missing."""
        if key not in self.items:
            self.put(key, make())
        self.items.move_to_end(key)
        return self.items[key]

    def put(self, key: K, value: V) -> None:
        """Store an item, and remove the least recently used ones beyond `max_items`."""
        self.items[key] = value
        self.items.move_to_end(key)
        while len(self.items) > self.max_items:
            self.items.popitem(last=False)


class NextTokenDistributions:
    """Next-token distributions, with the logits of the last 16 texts cached per model."""

    def __init__(self) -> None:
        # Weak keys: a model evicted from the model cache takes its logits with it.
        self.logits: WeakKeyDictionary[Any, LRUCache[Any, Tensor]] = WeakKeyDictionary()

    def compute(self, opened: OpenedModel, request: NextTokenRequest) -> dict[str, Any]:
        """The likeliest next tokens with logit, probability and sampling probability: see `sampling_distribution`."""
        _, tokenizer = load_model_and_tokenizer(opened)
        cache = self.logits.setdefault(opened.model, LRUCache(16))
        options = prompt_options(request.prompting)
        logits = cache.get((request.text, options), lambda: last_logits(opened, request.text, options))
        return sampling_distribution(logits, request.sampling, tokenizer.display_token, request.show)


def last_logits(opened: OpenedModel, text: str, options: PromptOptions) -> Float[Tensor, "V"]:
    """The next-token logits after a text, (V,), in float64. Raises CannotDo for a model that is not causal."""
    model, tokenizer = load_model_and_tokenizer(opened)
    require(model, Capability.CAUSAL)
    prompt_format = PromptFormat.of(model, tokenizer, None, options=options)
    prompt, source = prompt_format.encode(tokenizer, text)
    sources = prepare_source(model, source)
    ids = prepare_prompt(model, prompt, prompt_format.start_token_id)
    device = next(each.device for each in (*opened.model.parameters(), *opened.model.buffers()))
    with inference_mode(model):
        hidden, _ = model.forward(TokenBatch.from_sequences([ids], device), initial_state(model, 1, [sources], device))
        logits: Tensor = model.logits(hidden[0, -1]).double().cpu()
    return logits


def sampling_distribution(
    logits: Float[Tensor, "V"], sampling: Sampling, display_token: Callable[[int], str], show: int
) -> dict[str, Any]:
    """The likeliest next tokens, and totals over the vocabulary.

    `probability` is after temperature and before truncation; `sampling_probability` after truncation, summing to one
    over the kept tokens. At temperature 0 the likeliest token has sampling probability 1. Of the totals, `kept` counts
    the kept tokens, `kept_mass` sums their probability, `rest_mass` that of the tokens not shown; entropies in bits.
    """
    temperature = sampling.temperature or 1.0
    probabilities = ((logits - logits.max()) / temperature).softmax(-1)
    sampling_probabilities = torch.zeros_like(probabilities)
    if sampling.temperature == 0:
        sampling_probabilities[int(logits.argmax())] = 1.0
    else:
        ids, kept_probabilities = filtered_probabilities((logits - logits.max()) / temperature, sampling)
        sampling_probabilities[slice(None) if ids is None else ids] = kept_probabilities / kept_probabilities.sum()
    order = probabilities.argsort(descending=True, stable=True)[:show].tolist()
    tokens = [
        {
            "id": id,
            "piece": display_token(id),
            "logit": float(logits[id]),
            "probability": float(probabilities[id]),
            "sampling_probability": float(sampling_probabilities[id]),
            "kept": bool(sampling_probabilities[id] > 0),
        }
        for id in order
    ]
    rest_mass = 1.0 - float(probabilities[order].sum()) if len(order) < len(logits) else 0.0
    return {
        "tokens": tokens,
        "vocab": len(logits),
        "kept": int((sampling_probabilities > 0).sum()),
        "kept_mass": float(probabilities[sampling_probabilities > 0].sum()),
        "rest_mass": max(rest_mass, 0.0),
        "entropy": entropy_bits(probabilities),
        "sampling_entropy": entropy_bits(sampling_probabilities),
    }
