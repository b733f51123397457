"""The `tokenizers` object of a tokenizer.json, and one whose special tokens no text can spell."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from clearstory.errors import CorruptFile
from clearstory.text.limited_backend import LimitedBackend
from clearstory.text.tokenizer_limits import check_tokenizer_json


def build_backend(contents: str, parts: Mapping[str, Any], *, parse_special: bool = True) -> LimitedBackend:
    """The `tokenizers` object of a tokenizer.json with the value `parts`, without truncation and padding.

    `parse_special`: whether special tokens in a text are parsed, or encoded as plain text. Raises CorruptFile.
    """
    from tokenizers import Tokenizer as Backend

    check_tokenizer_json(parts)
    try:
        backend = Backend.from_str(contents)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # the library raises bare Exceptions, and panics
        reason = " ".join(str(error).split())[:200]
        raise CorruptFile(f"the tokenizer is damaged or of a newer version ({reason}); download it again") from None
    # Sentence encoders ship these enabled; text would be truncated silently.
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = not parse_special  # the library's name for: encode them as plain text
    return LimitedBackend(backend, parts)


@dataclass(frozen=True)
class HiddenSpecialTokens:
    """A tokenizer whose special tokens have names that no text contains.

    Args:
        backend: the `tokenizers` object.
        names: the new name of each special token.
        ids: the tokenizer's own id for each id of `backend` that is another.
    """

    backend: Any
    names: Mapping[str, str]
    ids: Mapping[int, int]

    def original_ids(self, ids: Iterable[int]) -> list[int]:
        """The tokenizer's own ids for ids of `backend`."""
        return [self.ids.get(id, id) for id in ids]


def hide_special_tokens(contents: str, names: Collection[str], ids: Mapping[str, int]) -> HiddenSpecialTokens:
    """The tokenizer of a tokenizer.json with the tokens `names` renamed; `ids` is its vocabulary.

    A Unigram model finds any string of its vocabulary in a text, those of special tokens included; and a tokenizer
    either parses all special tokens or none. With the new names, those are parsed that are written so on purpose.
    """
    # Noncharacters, which no text should contain, and a number that nobody can guess.
    secret = secrets.randbelow(10**12)
    renamed = {name: f"\ufdd0{secret}.{index}\ufdd1" for index, name in enumerate(sorted(names))}
    parts: dict[str, Any] = json.loads(contents)
    parts["added_tokens"] = [
        {**token, "content": renamed[token["content"]], "single_word": False, "normalized": False}
        if token["content"] in renamed
        else token
        for token in parts.get("added_tokens") or []
    ]
    parts["model"] = rename_vocabulary(parts["model"], renamed)
    backend = build_backend(json.dumps(parts, ensure_ascii=False), parts)
    original = {new: old for old, new in renamed.items()}
    found = {id: original.get(token, token) for token, id in backend.get_vocab(with_added_tokens=True).items()}
    return HiddenSpecialTokens(backend, renamed, {id: ids[token] for id, token in found.items() if ids[token] != id})


def rename_vocabulary(model: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """The "model" section of a tokenizer.json with these entries of its vocabulary renamed."""
    vocab, out = model["vocab"], dict(model)
    if isinstance(vocab, Mapping):
        out["vocab"] = {renamed.get(token, token): id for token, id in vocab.items()}
    else:
        out["vocab"] = [[renamed.get(token, token), score] for token, score in vocab]
    if isinstance(model.get("unk_token"), str):
        out["unk_token"] = renamed.get(model["unk_token"], model["unk_token"])
    if model.get("merges"):
        out["merges"] = list(without_merges_of(model["merges"], renamed))
    return out


def without_merges_of(merges: Iterable[Any], names: Collection[str]) -> Iterable[Any]:
    """The merges that neither use nor make a token of these names."""
    for merge in merges:
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        if left not in names and right not in names and left + right not in names:
            yield merge
