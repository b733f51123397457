"""Word-and-punctuation tokenizer: runs of letters and digits, runs of punctuation marks, a token for every line end.

The tokens of NLTK's WordPunctTokenizer, `\\w+|[^\\w\\s]+`: "true," is "true" and ",". The ids are those of the
tokenizers library; Python's regular expressions compute them faster for texts with characters that both classify in
the same way.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from clearstory.text.word_tokenizer import RESERVED, UNKNOWN

PATTERN = rf"{UNKNOWN}|\w+|[^\w\s]+"

OTHER_CHARACTERS = re.compile(
    "[^\t-\r -\xb1\xb4-\xb8\xba\xbb\xbf-\u02ff\u0370-\u0482\u048a-\u0590\u1e00-\u1fff\u2000-\u203e\u2041-\u2053"
    "\u20a0-\u20cf\u2100-\u214f\u2190-\u23ff\u2500-\u2775\u2794-\u2bff\u3000-\u3029\u3031-\u3098\u309b-\u3191"
    "\u3196-\u321f\u3400-\u4dbf\u4e00-\u9fef\uac00-\ud7a3\uff00-\uff3e\uff40-\uffef]"
)
"""Characters that Python and the library may classify differently, such as combining marks, ½ and rare scripts."""

TOKEN = re.compile(rf"\n|{PATTERN}")


def wordpunct_json(words: Sequence[str], end: str) -> str:
    """The tokenizer.json of a vocabulary in the order of ids; a line feed becomes the token `end`.

    The string `end` in a text is not that token, but its parts.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    backend = Tokenizer(models.WordLevel(vocab={word: id for id, word in enumerate(words)}, unk_token=UNKNOWN))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Replace(end, f"{end[:1]} {end[1:]}"), normalizers.Replace("\n", f" {end} ")]
    )
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(rf"{re.escape(end)}|{PATTERN}"), "removed", invert=True)
    backend.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="\n", cleanup=True),  # spaces between tokens, but none before , . ! ? and n't
            decoders.Fuse(),
            decoders.Replace(Regex(rf"(?: |^|(?<= )){re.escape(end)}(?: |$)"), "\n"),
        ]
    )
    contents: str = backend.to_str(pretty=True)
    return json.dumps(json.loads(contents), ensure_ascii=False, indent=1)


def wordpunct_tokens_by_frequency(texts: Iterable[str], end: str) -> list[str]:
    """All tokens of the texts except the unknown word, most frequent first, ties in alphabetical order.

    >>> wordpunct_tokens_by_frequency(["a b, a", "b, <unk> c!"], "<eos>")
    [',', 'a', 'b', '!', 'c']
    """
    from tokenizers import Tokenizer

    split = Tokenizer.from_str(wordpunct_json([UNKNOWN, end], end)).pre_tokenizer.pre_tokenize_str
    counts: Counter[str] = Counter()
    for text in texts:
        if OTHER_CHARACTERS.search(text) is None:
            counts.update(TOKEN.findall(text))
            continue
        for line in text.split("\n"):
            safe = OTHER_CHARACTERS.search(line) is None
            counts.update(TOKEN.findall(line) if safe else (token for token, _ in split(spaced_end(line, end))))
    for word in {*RESERVED, end, "\n"}:
        del counts[word]
    return sorted(counts, key=lambda word: (-counts[word], word))


def spaced_end(line: str, end: str) -> str:
    """The line as the normalizer leaves it."""
    return line.replace(end, f"{end[:1]} {end[1:]}")


def is_wordpunct(parts: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json was made by `wordpunct_json`."""
    end = line_end(parts)
    if (parts.get("model") or {}).get("type") != "WordLevel" or parts.get("added_tokens") or not end:
        return False
    expected = json.loads(wordpunct_json([UNKNOWN, end], end))
    return all(parts.get(name) == expected[name] for name in ("normalizer", "pre_tokenizer"))


def line_end(parts: Mapping[str, Any]) -> str:
    """The token that the normalizer writes for a line feed; empty if it writes none."""
    try:
        return str(parts["normalizer"]["normalizers"][1]["content"]).strip()
    except (KeyError, TypeError, IndexError):
        return ""


def wordpunct_encoder(
    parts: Mapping[str, Any], encode_line: Callable[[str], list[int]]
) -> Callable[[str], list[int]] | None:
    """An encode function equal to the library's, for a tokenizer.json made by `wordpunct_json`; None for any other.

    `encode_line` is the library's, for lines with characters that it can classify differently.
    """
    ids: dict[str, int] = (parts.get("model") or {}).get("vocab") or {}
    if UNKNOWN not in ids or not is_wordpunct(parts) or line_end(parts) not in ids:
        return None
    unknown, end = ids[UNKNOWN], ids[line_end(parts)]
    get = {**ids, "\n": end}.get

    def encode(text: str) -> list[int]:
        if OTHER_CHARACTERS.search(text) is None:
            return [get(token, unknown) for token in TOKEN.findall(text)]
        first, *others = text.split("\n")
        found = encode_one(first)
        for line in others:
            found.append(end)
            found += encode_one(line)
        return found

    def encode_one(line: str) -> list[int]:
        if OTHER_CHARACTERS.search(line) is None:
            return [get(token, unknown) for token in TOKEN.findall(line)]
        return encode_line(line)

    return encode
