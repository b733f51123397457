"""The `tokenizers` object of a tokenizer.json, and one whose special tokens no text can spell."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any


def build_backend(contents: str) -> Any:
    """The `tokenizers` object of a tokenizer.json. It never truncates and never pads."""
    from tokenizers import Tokenizer as Backend

    backend = Backend.from_str(contents)
    # Sentence encoders ship these enabled; text would be truncated silently.
    backend.no_truncation()
    backend.no_padding()
    return backend


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
    backend = build_backend(json.dumps(parts, ensure_ascii=False))
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
