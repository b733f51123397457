"""Steps: how a word comes to its tokens, step by step, under each kind of tokenizer.

bpe         from characters or bytes, the pair of the lowest rank is joined, again and again (Sennrich et al. 2016)
wordpiece   the longest piece that the word begins with, then the longest of what is left (Devlin et al. 2019)
unigram     the pieces whose scores (logarithms of probabilities) add up highest (Kudo 2018)

What is followed here is checked against the library's own tokens: no step is shown that did not happen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from clearstory.errors import CannotDo
from clearstory.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class TokenizationStep:
    """One step on a word's way: its pieces afterwards, as the vocabulary writes them, and what was done to get there.

    `made` is the piece that is new, and `number` what decided: the merge's rank (bpe), how many longer pieces were
    tried first (wordpiece), the piece's score (unigram). The first step has neither: it is the word, taken apart.
    """

    pieces: tuple[str, ...]
    made: str | None = None
    number: float | None = None


@dataclass(frozen=True)
class WordTokenization:
    """A stretch of text that is cut by itself, with all steps to its tokens; `times` it stands in the text."""

    text: str
    steps: tuple[TokenizationStep, ...]
    ids: tuple[int, ...]
    count: int = 1


def tokenize_by_words(tokenizer: Tokenizer, text: str) -> list[WordTokenization]:
    """The different words of a text in the order in which they come, each with its steps.

    Raises CannotDo where the steps found do not end in the tokenizer's own tokens.

    >>> from clearstory.text.train_tokenizer import train_tokenizer
    >>> [step.made for step in tokenize_by_words(train_tokenizer("bpe:260", ["abcabc ab"]), "abc")[0].steps]
    [None, 'ab', 'abc']
    """
    whole = pretokenize(tokenizer, text)
    backend, ids = tokenizer._backend, list[int]()
    found: dict[str, WordTokenization] = {}
    for stretch, added in whole:
        if stretch in found:
            found[stretch] = WordTokenization(**{**vars(found[stretch]), "count": found[stretch].count + 1})
        else:
            own = (tokenizer.ids[stretch],) if added else tuple(each.id for each in backend.model.tokenize(stretch))
            steps = (TokenizationStep((stretch,)),) if added else tokenization_steps(tokenizer, stretch)
            found[stretch] = WordTokenization(stretch, steps, own)
        ids += found[stretch].ids
        if piece_ids(tokenizer, found[stretch].steps[-1].pieces) != found[stretch].ids:
            raise unknown_steps_error(f"the steps found for ‘{stretch}’ do not end in its tokens")
    if ids != tokenizer.encode(text):
        raise unknown_steps_error("the words found do not add up to the text's tokens")
    return list(found.values())


def unknown_steps_error(why: str) -> CannotDo:
    """What is said where the steps are not known."""
    return CannotDo(f"this tokenizer cuts text in a way whose steps are not known here: {why}; see its tokens alone")


def pretokenize(tokenizer: Tokenizer, text: str) -> list[tuple[str, bool]]:
    """What is cut by itself, as the normalizer and the pre-tokenizer leave it, and whether it is an added token."""
    backend = tokenizer._backend
    added = sorted((each["content"] for each in tokenizer._added if not each.get("special")), key=len, reverse=True)
    parts = re.split(f"({'|'.join(map(re.escape, added))})", text) if added else [text]
    found: list[tuple[str, bool]] = []
    for number, part in enumerate(parts):
        if number % 2:
            found.append((part, True))
            continue
        clean = backend.normalizer.normalize_str(part) if backend.normalizer is not None else part
        cut = [(clean, None)] if backend.pre_tokenizer is None else backend.pre_tokenizer.pre_tokenize_str(clean)
        found += [(piece, False) for piece, _ in cut if piece]
    return found


def piece_ids(tokenizer: Tokenizer, pieces: Sequence[str]) -> tuple[int | None, ...]:
    """The ids of pieces, as the vocabulary has them; what it has not is unknown."""
    unknown = tokenizer.ids.get(str(tokenizer._json["model"].get("unk_token")), tokenizer.unk_token_id)
    return tuple(tokenizer.ids.get(piece, unknown) for piece in pieces)


def tokenization_steps(tokenizer: Tokenizer, word: str) -> tuple[TokenizationStep, ...]:
    """The steps of one word."""
    model: Mapping[str, Any] = tokenizer._json["model"]
    if tokenizer.kind == "wordpiece":
        return wordpiece_steps(tokenizer, model, word)
    if tokenizer.kind == "unigram":
        return unigram_steps(tokenizer, model, word)
    if tokenizer.kind == "words":
        return (TokenizationStep((word,)),)
    return bpe_steps(tokenizer, model, word)


def bpe_steps(tokenizer: Tokenizer, model: Mapping[str, Any], word: str) -> tuple[TokenizationStep, ...]:
    """Byte pairs: the pair of the lowest rank is joined first, of several such the first."""
    if model.get("ignore_merges") and word in tokenizer.ids:
        return (TokenizationStep((word,)),)
    ranks = merge_ranks(tokenizer)
    prefix = model.get("continuing_subword_prefix") or ""
    pieces = initial_symbols(tokenizer, model, word, prefix)
    steps = [TokenizationStep(tuple(pieces))]
    while True:
        pairs = [(ranks[pair], at) for at, pair in enumerate(pairwise(pieces)) if pair in ranks]
        if not pairs:
            return tuple(steps)
        rank, at = min(pairs)
        made = pieces[at] + pieces[at + 1].removeprefix(prefix)
        pieces = [*pieces[:at], made, *pieces[at + 2 :]]
        steps.append(TokenizationStep(tuple(pieces), made, rank))


def merge_ranks(tokenizer: Tokenizer) -> dict[tuple[str, str], int]:
    """Each pair that is ever joined, with its rank: the lower, the earlier."""
    if (known := MERGE_RANKS_CACHE.get(tokenizer.fingerprint)) is None:
        merges = tokenizer._json["model"].get("merges") or []
        known = {}
        for rank, each in enumerate(merges):
            left, right = each.split(" ", 1) if isinstance(each, str) else each
            known[left, right] = rank  # of a pair that comes twice, the later, as the library has it
        MERGE_RANKS_CACHE.clear()
        MERGE_RANKS_CACHE[tokenizer.fingerprint] = known
    return known


MERGE_RANKS_CACHE: dict[str, dict[tuple[str, str], int]] = {}
"""Of the tokenizer that was asked last: reading 50,000 pairs takes a tenth of a second."""


def initial_symbols(tokenizer: Tokenizer, model: Mapping[str, Any], word: str, prefix: str) -> list[str]:
    """What joining begins with: characters, bytes for those that the vocabulary has not, or the unknown token."""
    suffix = model.get("end_of_word_suffix") or ""
    unknown = model.get("unk_token")
    pieces: list[str] = []
    for at, character in enumerate(word):
        piece = (prefix if at else "") + character + (suffix if at == len(word) - 1 else "")
        if piece in tokenizer.ids:
            pieces.append(piece)
            continue
        piece_ids = [f"<0x{byte:02X}>" for byte in piece.encode()] if model.get("byte_fallback") else []
        if piece_ids and all(each in tokenizer.ids for each in piece_ids):
            pieces += piece_ids
        elif unknown is not None and not (model.get("fuse_unk") and pieces[-1:] == [unknown]):
            pieces.append(unknown)
    return pieces


def wordpiece_steps(tokenizer: Tokenizer, model: Mapping[str, Any], word: str) -> tuple[TokenizationStep, ...]:
    """Pieces from the left, each as long as the vocabulary has one; a word without such is unknown as a whole."""
    prefix, unknown = model.get("continuing_subword_prefix", "##"), model.get("unk_token", "[UNK]")
    steps, start, pieces = [TokenizationStep((word,))], 0, list[str]()
    if len(word) > model.get("max_input_chars_per_word", 100):
        return (*steps, TokenizationStep((unknown,), unknown))
    while start < len(word):
        ends = range(len(word), start, -1)
        tried = [(prefix if start else "") + word[start:end] for end in ends]
        at = next((at for at, piece in enumerate(tried) if piece in tokenizer.ids), None)
        if at is None:
            return (*steps, TokenizationStep((unknown,), unknown, len(tried)))
        start = ends[at]
        pieces.append(tried[at])
        left = (prefix + word[start:],) if start < len(word) else ()
        steps.append(TokenizationStep((*pieces, *left), tried[at], at))
    return tuple(steps)


def unigram_steps(tokenizer: Tokenizer, model: Mapping[str, Any], word: str) -> tuple[TokenizationStep, ...]:
    """The library's own pieces, from the left, each with its score; what it spells in bytes has theirs."""
    scores: list[list[Any]] = model["vocab"]
    tokens = tokenizer._backend.model.tokenize(word)
    steps = [TokenizationStep((word,))]
    for at, token in enumerate(tokens, start=1):
        done = tuple(tokenizer._tokens[each.id] or "" for each in tokens[:at])
        left = word[tokens[at].offsets[0] :] if at < len(tokens) else ""
        score = float(scores[token.id][1]) if token.id < len(scores) else None
        steps.append(TokenizationStep((*done, left) if left else done, done[-1], score))
    return tuple(steps)
