"""Marian's tokenizer files: two SentencePiece models, and a separate vocabulary that both share.

source.spm   splits sources into pieces
target.spm   splits targets; decoding needs only its pieces
vocab.json   the id of each piece of either model, of </s>, <unk> and <pad>, and of language codes such as >>fra<<

A source can start with a language code. Pieces that only the target has are never matched in a source, so they are
stored with a mark that no text contains; a single character that only the target has is matched.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clearstory.errors import BadInput, CorruptFile
from clearstory.text.sentencepiece import (
    CONTROL,
    NORMAL,
    USER,
    SentencePieceModel,
    open_model,
    to_tokenizer_json,
    tokenizer_config,
)
from clearstory.text.token_bytes import HIDDEN_MARK
from clearstory.text.tokenizer_json import COLLAPSE_SPACES, AddedTokens, sentencepiece_unigram

SOURCE_FILE, TARGET_FILE, VOCAB_FILE = "source.spm", "target.spm", "vocab.json"

UNKNOWN_RUN = "\ue001"
"""Replacement for a run of characters that are not in the source vocabulary: a run is one unknown token."""

PAD = "<pad>"

MAX_LANGUAGE_CODES = 1000

MAX_KNOWN_CHARACTERS = 1000
"""Maximum number of distinct characters in a source vocabulary for which runs of unknown characters are found by a
regular expression.
"""

UNKNOWN_PENALTY = 10.0
"""Penalty of an unknown character relative to the least likely piece, as in SentencePiece."""


def read_marian(folder: Path, ids: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """tokenizer.json and tokenizer_config.json of a folder; `ids` are those of vocab.json."""
    if config.get("separate_vocabs"):
        raise BadInput(f"{folder} has separate_vocabs; supported: one vocabulary for source and target")
    if not all(isinstance(id, int) and not isinstance(id, bool) and id >= 0 for id in ids.values()):
        raise CorruptFile(f"{folder / VOCAB_FILE} does not map pieces to ids; download it again")
    for token in ("</s>", "<unk>"):
        if token not in ids:
            raise CorruptFile(f"{folder / VOCAB_FILE} has no {token}; download it again")
    size = max(ids.values()) + 1
    if size > 2 * len(ids) + 1000:
        raise CorruptFile(f"{folder / VOCAB_FILE} has {len(ids):,} tokens and the id {size - 1:,}; download it again")
    source = open_model(folder / SOURCE_FILE)
    scores = {piece: score for piece, score, kind in source.pieces if kind in (NORMAL, USER)}
    lowest = min(scores.values(), default=0.0)
    special = [token for token in ("</s>", "<unk>", "<pad>") if token in ids]
    codes = [token for token in ids if re.fullmatch(r">>[^<>]+<<", token)]
    if len(codes) > MAX_LANGUAGE_CODES:
        raise BadInput(
            f"{folder / VOCAB_FILE} has {len(codes):,} language codes; at most {MAX_LANGUAGE_CODES} are supported"
        )
    pieces = [(f"{HIDDEN_MARK}{id}", 0.0) for id in range(size)]
    for token, id in ids.items():
        if token in special or token in scores:
            pieces[id] = (token, scores.get(token, 0.0))
        elif token in codes:
            pieces[id] = (f"▁{HIDDEN_MARK}{token}", 0.0)
        elif len(token) == 1 and token != "▁":
            pieces[id] = (token, lowest - UNKNOWN_PENALTY)
        else:
            pieces[id] = (f"{HIDDEN_MARK}{token}", 0.0)
    contents = sentencepiece_unigram(
        pieces,
        ids["<unk>"],
        AddedTokens(special=special, after=["</s>"]),
        add_prefix_space=source.add_prefix_space,
        before=normalizers(source, codes, scores),
        hidden=HIDDEN_MARK,
    )
    pad = "<pad>" if "<pad>" in ids else None
    return contents, {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": pad, "bos_token": None}


def read_marian_vocabulary(path: Path) -> tuple[str, dict[str, Any]]:
    """tokenizer.json and tokenizer_config.json of the .spm file that both languages of a model share: ids are those of
    its pieces, <pad> follows them, and its end token ends each text.
    """
    model = open_model(path)
    end = tokenizer_config(model)["eos_token"]
    if end is None or any(piece == PAD for piece, _, _ in model.pieces):
        raise BadInput(
            f"{path} has {'no end token' if end is None else f'a piece {PAD}'}; Marian's vocabularies differ"
        )
    model.roles["pad"] = len(model.pieces)
    model.pieces.append((PAD, 0.0, CONTROL))
    return to_tokenizer_json(model, [end]), tokenizer_config(model)


def normalizers(source: SentencePieceModel, codes: list[str], scores: Mapping[str, float]) -> list[Mapping[str, Any]]:
    """Steps before spaces are replaced: language codes, the source's own normalization, runs of unknown characters."""
    steps: list[Mapping[str, Any]] = []
    if codes:
        names = "|".join(re.escape(code[2:-2]) for code in codes)
        steps.append(
            {"type": "Replace", "pattern": {"Regex": rf"\A>>(?=(?:{names})<<)"}, "content": f"{HIDDEN_MARK}>>"}
        )
    if source.charsmap:
        encoded = base64.b64encode(source.charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": encoded})
    if source.collapse_spaces:
        steps += COLLAPSE_SPACES
    # Letters of language codes, too: those codes are replaced first.
    known = sorted({piece for piece in (*scores, *"".join(codes)) if len(piece) == 1} - {"▁"})
    if len(known) <= MAX_KNOWN_CHARACTERS:
        allowed = "".join(f"\\x{{{ord(character):x}}}" if not character.isalnum() else character for character in known)
        pattern = f"[^ ▁{HIDDEN_MARK}{allowed}]{{2,}}"
        steps.append({"type": "Replace", "pattern": {"Regex": pattern}, "content": UNKNOWN_RUN})
    return steps
