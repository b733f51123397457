"""Written: what a model writes after a text, for the view that shows how it was written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clearstory.errors import BadInput
from clearstory.generation.engine import generate
from clearstory.generation.search import Candidate, beam_search
from clearstory.generation.settings import Sampling
from clearstory.models.prompts import Truncate
from clearstory.recipes.reading import Reading
from clearstory.text.tokenizers import Tokenizer

MOST = 24
"""Tokens that are written when nobody says how many: each is a row to be read."""

SAMPLED = ("max_tokens", "temperature", "seed", "beam")
"""Settings of sampling that such a view has."""


def written(
    network: Any, tokenizer: Tokenizer, text: str, truncate: Truncate | None, **settings: Any
) -> dict[str, Any]:
    """What the view is given: the tokens written, and every candidate where beams were followed."""
    if not text:
        raise BadInput("the text is empty; give a few words to go on from")
    sampling = replace(Sampling(max_tokens=MOST), **settings)
    reading = Reading.of(network, tokenizer, truncate)
    ids, source = reading.ids(tokenizer, text)
    how: dict[str, Any] = {
        "eos": reading.eos, "begin": reading.begin, "truncate": truncate, "source": source, "never": reading.never,
    }  # fmt: skip
    if sampling.beam == 1:
        return {"written": tuple(token.id for token in generate(network, ids, sampling, **how))}
    candidates: list[Candidate] = []
    best = beam_search(network, ids, sampling, told=candidates.append, **how)[0]
    return {"written": best.ids, "candidates": tuple(candidates)}
