"""Word tokenizer: white-space separated words, and a token for every line end.

The ids are those of the tokenizers library; for tokenizers built here, Python's str.split computes them in a fraction
of the time (benchmarks/results/ngram.json).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

UNKNOWN = "<unk>"

NON_UNICODE_WHITESPACE = re.compile("[\x1c-\x1f]")
"""White space to Python but not to Unicode, which the library follows."""


def word_level_json(words: Sequence[str], end: str | None) -> str:
    """The tokenizer.json of a word vocabulary in the order of ids; a line feed becomes the token `end`.

    The string `end` inside a text is encoded as unknown, so that it cannot end a line.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    whole = Tokenizer(models.WordLevel(vocab={word: id for id, word in enumerate(words)}, unk_token=UNKNOWN))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    joined = [decoders.WordPiece(prefix="\n", cleanup=False), decoders.Fuse()]
    if end is not None:
        whole.normalizer = normalizers.Sequence(
            [normalizers.Replace(end, UNKNOWN), normalizers.Replace("\n", f" {end} ")]
        )
        joined.append(decoders.Replace(Regex(f" ?{re.escape(end)} ?"), "\n"))
    whole.decoder = decoders.Sequence(joined)
    contents: str = whole.to_str(pretty=True)
    return json.dumps(json.loads(contents), ensure_ascii=False, indent=1)


def words_by_frequency(texts: Iterable[str], end: str) -> list[str]:
    """All words of the texts except `end` and the unknown word, most frequent first, ties in alphabetical order.

    >>> words_by_frequency(["a b a", "c b a <eos>"], "<eos>")
    ['a', 'b', 'c']
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(split_words(text.replace(end, UNKNOWN)))
    del counts[UNKNOWN]
    return sorted(counts, key=lambda word: (-counts[word], word))


def split_words(text: str) -> list[str]:
    """White-space separated words, split as the library does."""
    if NON_UNICODE_WHITESPACE.search(text):
        return [word for word in re.split("[^\\S\x1c-\x1f]+", text) if word]
    return text.split()


def fast_encoder(parts: Mapping[str, Any]) -> Callable[[str], list[int]] | None:
    """An encode function equal to the library's, for a tokenizer.json made by `word_level_json`; None for any other."""
    model, end = parts.get("model") or {}, None
    if model.get("type") != "WordLevel" or parts.get("added_tokens") or model.get("unk_token") != UNKNOWN:
        return None
    normalizer = parts.get("normalizer")
    try:
        if normalizer is not None:
            first, second = normalizer["normalizers"]
            end = first["pattern"]["String"]
            if (first["content"], second["pattern"], second["content"]) != (UNKNOWN, {"String": "\n"}, f" {end} "):
                return None
            if (normalizer["type"], first["type"], second["type"]) != ("Sequence", "Replace", "Replace"):
                return None
        if parts["pre_tokenizer"] != {"type": "WhitespaceSplit"} or end == "":
            return None
    except (KeyError, TypeError, ValueError):
        return None
    ids: dict[str, int] = model["vocab"]
    if UNKNOWN not in ids:
        return None
    get, unknown = ids.get, ids[UNKNOWN]

    def encode(text: str) -> list[int]:
        if end is not None:
            text = text.replace(end, UNKNOWN).replace("\n", f" {end} ")
        return [get(word, unknown) for word in split_words(text)]

    return encode
