"""Steps of tokenizing a word, for each kind of tokenizer.

bpe         starting from characters or bytes, the pair of the lowest rank is merged, repeatedly (Sennrich et al. 2016)
wordpiece   the longest piece that begins the word, then the longest of the rest (Devlin et al. 2019)
unigram     the segmentation with the highest sum of log-probabilities (Kudo 2018)

The result is compared with the library's own tokens, so no step is shown that did not happen.
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
    """One step: the pieces of the word after it, as written in the vocabulary, and the change.

    `made` is the new piece, and `number` is the merge's rank (bpe), the number of longer pieces tried first
    (wordpiece), or the piece's score (unigram). The first step, the initial symbols, has neither.
    """

    pieces: tuple[str, ...]
    made: str | None = None
    number: float | None = None


@dataclass(frozen=True)
class WordTokenization:
    """One pre-token of a text, with all steps to its ids; `count` is how often it occurs."""

    text: str
    steps: tuple[TokenizationStep, ...]
    ids: tuple[int, ...]
    count: int = 1


def tokenize_by_words(tokenizer: Tokenizer, text: str) -> list[WordTokenization]:
    """Distinct pre-tokens of a text in order of first occurrence, each with its steps.

    Raises CannotDo if the steps do not end in the tokenizer's own tokens.

    >>> from clearstory.text.train_tokenizer import train_tokenizer
    >>> [step.made for step in tokenize_by_words(train_tokenizer("bpe:260", ["abcabc ab"]), "abc")[0].steps]
    [None, 'ab', 'abc']
    """
    pretokens = pretokenize(tokenizer, text)
    backend, ids = tokenizer._backend, list[int]()
    found: dict[str, WordTokenization] = {}
    for pretoken, added in pretokens:
        if pretoken in found:
            found[pretoken] = WordTokenization(**{**vars(found[pretoken]), "count": found[pretoken].count + 1})
        else:
            own = (tokenizer.ids[pretoken],) if added else tuple(each.id for each in backend.model.tokenize(pretoken))
            steps = (TokenizationStep((pretoken,)),) if added else tokenization_steps(tokenizer, pretoken)
            found[pretoken] = WordTokenization(pretoken, steps, own)
        ids += found[pretoken].ids
        if piece_ids(tokenizer, found[pretoken].steps[-1].pieces) != found[pretoken].ids:
            raise unknown_steps_error(f"the steps of ‘{pretoken}’ do not end in its tokens")
    if ids != tokenizer.encode(text):
        raise unknown_steps_error("the words do not add up to the tokens of the text")
    return list(found.values())


def unknown_steps_error(why: str) -> CannotDo:
    """Error for tokenizers whose steps are not reproduced."""
    return CannotDo(f"the merge steps of this tokenizer cannot be reproduced: {why}; only its tokens can be shown")


def pretokenize(tokenizer: Tokenizer, text: str) -> list[tuple[str, bool]]:
    """Pre-tokens of a text after normalization, and whether each is an added token."""
    backend = tokenizer._backend
    added = sorted((each["content"] for each in tokenizer._added if not each.get("special")), key=len, reverse=True)
    parts = re.split(f"({'|'.join(map(re.escape, added))})", text) if added else [text]
    found: list[tuple[str, bool]] = []
    for number, part in enumerate(parts):
        if number % 2:
            found.append((part, True))
            continue
        found += [(piece, False) for piece in backend.pretokenize(part) if piece]
    return found


def piece_ids(tokenizer: Tokenizer, pieces: Sequence[str]) -> tuple[int | None, ...]:
    """Ids of pieces; the unknown id for pieces outside the vocabulary."""
    unknown = tokenizer.ids.get(str(tokenizer._json["model"].get("unk_token")), tokenizer.unk_token_id)
    return tuple(tokenizer.ids.get(piece, unknown) for piece in pieces)


def tokenization_steps(tokenizer: Tokenizer, word: str) -> tuple[TokenizationStep, ...]:
    """Steps of one pre-token."""
    model: Mapping[str, Any] = tokenizer._json["model"]
    if tokenizer.kind == "wordpiece":
        return wordpiece_steps(tokenizer, model, word)
    if tokenizer.kind == "unigram":
        return unigram_steps(tokenizer, model, word)
    if tokenizer.kind in ("words", "wordpunct"):
        return (TokenizationStep((word,)),)
    return bpe_steps(tokenizer, model, word)


def bpe_steps(tokenizer: Tokenizer, model: Mapping[str, Any], word: str) -> tuple[TokenizationStep, ...]:
    """BPE: the pair of the lowest rank is merged first, the leftmost of several."""
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
    """Rank of each merge; lower ranks are merged first."""
    if (known := MERGE_RANKS_CACHE.get(tokenizer.fingerprint)) is None:
        merges = tokenizer._json["model"].get("merges") or []
        known = {}
        for rank, each in enumerate(merges):
            left, right = each.split(" ", 1) if isinstance(each, str) else each
            known[left, right] = rank  # of a repeated pair the last counts, as in the library
        MERGE_RANKS_CACHE.clear()
        MERGE_RANKS_CACHE[tokenizer.fingerprint] = known
    return known


MERGE_RANKS_CACHE: dict[str, dict[tuple[str, str], int]] = {}
"""Ranks of the tokenizer used last: parsing 50,000 merges takes a tenth of a second."""


def initial_symbols(tokenizer: Tokenizer, model: Mapping[str, Any], word: str, prefix: str) -> list[str]:
    """Symbols that BPE starts from: characters, bytes for characters outside the vocabulary, or the unknown token."""
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
    """WordPiece: the longest piece of the vocabulary from the left; a word without one is unknown as a whole."""
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
    """Unigram: the library's own pieces from the left, each with its score; byte tokens have their own scores."""
    scores: list[list[Any]] = model["vocab"]
    tokens = tokenizer._backend.model.tokenize(word)
    steps = [TokenizationStep((word,))]
    for at, token in enumerate(tokens, start=1):
        done = tuple(tokenizer._tokens[each.id] or "" for each in tokens[:at])
        left = word[tokens[at].offsets[0] :] if at < len(tokens) else ""
        score = float(scores[token.id][1]) if token.id < len(scores) else None
        steps.append(TokenizationStep((*done, left) if left else done, done[-1], score))
    return tuple(steps)
