"""Translate: translations of texts by an encoder-decoder, found by beam search."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clearstory.errors import BadInput, CannotDo
from clearstory.generation.beam_search import beam_search_batch
from clearstory.generation.prompt_format import PromptFormat
from clearstory.generation.settings import Sampling
from clearstory.models.capabilities import Capability, family_name, has_capability
from clearstory.models.inference_model import inference_model
from clearstory.models.precision import Precision, resolve_precision
from clearstory.models.prompts import Truncation
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_generator
from clearstory.recipes.inference.text_inputs import read_texts
from clearstory.text.character_encodings import Errors

EXTRA_TOKENS = 50
"""Tokens by which a translation may be longer than its source. Vaswani et al. (2017), section 6.1."""

BEAM = 4
"""Beams where the model's generation config does not say how many."""

BATCH_ROWS, BATCH_TOKENS = 96, 4096
"""Beams and source tokens of one batch: weights are read once for all of them."""


@dataclass(frozen=True, kw_only=True)
class TranslatedText:
    """A source with its translation, the number of tokens, and its score: log-probability / length ** penalty."""

    source: str
    text: str
    tokens: int
    score: float


@dataclass(frozen=True, kw_only=True)
class Translation:
    """All texts with their translations, in the order in which they were given, and the time they took."""

    texts: tuple[TranslatedText, ...]
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second, the time for the sources included."""
        return sum(each.tokens for each in self.texts) / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """The first translation, all of them under `translations`, and the speed."""
        every = [vars(each) for each in self.texts]
        speed = {"tokens_per_second": self.tokens_per_second, "seconds": self.seconds}
        return {"text": self.texts[0].text, "translations": every, **speed}


def translate(
    model: str | Path | ModelWithTokenizer,
    texts: str | Path | Sequence[str | Path],
    *,
    beam: int | None = None,
    length_penalty: float | None = None,
    max_tokens: int | None = None,
    truncate: Truncation | None = None,
    errors: Errors = "strict",
    precision: Precision = "auto",
    int8: bool = False,
    device: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Translation:
    """The translation of each text, or of each line of the files among them.

    A translation has at most `max_tokens` tokens, by default EXTRA_TOKENS more than its source. A beam of 1 is greedy
    decoding. Settings that are not given are those of the model's generation config, else 4 beams and a length penalty
    of 1. Raises CannotDo for a model that is not an encoder-decoder, BadInput for an empty text.

    >>> import clearstory
    >>> clearstory.translate("runs/en-de", "Good morning.").texts[0].text  # doctest: +SKIP
    'Guten Morgen.'
    """
    precision = resolve_precision(precision, int8)
    network, tokenizer, config = load_generator(model, device)
    if not has_capability(network, Capability.SOURCE):
        raise CannotDo(
            f"this model ({family_name(network)}) is not an encoder-decoder; use it with clearstory generate, or train "
            "one with: clearstory train pairs.tsv --model clear-translate"
        )
    inputs = read_texts(texts, errors)
    if not all(source.strip() for source in inputs):
        raise BadInput("one of the texts is empty; leave it out")
    if max_tokens is not None:
        config = replace(config, max_new_tokens=None, max_length=None)
    max_tokens = max_tokens or config.max_new_tokens
    beam = beam or config.num_beams or BEAM
    if length_penalty is None:
        length_penalty = 1.0 if config.length_penalty is None else config.length_penalty
    prompt_format = PromptFormat.of(network, tokenizer, truncate, generation_config=config)
    sources = [prompt_format.encode(tokenizer, source)[1] or [] for source in inputs]
    batches = batches_of_sources([len(source) for source in sources], max(1, BATCH_ROWS // beam))
    steps = sum(max_tokens or len(sources[batch[0]]) + EXTRA_TOKENS for batch in batches)
    network = inference_model(network, precision, beam * max(map(len, batches), default=1), steps)
    started = time.perf_counter()
    results: dict[int, TranslatedText] = {}
    for batch in batches:
        longest = max_tokens or len(sources[batch[0]]) + EXTRA_TOKENS
        hypotheses = beam_search_batch(
            network,
            [[] for _ in batch],
            Sampling(
                max_tokens=longest,
                beam=beam,
                length_penalty=length_penalty,
                repetition_penalty=config.repetition_penalty or 1.0,
            ),
            sources=[sources[index] for index in batch],
            **prompt_format.search_options,
        )
        for index, beams in zip(batch, hypotheses, strict=True):
            best = beams[0]
            text = tokenizer.decode(id for id in best.ids if id not in prompt_format.eos_token_ids)
            results[index] = TranslatedText(source=inputs[index], text=text, tokens=len(best.ids), score=best.score)
        if on_progress is not None:
            on_progress(len(results), len(inputs))
    ordered = tuple(results[index] for index in range(len(inputs)))
    return Translation(texts=ordered, seconds=time.perf_counter() - started)


def batches_of_sources(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Indices of sources in batches of similar lengths, of at most `most` sources and BATCH_TOKENS tokens. The longest
    come first, so that an estimate of the remaining time is not too short.

    >>> batches_of_sources([3, 5, 4], 2)
    [[1, 2], [0]]
    """
    batches: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not batches or len(batches[-1]) == most or tokens + lengths[index] > BATCH_TOKENS:
            batches.append([])
            tokens = 0
        batches[-1].append(index)
        tokens += lengths[index]
    return batches
