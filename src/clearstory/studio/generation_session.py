"""Generation sessions: text generated token by token, with stepping back and branching at any token.

Model states are values, so the states after many prefixes are cached; stepping back or branching recomputes nothing.
The n-th token uses the n-th draw of the seed's generator, so the text equals that of `clearstory generate` with the
same seed.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadSetting
from clearstory.formats.folders import OpenedModel
from clearstory.generation.constraints import TokenConstraints
from clearstory.generation.prompt_format import PromptFormat
from clearstory.generation.sampling import sample_tokens
from clearstory.generation.settings import Sampling, SamplingOverrides, sampling_of
from clearstory.generation.stream_decoder import StreamDecoder
from clearstory.lens.probes.predictions import entropy_bits
from clearstory.models.base import LanguageModel, State, TokenBatch, inference_mode, initial_state
from clearstory.models.capabilities import Capability, require
from clearstory.models.prompts import keep_recent_half, prepare_prompt, prepare_source
from clearstory.recipes.inference.loading import load_model_and_tokenizer
from clearstory.recipes.settings.inference import PromptSettings
from clearstory.recipes.settings.schema import INLINE_SECTION
from clearstory.studio.sampling_distribution import LRUCache, sampling_distribution
from clearstory.studio.view_api import prompt_options

MAX_STATES = 48
"""Prefixes whose state is cached: as many steps back need no recomputation."""

MAX_GENERATED = 4096
"""Tokens that a session generates at most."""


@dataclass(frozen=True, kw_only=True)
class GeneratedTokenRequest:
    """The next token of a text that is being generated.

    Args:
        model: the model's path in the studio's folder.
        text: the prompt; for an encoder-decoder, the source.
        generated: ids of the tokens generated so far.
        show: number of alternatives to return.
        ignore_eos: continue after the end-of-text token.
        sampling: sampling settings; those not given are the model's own, and without a seed, seed 0 is used.
        prompting: how the text becomes a prompt.
    """

    model: str
    text: str = ""
    generated: tuple[int, ...] = ()
    show: int = 10
    ignore_eos: bool = False
    sampling: SamplingOverrides = field(default_factory=SamplingOverrides, metadata=INLINE_SECTION)
    prompting: PromptSettings = field(default_factory=PromptSettings, metadata=INLINE_SECTION)

    def __post_init__(self) -> None:
        if not 1 <= self.show <= 200:
            raise BadSetting(f"show is {self.show}; show 1 to 200 alternatives")
        if len(self.generated) > MAX_GENERATED:
            raise BadSetting(
                f"{len(self.generated):,} tokens are generated already; a session ends at {MAX_GENERATED:,}"
            )
        if (self.sampling.beam or 1) > 1:
            raise BadSetting(f"beam is {self.sampling.beam}, and beam search does not generate token by token; use 1")


class GenerationSessions:
    """Token-by-token generation from any prefix, with the states of recent prefixes cached per model."""

    def __init__(self) -> None:
        self.states: WeakKeyDictionary[Any, LRUCache[Any, tuple[State, Tensor]]] = WeakKeyDictionary()

    def next_token(self, opened: OpenedModel, request: GeneratedTokenRequest) -> dict[str, Any]:
        """The next token with its probability, rank and alternatives, and the generated text including it."""
        model, tokenizer = load_model_and_tokenizer(opened)
        require(model, Capability.CAUSAL)
        config = replace(opened.generation_config, num_beams=None, max_new_tokens=None, max_length=None)
        options = prompt_options(request.prompting)
        prompt_format = PromptFormat.of(
            model, tokenizer, None, request.ignore_eos, generation_config=config, options=options
        )
        sampling = replace(sampling_of(config, request.sampling.given()), seed=request.sampling.seed or 0)
        encoded = prompt_format.encode_prompt(tokenizer, request.text)
        prompt, source = ([], list(encoded.ids)) if prompt_format.reads_source else (list(encoded.ids), None)
        first = prepare_prompt(model, prompt, prompt_format.start_token_id)
        generated = check_generated_ids(model, request.generated)
        ids = [*first, *generated]
        with inference_mode(model):
            key = (request.text, options)
            logits = self.logits_after(model, key, context_window(model, len(first), ids), source)

        def constrain(rows: Tensor) -> Tensor:
            last = len(generated) + 1 >= (request.sampling.max_tokens or MAX_GENERATED)
            constraints = prompt_format.constraints or TokenConstraints()
            return constraints.apply(rows[0], ids, len(generated), last, prompt_format.eos_token_ids)[None]

        penalized = ids if sampling.repetition_penalty != 1 else ()
        generator = generator_after(sampling, len(generated))
        sampled, logprobs = sample_tokens(
            logits[None], [sampling], [generator], [penalized], prompt_format.suppress_tokens, constrain, [generated]
        )
        token = int(sampled[0])
        distribution = sampling_distribution(logits, sampling, tokenizer.display_token, request.show)
        before = prompt if encoded.continues_prompt else ()
        decoder = StreamDecoder(prompt_format.token_decoder(tokenizer), sampling.stop, prompt_ids=list(before))
        written = "".join(decoder.push(each) for each in (*generated, token))
        return {
            "id": token,
            "piece": tokenizer.display_token(token),
            "probability": float(logprobs[0].exp()),
            "logprob": float(logprobs[0]),
            "rank": int((logits > logits[token]).sum()) + 1,
            "entropy": entropy_bits(logits.softmax(-1)),
            "alternatives": distribution["tokens"],
            "kept": distribution["kept"],
            "text": written if decoder.stopped else written + decoder.flush(),
            "ended": token in prompt_format.eos_token_ids or decoder.stopped,
        }

    def logits_after(
        self, model: LanguageModel, prompt: Hashable, ids: Sequence[int], source: Sequence[int] | None
    ) -> Float[Tensor, "V"]:
        """The next-token logits after a sequence of ids, (V,), in float64.

        They are computed from the cached state one token earlier if there is one.
        """
        cache = self.states.setdefault(model, LRUCache(MAX_STATES))
        key = (prompt, tuple(ids))
        if key in cache.items:
            return cache.items[key][1]
        device = model_device(model)
        previous = cache.items.get((prompt, tuple(ids[:-1])))
        if previous is not None:
            hidden, state = model.forward(TokenBatch.from_sequences([[ids[-1]]], device), previous[0])
        else:
            start = initial_state(model, 1, [prepare_source(model, source)], device)
            hidden, state = model.forward(TokenBatch.from_sequences([ids], device), start)
        assert state is not None
        logits = model.logits(hidden[0, -1]).double().cpu()
        cache.put(key, (state, logits))
        return logits


def model_device(model: Any) -> torch.device:
    """The device of a model's parameters and buffers."""
    device: torch.device = next(each.device for each in (*model.parameters(), *model.buffers()))
    return device


def check_generated_ids(model: LanguageModel, generated: Sequence[int]) -> list[int]:
    """The ids as a list. Raises VocabularyMismatch for an id outside of the vocabulary."""
    return [prepare_prompt(model, [each])[0] for each in generated]


def context_window(model: LanguageModel, prompt: int, ids: Sequence[int]) -> Sequence[int]:
    """The ids that are in the model's context: all of them until it is full, then those that `Engine` would have kept.

    The first `prompt` ids were processed at once, each later one when it was generated.
    """
    if model.context is None:
        return ids
    start, length = 0, prompt
    for count in range(prompt + 1, len(ids) + 1):
        if length < model.context:
            length += 1
        else:
            length = len(keep_recent_half(ids[:count], model.context))
            start = count - length
    return ids[start:]


def generator_after(sampling: Sampling, steps: int) -> torch.Generator:
    """The generator of a seed after a number of draws."""
    generator = torch.Generator()
    generator.manual_seed(sampling.seed or 0)
    for _ in range(steps if sampling.temperature else 0):
        torch.rand((), dtype=torch.float64, generator=generator)
    return generator
