"""Limits of an untrusted tokenizer.json: sizes of its parts, and the growth of a text by its steps.

A normalizer that replaces each character by ten, in seven steps, expands one character to ten million; the library
has no limit. Here the growth of each character through all steps is bounded before the tokenizer is built, by going
through the steps backwards:

    after the last step             growth[c] = 1
    Replace "a" by "bcd"            growth[a] = growth[b] + growth[c] + growth[d]
    Replace a regex by "bcd"        growth[c] += growth[b] + growth[c] + growth[d] for every c: it may match anywhere
    NFKC, lower case and others     the largest growth, times the longest expansion of a character, for every c
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clearstory.errors import CorruptFile

MAX_ITEMS = {"{": 200_000, "[": 2_000_000, ",": 5_000_000}
"""Objects, lists and items of a tokenizer.json. The largest published ones have 7,000, 580,000 and 2,300,000."""

MAX_STEPS = 200
"""Steps of a normalizer, a pre-tokenizer, a post-processor or a decoder, nested ones included."""

MAX_GROWTH = 1000.0
"""Maximum number of characters to which one character may be expanded; at most 60 in published tokenizers."""

MAX_TOKEN = 2**17
"""Characters of a token."""

MAX_PATTERN = 10_000
"""Characters of a regular expression."""

MAX_WORD = 500
"""WordPiece's max_input_chars_per_word: the time for a word grows with its cube. Published tokenizers have 100."""

LONG_PIECE = 200
"""Characters of a unigram token beyond which encoding is timed: the time for each character of a text is quadratic."""

MAX_ADDED_BY_TEMPLATE = 1000
"""Special tokens that a post-processor adds to a text."""

MAX_HOLES = 2**20
"""Number of ids that may be missing below the largest one, in addition to fifteen for each token."""

SEQUENCES = ("normalizers", "pretokenizers", "processors", "decoders")
"""Keys of the steps of a Sequence."""

UNICODE_GROWTH = {
    "NFC": 3.0, "NFD": 4.0, "NFKC": 18.0, "NFKD": 18.0, "Lowercase": 3.0, "BertNormalizer": 6.0, "ByteLevel": 4.0,
    "Nmt": 1.0,
}  # fmt: skip
"""Maximum expansion of one character in a step. Unknown steps count as the largest."""


def check_size(contents: str, path: str) -> None:
    """Raise CorruptFile for more objects, lists or items than any tokenizer has; before the JSON is parsed."""
    for sign, most in MAX_ITEMS.items():
        if (count := contents.count(sign)) > most:
            raise CorruptFile(
                f"{path} has {count:,} times {sign!r}, more than the limit for tokenizers ({most:,}); use another"
            )


def check_tokenizer_json(parts: Any) -> None:
    """Raise CorruptFile for a tokenizer.json that is not one, or whose steps are not bounded."""
    if not isinstance(parts, Mapping) or not isinstance(parts.get("model"), Mapping):
        raise CorruptFile("the tokenizer has no 'model'; save or download it again")
    for key in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        steps = list(flat_steps(parts.get(key), key))
        check_patterns(steps, key)
        if key in ("normalizer", "decoder"):
            check_growth(steps, key)
    check_template(parts.get("post_processor"))
    check_vocabulary(parts["model"], parts.get("added_tokens"))


def flat_steps(part: Any, key: str) -> Iterator[Mapping[str, Any]]:
    """The steps of a component in order, those of nested sequences included."""
    stack, count = [part], 0
    while stack:
        each = stack.pop()
        count += 1
        if count > MAX_STEPS:
            raise CorruptFile(f"the tokenizer's {key} has more than {MAX_STEPS} steps; use another tokenizer")
        if not isinstance(each, Mapping):
            continue
        inner = next((each[name] for name in SEQUENCES if name in each), None)
        if isinstance(inner, Sequence) and not isinstance(inner, str):
            stack += reversed(inner[: MAX_STEPS + 1])
        else:
            yield each


def check_patterns(steps: Sequence[Mapping[str, Any]], key: str) -> None:
    """Raise CorruptFile for regular expressions and strings of patterns that are too long."""
    for step in steps:
        kind, pattern = pattern_of(step)
        if kind and len(pattern) > MAX_PATTERN:
            raise CorruptFile(f"the tokenizer's {key} has a pattern of {len(pattern):,} characters; use another")


def pattern_of(step: Mapping[str, Any]) -> tuple[str, str]:
    """ "Regex" or "String" and the pattern of a step; two empty strings if it has none."""
    pattern = step.get("pattern")
    if isinstance(pattern, Mapping):
        for kind in ("Regex", "String"):
            if isinstance(pattern.get(kind), str):
                return kind, pattern[kind]
    return "", ""


def check_growth(steps: Sequence[Mapping[str, Any]], key: str) -> None:
    """Raise CorruptFile for steps that can expand one character to more than MAX_GROWTH."""
    if largest_growth(steps, unicode=key == "normalizer") > MAX_GROWTH:
        raise CorruptFile(
            f"the tokenizer's {key} can make a text more than {MAX_GROWTH:,.0f} times longer; use another"
        )


def largest_growth(steps: Sequence[Mapping[str, Any]], *, unicode: bool) -> float:
    """Maximum expansion of one character, or number of prepended characters; with or without Unicode steps.

    The computation stops early if it exceeds MAX_GROWTH.
    """
    growth: dict[str, float] = {}
    default, prepended, expanded, largest = 1.0, 0.0, 1.0, 1.0
    for step in reversed(steps):
        kind, content = str(step.get("type")), step.get("content")
        if kind == "Replace" and isinstance(content, str):
            growth, default = grow_replaced(growth, default, *pattern_of(step), content)
            expanded = 1.0
        elif kind == "Prepend":
            prepended += total_growth(str(step.get("prepend", "")), growth, default)
        elif unicode and kind not in ("Strip", "StripAccents"):
            # Unicode steps that follow each other expand a character once. Any may become any other.
            factor = charsmap_growth(step) if kind == "Precompiled" else UNICODE_GROWTH.get(kind, 18.0)
            default, growth = max([default, *growth.values()]) * max(1.0, factor / expanded), {}
            expanded = max(expanded, factor)
        largest = max([largest, default, prepended, *growth.values()])
        if largest > MAX_GROWTH:
            break
    return largest


def grow_replaced(
    growth: Mapping[str, float], default: float, form: str, pattern: str, content: str
) -> tuple[dict[str, float], float]:
    """The growth of each character, and of all others, before a step that replaces a pattern."""
    added = total_growth(content, growth, default)
    if form == "Regex" or not pattern:
        return {character: value + added for character, value in growth.items()}, default + added
    if len(pattern) == 1:
        return {**growth, pattern: added}, default
    # Each character of the pattern carries its share of what the pattern becomes.
    share = added / len(pattern)
    return {**growth, **{each: max(growth.get(each, default), share) for each in pattern}}, default


def total_growth(text: str, growth: Mapping[str, float], default: float) -> float:
    """Characters that a text becomes."""
    return sum(growth.get(character, default) for character in text)


def charsmap_growth(step: Mapping[str, Any]) -> float:
    """Maximum expansion of one character by SentencePiece's table. Raises CorruptFile for a damaged table.

    A table is the size of a trie in bytes, the trie, and the replacements, each terminated by a zero byte.
    """
    try:
        table = base64.b64decode(str(step.get("precompiled_charsmap") or ""), validate=True)
        if not table:
            return 1.0
        (size,) = struct.unpack_from("<I", table)
        texts = table[4 + size :]
        if size % 4 or 4 + size > len(table):
            raise ValueError(f"a trie of {size:,} bytes in a table of {len(table):,}")
        texts.decode("utf-8")
    except (binascii.Error, struct.error, ValueError) as error:
        raise CorruptFile(f"the tokenizer's precompiled_charsmap is damaged ({error}); download it again") from None
    return float(max(len(text) for text in texts.split(b"\0")))


def check_template(part: Any) -> None:
    """Raise CorruptFile for a post-processor that adds more tokens than a text should get."""
    total = 0
    for step in flat_steps(part, "post_processor"):
        tokens = step.get("special_tokens")
        for side in ("single", "pair"):
            for item in step.get(side) or () if isinstance(step.get(side), list) else ():
                name = item.get("SpecialToken", {}).get("id") if isinstance(item, Mapping) else None
                entry = tokens.get(name) if isinstance(tokens, Mapping) and isinstance(name, str) else None
                total += len(entry.get("ids") or ()) if isinstance(entry, Mapping) else 1
                if total > MAX_ADDED_BY_TEMPLATE:
                    raise CorruptFile(
                        f"the tokenizer's post_processor adds more than {MAX_ADDED_BY_TEMPLATE:,} tokens to a text; "
                        "use another"
                    )


def has_long_pieces(model: Mapping[str, Any]) -> bool:
    """Whether a unigram vocabulary has tokens of more than LONG_PIECE characters."""
    vocab = model.get("vocab")
    return isinstance(vocab, list) and any(isinstance(each, list) and len(str(each[0])) > LONG_PIECE for each in vocab)


def check_vocabulary(model: Mapping[str, Any], added: Any) -> None:
    """Raise CorruptFile for tokens that are too long, ids with large holes, and words of any length."""
    vocab = model.get("vocab")
    tokens: list[Any] = []
    if isinstance(vocab, Mapping):
        tokens = list(vocab)
        ids = [id for id in vocab.values() if isinstance(id, int)]
        if ids and max(ids) > 15 * len(ids) + MAX_HOLES:
            raise CorruptFile(
                f"the tokenizer has {len(ids):,} tokens, and an id of {max(ids):,}; save or download it again"
            )
    elif isinstance(vocab, list):
        tokens = [entry[0] for entry in vocab if isinstance(entry, list) and entry]
    if isinstance(added, list):
        contents = [token.get("content") for token in added if isinstance(token, Mapping)]
        if "" in contents:
            raise CorruptFile("the tokenizer has an added token without characters; save or download it again")
        tokens += contents
    longest = max((len(token) for token in tokens if isinstance(token, str)), default=0)
    if longest > MAX_TOKEN:
        raise CorruptFile(f"the tokenizer has a token of {longest:,} characters; at most {MAX_TOKEN:,} are supported")
    width = model.get("max_input_chars_per_word")
    if isinstance(width, int) and width > MAX_WORD:
        raise CorruptFile(
            f"the tokenizer splits words of up to {width:,} characters into pieces; at most {MAX_WORD:,} are supported"
        )
