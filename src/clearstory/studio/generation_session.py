"""Writing: a text token by token, where any step can be asked for again, and another way taken from it.

A model's memory is a value, so the memories of many beginnings are kept side by side, and stepping back or branching
reads nothing twice. Step n of a seed draws the n-th number of its generator: what is written is what `clearstory
generate` writes with that seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadSetting
from clearstory.formats.folders import OpenedModel
from clearstory.generation.sampling import choose
from clearstory.generation.settings import Sampling
from clearstory.generation.stream_decoder import StreamDecoder
from clearstory.lens.probes.next_token import entropy
from clearstory.models.base import LanguageModel, TokenBatch, State
from clearstory.models.encoder import Encoder
from clearstory.models.prompts import begun, fit_prompt, fit_source, renewed, resting
from clearstory.recipes.settings.schema import INLINE_SECTION
from clearstory.recipes.inference.loading import load_model_and_tokenizer
from clearstory.recipes.inference.prompt_format import PromptFormat
from clearstory.studio.sampling_distribution import LRUCache, sampling_distribution

MAX_STATES = 48
"""Beginnings whose memory is kept: as many steps can be gone back without reading anew."""

MAX_GENERATED = 4096


@dataclass(frozen=True, kw_only=True)
class GeneratedTokenRequest:
    """The next token of a text that is being written.

    Args:
        model: its path in the studio's folder.
        text: the prompt; of an encoder-decoder, the source.
        written: ids of the tokens written so far.
        show: how many alternatives to tell.
        ignore_eos: write on past the token that ends a text.
        sampling: how it is chosen; without a seed, that of seed 0.
    """

    model: str
    text: str = ""
    written: tuple[int, ...] = ()
    show: int = 10
    ignore_eos: bool = False
    sampling: Sampling = field(default_factory=Sampling, metadata=INLINE_SECTION)

    def __post_init__(self) -> None:
        if not 1 <= self.show <= 200:
            raise BadSetting(f"show is {self.show}; show 1 to 200 alternatives")
        if len(self.written) > MAX_GENERATED:
            raise BadSetting(f"{len(self.written):,} tokens are written, and the page goes to {MAX_GENERATED:,}")
        if self.sampling.beam > 1:
            raise BadSetting(f"beam is {self.sampling.beam}, and beams are not written token by token; take 1")


class GenerationSessions:
    """Writes on from any beginning, remembering the last few."""

    def __init__(self) -> None:
        self.memories: WeakKeyDictionary[Any, LRUCache[Any, tuple[State, Tensor]]] = WeakKeyDictionary()

    def step(self, opened: OpenedModel, request: GeneratedTokenRequest) -> dict[str, Any]:
        """One token, its probability, its rank, and what else could have come."""
        network, tokenizer = load_model_and_tokenizer(opened)
        if isinstance(network, Encoder):
            network.cannot_go_on()
        prompt_format = PromptFormat.of(network, tokenizer, None, request.ignore_eos)
        prompt, source = prompt_format.encode(tokenizer, request.text)
        first = fit_prompt(network, prompt, prompt_format.start_token_id)
        written = check_generated_ids(network, request.written)
        ids = [*first, *written]
        with resting(network):
            logits = self.after(network, request.text, context_window(network, len(first), ids), source)
        sampling = replace(request.sampling, seed=request.sampling.seed or 0)
        seen = ids if sampling.repetition_penalty != 1 else ()
        generator = generator_after(sampling, len(written))
        chosen, logs = choose(logits[None], [sampling], [generator], [seen], prompt_format.suppress_tokens)
        token = int(chosen[0])
        told = sampling_distribution(logits, sampling, tokenizer.display_token, request.show)
        now = [*written, token]
        return {
            "id": token,
            "piece": tokenizer.display_token(token),
            "probability": float(logs[0].exp()),
            "logprob": float(logs[0]),
            "rank": int((logits > logits[token]).sum()) + 1,
            "entropy": entropy(logits.softmax(-1)),
            "alternatives": told["rows"],
            "kept": told["kept"],
            "text": decode_generated(prompt_format.token_decoder(tokenizer), now, prompt),
            "ended": prompt_format.eos_token_id is not None and token == prompt_format.eos_token_id,
            "goes_on": not prompt_format.reads_source,
        }

    def after(
        self, model: LanguageModel, text: str, ids: Sequence[int], source: Sequence[int] | None
    ) -> Float[Tensor, "V"]:
        """The logits behind a row of ids, read on from the row that is one shorter where that is remembered."""
        recent = self.memories.setdefault(model, LRUCache(MAX_STATES))
        whole = (text, tuple(ids))
        if whole in recent.things:
            return recent.things[whole][1]
        device = model_device(model)
        before = recent.things.get((text, tuple(ids[:-1])))
        if before is not None:
            hidden, state = model.forward(TokenBatch.from_sequences([[ids[-1]]], device), before[0])
        else:
            start = begun(model, 1, [fit_source(model, source)], device)
            hidden, state = model.forward(TokenBatch.from_sequences([ids], device), start)
        assert state is not None
        logits = model.logits(hidden[0, -1]).double().cpu()
        recent.put(whole, (state, logits))
        return logits


def model_device(model: Any) -> torch.device:
    """Where a model lives."""
    place: torch.device = next(each.device for each in (*model.parameters(), *model.buffers()))
    return place


def check_generated_ids(model: LanguageModel, written: Sequence[int]) -> list[int]:
    """Ids that were written, checked. Raises VocabularyMismatch for one that no token has."""
    return [fit_prompt(model, [each])[0] for each in written]


def context_window(model: LanguageModel, prompt: int, ids: Sequence[int]) -> Sequence[int]:
    """What of a row a model has before it: all of it, until its context is full and it begins anew as `Engine` does.

    `prompt` ids were read at once, each later one when it was written.
    """
    if model.context is None:
        return ids
    start, length = 0, prompt
    for count in range(prompt + 1, len(ids) + 1):
        if length < model.context:
            length += 1
        else:
            length = len(renewed(ids[:count], model.context))
            start = count - length
    return ids[start:]


def generator_after(sampling: Sampling, steps: int) -> torch.Generator:
    """A seed's generator as it stands after so many draws."""
    generator = torch.Generator()
    generator.manual_seed(sampling.seed or 0)
    for _ in range(steps if sampling.temperature else 0):
        torch.rand((), dtype=torch.float64, generator=generator)
    return generator


def decode_generated(tokenizer: Any, ids: Sequence[int], prompt: Sequence[int]) -> str:
    """What has been written, as text."""
    writer = StreamDecoder(tokenizer, (), after=list(prompt))
    return "".join(writer.write(each) for each in ids) + writer.close()
