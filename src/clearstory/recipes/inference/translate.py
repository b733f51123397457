"""Translate: what a model that has learnt from pairs makes of texts, found by beam search."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearstory.errors import BadInput, CannotDo
from clearstory.generation.beam_search import beam_search_batch
from clearstory.generation.settings import Sampling
from clearstory.models.layout import for_decoding
from clearstory.models.prompts import Truncate, reads_source
from clearstory.recipes.inference.text_inputs import asked
from clearstory.recipes.inference.loading import ModelWithTokenizer, load_model_and_tokenizer
from clearstory.recipes.inference.prompt_format import PromptFormat
from clearstory.text.files import Errors

LONGER = 50
"""Tokens that a translation may be longer than its source. Vaswani et al. 2017, section 6.1."""

SIDE_BY_SIDE = 32
"""Texts that are searched together."""


@dataclass(frozen=True, kw_only=True)
class Translated:
    """One text as it was given, what was made of it, its tokens, and its score: log-probability / length ** penalty."""

    source: str
    text: str
    tokens: int
    score: float


@dataclass(frozen=True, kw_only=True)
class Translation:
    """All texts, in the order in which they were given, and how long they took."""

    texts: tuple[Translated, ...]
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Of what was written, reading the sources included."""
        return sum(each.tokens for each in self.texts) / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """The first text's, all of them under `translations`, and the speed."""
        every = [vars(each) for each in self.texts]
        speed = {"tokens_per_second": self.tokens_per_second, "seconds": self.seconds}
        return {"text": self.texts[0].text, "translations": every, **speed}


def translate(
    model: str | Path | ModelWithTokenizer,
    texts: str | Path | Sequence[str | Path],
    *,
    beam: int = 4,
    length_penalty: float = 1.0,
    max_tokens: int | None = None,
    truncate: Truncate | None = None,
    errors: Errors = "strict",
    device: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Translation:
    """What a model makes of each text, or of each line of the files among them.

    A translation has at most `max_tokens` tokens, or LONGER more than its source has. A beam of 1
    is greedy. Raises CannotDo for a model that reads no source, BadInput where there is no text.

    >>> import clearstory
    >>> clearstory.translate("runs/en-de", "Good morning.").texts[0].text  # doctest: +SKIP
    'Guten Morgen.'
    """
    network, tokenizer = load_model_and_tokenizer(model, device)
    if not reads_source(network):
        raise CannotDo(
            "this model writes on from a text and does not rewrite one (clearstory generate); one that does is made "
            "by: clearstory train pairs.tsv --model clear-translate"
        )
    sources = asked(texts, errors)
    if not all(source.strip() for source in sources):
        raise BadInput("one of the texts is empty; leave it out")
    prompt_format = PromptFormat.of(network, tokenizer, truncate)
    ids = [prompt_format.encode(tokenizer, source)[1] or [] for source in sources]
    network = for_decoding(network, beam * min(len(sources), SIDE_BY_SIDE))
    began = time.perf_counter()
    found: dict[int, Translated] = {}
    order = sorted(range(len(ids)), key=lambda place: -len(ids[place]))  # the longest first: time left is told rightly
    for start in range(0, len(order), SIDE_BY_SIDE):
        places = order[start : start + SIDE_BY_SIDE]
        longest = max_tokens or len(ids[places[0]]) + LONGER
        every = beam_search_batch(
            network,
            [[] for _ in places],
            Sampling(max_tokens=longest, beam=beam, length_penalty=length_penalty),
            eos=prompt_format.eos_token_id,
            begin=prompt_format.start_token_id,
            truncate=truncate,
            sources=[ids[place] for place in places],
            suppress_tokens=prompt_format.suppress_tokens,
        )
        for place, beams in zip(places, every, strict=True):
            best = beams[0]
            text = tokenizer.decode(id for id in best.ids if id != prompt_format.eos_token_id)
            found[place] = Translated(source=sources[place], text=text, tokens=len(best.ids), score=best.score)
        if on_progress is not None:
            on_progress(len(found), len(order))
    ordered = tuple(found[place] for place in range(len(sources)))
    return Translation(texts=ordered, seconds=time.perf_counter() - began)
