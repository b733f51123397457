"""Word tokenizer: words separated by ASCII white space, and a token for every line end.

These are the words and lines of KenLM and SRILM: other white space of Unicode, such as a no-break space, is part of a
word. The ids are those of the tokenizers library; for tokenizers built here, splitting bytes computes them in a
fraction of the time (benchmarks/results/ngram.json).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

UNKNOWN = "<unk>"

RESERVED = frozenset({UNKNOWN, "<UNK>", "<s>", "</s>"})
"""Words with a special meaning in ARPA files: in a text they are unknown words."""

WHITESPACE = r"[ \t\n\r\x0b\x0c]"
"""What separates words: the white space of `bytes.split`."""


def whole_word(word: str) -> str:
    """Regular expression of a word between white space."""
    inside = WHITESPACE.replace("[", "[^", 1)
    return f"(?<!{inside}){re.escape(word)}(?!{inside})"


def word_level_json(words: Sequence[str], end: str | None) -> str:
    """The tokenizer.json of a word vocabulary in the order of ids; a line feed becomes the token `end`.

    The word `end` in a text is encoded as unknown, so that it cannot end a line.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    whole = Tokenizer(models.WordLevel(vocab={UNKNOWN: 0}, unk_token=UNKNOWN))
    whole.pre_tokenizer = pre_tokenizers.Split(Regex(f"{WHITESPACE}+"), "removed")
    joined = [decoders.WordPiece(prefix="\n", cleanup=False), decoders.Fuse()]
    if end is not None:
        whole.normalizer = normalizers.Sequence(
            [normalizers.Replace(Regex(whole_word(end)), UNKNOWN), normalizers.Replace("\n", f" {end} ")]
        )
        joined.append(decoders.Replace(Regex(f"(?: |^|(?<= )){re.escape(end)}(?: |$)"), "\n"))
    whole.decoder = decoders.Sequence(joined)
    contents = json.loads(whole.to_str())
    contents["model"]["vocab"] = {}
    # Written line by line: json indents in Python, which takes seconds for a large vocabulary.
    lines = ",\n".join(f"   {json.dumps(word, ensure_ascii=False)}: {id}" for id, word in enumerate(words))
    vocab = f"{{\n{lines}\n  }}" if words else "{}"
    return json.dumps(contents, ensure_ascii=False, indent=1).replace('"vocab": {}', f'"vocab": {vocab}', 1)


def words_by_frequency(texts: Iterable[str], end: str) -> list[str]:
    """All words of the texts except `end` and the reserved ones, most frequent first, ties in alphabetical order.

    >>> words_by_frequency(["a b a", "c b a <eos> <s>"], "<eos>")
    ['a', 'b', 'c']
    """
    counts: Counter[bytes] = Counter()
    for text in texts:
        counts.update(text.encode().split())
    for word in {*RESERVED, end}:
        del counts[word.encode()]
    # UTF-8 bytes are in the order of code points.
    return [word.decode() for word in sorted(counts, key=lambda word: (-counts[word], word))]


def fast_encoder(parts: Mapping[str, Any]) -> Callable[[str], list[int]] | None:
    """An encode function equal to the library's, for a tokenizer.json made by `word_level_json`; None for any other."""
    model, end = parts.get("model") or {}, None
    if model.get("type") != "WordLevel" or parts.get("added_tokens") or model.get("unk_token") != UNKNOWN:
        return None
    try:
        if parts.get("normalizer") is not None:
            end = parts["normalizer"]["normalizers"][1]["content"].strip()
        expected = json.loads(word_level_json([UNKNOWN], end))
    except (KeyError, TypeError, IndexError, AttributeError):
        return None
    if end == "" or any(parts.get(name) != expected[name] for name in ("normalizer", "pre_tokenizer")):
        return None
    ids: dict[str, int] = model["vocab"]
    if UNKNOWN not in ids:
        return None
    get, unknown = {word.encode(): id for word, id in ids.items()}.get, ids[UNKNOWN]
    if end is None:
        return lambda text: [get(word, unknown) for word in text.encode().split()]
    own, spaced, end_word = end.encode(), f" {end} ".encode(), re.compile(whole_word(end).encode())

    def encode(text: str) -> list[int]:
        data = text.encode()
        if own in data:
            data = end_word.sub(UNKNOWN.encode(), data)
        return [get(word, unknown) for word in data.replace(b"\n", spaced).split()]

    return encode
