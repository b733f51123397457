"""Classify: the label of a text, or of each of its words, by an encoder with a head that was taught some."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from clearstory.models.base import TokenBatch
from clearstory.models.prompts import resting
from clearstory.recipes.inference.text_inputs import asked, groups
from clearstory.recipes.inference.embed import Cut, fit
from clearstory.recipes.inference.loading import ModelWithTokenizer, encoder
from clearstory.text.files import Errors
from clearstory.text.special_tokens import build_inputs


@dataclass(frozen=True)
class Chance:
    """A label and how likely it is."""

    label: str
    probability: float


@dataclass(frozen=True)
class Word:
    """A word, what stands between white space, with the likeliest label of its first token that was read.

    `label` is None where there is none: the word was cut off, or holds nothing that the tokenizer keeps.
    """

    word: str
    label: str | None = None
    probability: float | None = None


@dataclass(frozen=True)
class Labelled:
    """A text with the probability of every label, the likeliest first; by a head for tokens, with its words instead."""

    text: str
    labels: tuple[Chance, ...] = ()
    words: tuple[Word, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data: the text with its labels or with its words."""
        left_out = "words" if self.labels else "labels"
        return {name: value for name, value in asdict(self).items() if name != left_out}


def classify(
    model: str | Path | ModelWithTokenizer,
    texts: str | Path | Sequence[str | Path],
    *,
    truncate: Cut | None = None,
    batch_size: int = 32,
    errors: Errors = "strict",
    text_field: str = "text",
    device: str | None = None,
) -> list[Labelled]:
    """What an encoder labels each text, or each word of it; a text that names a file stands for the file's lines.

    Raises CannotDo for a model that is no encoder or has learnt no labels, ContextOverflow for a text that is too long.

    >>> import clearstory
    >>> clearstory.classify("moods", "What a fine day!")[0].labels[0]  # doctest: +SKIP
    Chance(label='joy', probability=0.97)
    """
    network, tokenizer = encoder(model, device, labels=True)
    config = network.config
    known = asked(texts, errors, text_field)
    room, device_of = config.context - 2, next(network.parameters()).device
    rows, places = [], []
    for text in known:
        ids, where = tokenizer.encode_with_offsets(text)
        rows.append(build_inputs(tokenizer, fit(ids, room, truncate))[0])
        places.append(fit(where, room, truncate))
    found: dict[int, Labelled] = {}
    with resting(network):
        for group in groups(rows, batch_size):
            tokens = TokenBatch.from_sequences([rows[place] for place in group], device_of)
            chances = network.classify(network.encode(tokens)).double().softmax(-1).cpu()
            for place, told in zip(group, chances, strict=True):
                text, labels = known[place], config.labels
                if config.label_level == "text":
                    found[place] = Labelled(text, labels=ranked(labels, told))
                else:  # [CLS] stands first
                    found[place] = Labelled(text, words=by_word(labels, text, places[place], told[1:]))
    return [found[place] for place in range(len(known))]


def ranked(labels: Sequence[str], chances: Tensor) -> tuple[Chance, ...]:
    """All labels with their chances, (labels,), the likeliest first."""
    values, order = chances.sort(descending=True, stable=True)
    return tuple(Chance(labels[place], value) for place, value in zip(order.tolist(), values.tolist(), strict=True))


def by_word(labels: Sequence[str], text: str, places: Sequence[tuple[int, int]], chances: Tensor) -> tuple[Word, ...]:
    """A text's words, by the chances (T, labels) of its tokens, of which each was made of the characters start:stop."""
    found = []
    for word, first in zip(text.split(), first_tokens(text, places), strict=True):
        if first is None:
            found.append(Word(word))
        else:
            value, label = chances[first].max(-1)
            found.append(Word(word, labels[int(label)], float(value)))
    return tuple(found)


def first_tokens(text: str, places: Sequence[tuple[int, int]]) -> list[int | None]:
    """For each word of a text the first token that has a part of it, if there is one.

    >>> first_tokens("ab c", [(0, 1), (1, 2), (2, 4)])
    [0, 2]
    """
    found: list[int | None] = []
    token = 0
    for word in re.finditer(r"\S+", text):
        begin, end = word.span()
        while token < len(places) and places[token][1] <= begin:
            token += 1
        found.append(token if token < len(places) and places[token][0] < end else None)
    return found
