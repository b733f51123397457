"""Write an ARPA file that was opened and compared with the original, by tokens and by text, before it appears."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clearstory.evaluation.windows import iter_token_nll
from clearstory.formats.arpa.read import read_arpa
from clearstory.formats.arpa.write import arpa_words, vocabulary_words, write_arpa
from clearstory.formats.folders import OpenedModel
from clearstory.formats.model_card import ModelCard
from clearstory.metrics import Floats
from clearstory.models.build import count_parameters
from clearstory.models.prompts import bos_or_eos_token_id
from clearstory.recipes.conversion.compare_nats import (
    SEQUENCE_LENGTH,
    TokenMapping,
    check_nats,
    compare_nats,
    generated_ids,
    random_ids,
)
from clearstory.text.token_dataset import encode_text
from clearstory.text.tokenizers import Tokenizer

ODD_TEXT = "a\u00a0b <unk> <UNK> <s> </s> <eos> x<s>y\n\n \t c\u3000d \r\n"
"""A text of reserved words, white space of Unicode and blank lines."""


@dataclass(frozen=True)
class ArpaReport:
    """The comparison: number of tokens, largest difference in nats, and a description of other differences."""

    parameters: int
    tokens: int
    max_nats_difference: float
    note: str | None


def write_checked_arpa(path: Path, original: OpenedModel) -> ArpaReport:
    """Write a model to an ARPA file. Raises CorruptFile, and leaves no file, where it differs from the original.

    A model of words is compared by text too: the file's own tokenizer reads the same words and lines.
    """
    reports: list[ArpaReport] = []

    def check(file: Path) -> None:
        model, tokenizer = read_arpa(file)
        converted = OpenedModel(model, tokenizer, ModelCard(family="ngram"))
        tokens, difference = check_nats(path, *compare_nats(original, converted, arpa_mapping(original, converted)))
        texts, note = comparable_texts(original, tokenizer)
        if texts:
            before, after = (text_nats(each, texts) for each in (original, converted))
            same = len(before) == len(after)
            with np.errstate(invalid="ignore"):  # an impossible token costs inf in both
                by_text = float(np.abs(np.where(before == after, 0.0, before - after)).max()) if same else float("inf")
            check_nats(path, len(before), by_text)
            tokens, difference = tokens + len(before), max(difference, by_text)
        reports.append(ArpaReport(count_parameters(model), tokens, difference, note))

    write_arpa(path, original.model, original.tokenizer, check)
    return reports[0]


def arpa_mapping(original: OpenedModel, converted: OpenedModel) -> TokenMapping:
    """The mapping to an ARPA file, whose ids follow the order of its words.

    In the file one token both ends a text and starts the next, so those two tokens are compared in part only.
    """
    assert converted.tokenizer is not None
    words = arpa_words(original.model, original.tokenizer)
    ids = torch.tensor([converted.tokenizer.ids.get(word, -1) for word in words])
    same_context, same_target = ids >= 0, ids >= 0
    start = original.model.config.start_token_id
    end = start if original.tokenizer is None else original.tokenizer.eos_token_id
    if start is not None and start != end:
        ids[start], same_context[start] = converted.model.config.start_token_id, True
        same_target[start] = False
    if end is not None and start != end:
        same_context[end] = False
    return TokenMapping(ids.clamp(min=0), same_context, same_target)


def comparable_texts(original: OpenedModel, converted: Tokenizer) -> tuple[list[str], str | None]:
    """Texts that both tokenizers must encode equally, and a note on differences; no texts if tokens are not words."""
    tokenizer = original.tokenizer
    if tokenizer is not None and tokenizer.kind != "words":
        return [], "programs that read the file split text only at white space: give them tokens separated by spaces"
    if tokenizer is None or not tokenizer.eos_ends_lines:
        return [], None
    written = arpa_words(original.model, tokenizer)
    special = {tokenizer.unk_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id}
    renamed = {
        id: word for id, word in vocabulary_words(tokenizer).items() if id not in special and written[id] != word
    }
    sequences = torch.cat([generated_ids(original.model, SEQUENCE_LENGTH), random_ids(original.model, SEQUENCE_LENGTH)])
    texts = [tokenizer.decode(id for id in row if id not in renamed) for row in sequences.tolist()]
    notes = []
    if len(tokenizer.encode("a\u00a0b")) == len(converted.encode("a\u00a0b")):
        texts += [] if renamed else [ODD_TEXT]
    else:
        notes.append("non-ASCII white space separates words in the original, but is part of words in the file")
    if renamed:
        first = next(iter(renamed))
        notes.append(
            f"{len(renamed):,} words are reserved in ARPA or cannot be written, and have other names in the file "
            f"({renamed[first]!r} is {written[first]!r}): it reads them as unknown words"
        )
    return texts, "; ".join(notes) or None


def text_nats(opened: OpenedModel, texts: list[str]) -> Floats:
    """Negative log-likelihood of each token of the texts, in nats, (N,)."""
    assert opened.tokenizer is not None
    dataset = encode_text(opened.tokenizer, texts)
    nats = np.zeros(len(dataset))
    for part in iter_token_nll(opened.model, dataset, start_token_id=bos_or_eos_token_id(opened.tokenizer)):
        nats[part.start : part.start + len(part.nats)] = part.nats
    return nats
