"""Builds a tokenizer.json from a vocabulary, independent of the file from which it was read.

byte_level_bpe           GPT-2, Llama 3, Qwen: bytes as printable characters, pairs merged in a given order
sentencepiece_bpe        SentencePiece's BPE (Llama 2, Phi-3): ▁ for spaces, the pair with the best score merged first
sentencepiece_unigram    SentencePiece's Unigram (T5): the segmentation with the highest total score
bert_wordpiece           BERT: the longest matching piece first, pieces inside a word written ##ing

Special tokens represent no text; added tokens are matched in any text before pre-tokenization.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clearstory.text.pretokenizers import PreTokenizer


@dataclass(frozen=True)
class AddedTokens:
    """Tokens in addition to the pieces of a vocabulary.

    Args:
        special: tokens that are never the encoding of text.
        added: tokens that are matched in text before pre-tokenization.
        before: special tokens that the post-processor adds before a text.
        after: special tokens that the post-processor adds after a text.
    """

    special: Sequence[str] = ()
    added: Sequence[str] = ()
    before: Sequence[str] = ()
    after: Sequence[str] = field(default=())


def byte_level_bpe(
    ids: Mapping[str, int], merges: Iterable[tuple[str, str]], pretokenizer: PreTokenizer, added_tokens: AddedTokens
) -> str:
    """The tokenizer.json of a byte-level BPE. Merges whose parts or result are not in the vocabulary are dropped."""
    pairs = [(a, b) for a, b in merges if a in ids and b in ids and a + b in ids]
    model = bpe_model(ids, pairs, ignore_merges=pretokenizer.ignore_merges)
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    return assemble_json(model, ids, added_tokens, pretokenizer.normalizer, pretokenizer.pre_tokenizer, byte_level)


def sentencepiece_bpe(
    pieces: Sequence[tuple[str, float]],
    ids: Mapping[str, int],
    unknown: str,
    added_tokens: AddedTokens,
    *,
    add_prefix_space: bool = True,
    byte_fallback: bool = True,
    before: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The tokenizer.json of a SentencePiece BPE model.

    `pieces` are the normal pieces with their scores; `before` are normalizer steps. A piece can be merged from any two
    pieces that form it; the merge of the piece with the higher score comes first.
    """
    usable = {piece for piece, _ in pieces}
    pairs: list[tuple[str, str]] = []
    for piece, _ in sorted(pieces, key=lambda each: -each[1]):
        cuts = ((piece[:at], piece[at:]) for at in range(1, len(piece)))
        pairs += [(a, b) for a, b in cuts if a in usable and b in usable]
    model = bpe_model(ids, pairs, unk_token=unknown, fuse_unk=True, byte_fallback=byte_fallback)
    return assemble_json(
        model,
        ids,
        added_tokens,
        metaspace_normalizer(before, add_prefix_space),
        None,
        metaspace_decoder(add_prefix_space),
    )


def sentencepiece_unigram(
    scored: Sequence[tuple[str, float]],
    unknown: int,
    added_tokens: AddedTokens,
    *,
    add_prefix_space: bool = True,
    byte_fallback: bool = False,
    before: Sequence[Mapping[str, Any]] = (),
    hidden: str | None = None,
) -> str:
    """The tokenizer.json of a SentencePiece Unigram model; `scored` are all pieces with their scores, in the order of
    ids. Decoding removes `hidden` from pieces.
    """
    model = {"type": "Unigram", "unk_id": unknown, "vocab": [list(each) for each in scored]}
    model["byte_fallback"] = byte_fallback
    ids = {piece: id for id, (piece, _) in enumerate(scored)}
    return assemble_json(
        model,
        ids,
        added_tokens,
        metaspace_normalizer(before, add_prefix_space),
        None,
        metaspace_decoder(add_prefix_space, hidden),
    )


def bert_wordpiece(
    ids: Mapping[str, int],
    added_tokens: AddedTokens,
    *,
    unknown: str = "[UNK]",
    lowercase: bool = True,
    strip_accents: bool | None = None,
    split_chinese: bool = True,
) -> str:
    """The tokenizer.json of a BERT WordPiece vocabulary."""
    model = {
        "type": "WordPiece",
        "unk_token": unknown,
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": ids,
    }
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": split_chinese,
        "strip_accents": strip_accents,
        "lowercase": lowercase,
    }
    decoder = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    return assemble_json(model, ids, added_tokens, normalizer, {"type": "BertPreTokenizer"}, decoder)


def bpe_model(ids: Mapping[str, int], merges: Sequence[tuple[str, str]], **overrides: Any) -> dict[str, Any]:
    """The "model" section of a BPE tokenizer.json, all of the library's keys included."""
    defaults = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
    }
    return {**defaults, **overrides, "vocab": ids, "merges": merges}


def metaspace_normalizer(before: Sequence[Mapping[str, Any]], add_prefix_space: bool) -> dict[str, Any] | None:
    """Normalizer that replaces spaces by ▁, and prepends one if `add_prefix_space`."""
    steps = [dict(step) for step in before]
    if add_prefix_space:
        steps.append({"type": "Prepend", "prepend": "▁"})
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})
    return {"type": "Sequence", "normalizers": steps}


COLLAPSE_SPACES: tuple[Mapping[str, Any], ...] = (
    {"type": "Replace", "pattern": {"Regex": r"\A +| +\z"}, "content": ""},
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
)
"""Normalizer steps that collapse runs of spaces and strip those at the ends."""


def metaspace_decoder(add_prefix_space: bool, hidden: str | None = None) -> dict[str, Any]:
    """Decoder that reverts `metaspace_normalizer`, and removes `hidden` from pieces."""
    steps: list[dict[str, Any]] = [
        *([] if hidden is None else [{"type": "Replace", "pattern": {"String": hidden}, "content": ""}]),
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if add_prefix_space:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


TOKEN_FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
"""Flags of an added token that is matched as it is."""


def assemble_json(
    model: Mapping[str, Any],
    ids: Mapping[str, int],
    added_tokens: AddedTokens,
    normalizer: Mapping[str, Any] | None,
    pre_tokenizer: Mapping[str, Any] | None,
    decoder: Mapping[str, Any],
) -> str:
    """The whole tokenizer.json as a string."""
    special = [token for token in added_tokens.special if token in ids]
    added = [token for token in added_tokens.added if token in ids and token not in special]
    parts = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        # In the order of ids, since the library numbers the tokens that the model lacks.
        "added_tokens": [
            {"id": ids[token], "content": token, **TOKEN_FLAGS, "special": token in special}
            for token in sorted({*special, *added}, key=lambda token: ids[token])
        ],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor(ids, added_tokens),
        "decoder": decoder,
        "model": model,
    }
    # Not indented: indenting takes Python a second for 50,000 tokens.
    return json.dumps(parts, ensure_ascii=False)


def post_processor(ids: Mapping[str, int], added_tokens: AddedTokens) -> dict[str, Any] | None:
    """Post-processor that adds `before` and `after`; None if there are no such tokens."""
    before, after = ([token for token in side if token in ids] for side in (added_tokens.before, added_tokens.after))
    if not before and not after:
        return None

    def put(kind: int, name: str) -> list[dict[str, Any]]:
        marks = [[{"SpecialToken": {"id": token, "type_id": kind}} for token in side] for side in (before, after)]
        return [*marks[0], {"Sequence": {"id": name, "type_id": kind}}, *marks[1]]

    return {
        "type": "TemplateProcessing",
        "single": put(0, "A"),
        "pair": [*put(0, "A"), *put(1, "B")],
        "special_tokens": {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in {*before, *after}},
    }
