"""GGUF tokenizers: from a file's metadata to a tokenizer and back.

tokenizer.ggml.model   gpt2   byte-level BPE: tokens, merges, and `pre`, the name of the pre-tokenizer
                       llama  SentencePiece BPE: tokens and scores
                       t5     SentencePiece Unigram: the same, and a normalization table
                       bert   WordPiece: ▁ before pieces that start a word, where vocab.txt has ## before the others
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clearstory.errors import BadInput, CannotDo, CorruptFile, UnknownName
from clearstory.text.chat_template import find_template
from clearstory.text.pretokenizers import ALIASES, PRETOKENIZERS, find_pretokenizer, pretokenizer_name
from clearstory.text.sentencepiece import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER
from clearstory.text.tokenizer_json import (
    COLLAPSE_SPACES,
    AddedTokens,
    bert_wordpiece,
    byte_level_bpe,
    sentencepiece_bpe,
    sentencepiece_unigram,
)
from clearstory.text.tokenizers import Tokenizer

PREFIX = "tokenizer.ggml"
CHAT_TEMPLATE_KEY = "tokenizer.chat_template"

SPECIAL_ID_KEYS = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "pad": "padding_token_id",
    "sep": "seperator_token_id",  # GGUF's spelling
    "cls": "cls_token_id",
    "mask": "mask_token_id",
}
"""From the names of special tokens to GGUF's keys."""

FILLER = "[PAD{id}]"
"""The text of an unused vocabulary entry: GGUF requires a text for each."""


@dataclass(frozen=True)
class GGUFVocabulary:
    """A file's tokens with their types, in the order of ids."""

    path: Path
    metadata: Mapping[str, Any]
    tokens: list[str]
    types: list[int]

    @classmethod
    def read(cls, path: Path, metadata: Mapping[str, Any]) -> GGUFVocabulary:
        """The vocabulary without unused entries at its end. Raises CorruptFile for missing lists or unequal lengths."""
        tokens = metadata.get(f"{PREFIX}.tokens")
        if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) for token in tokens):
            raise CorruptFile(f"{path} holds no {PREFIX}.tokens, a list of texts; copy it again")
        array = metadata.get(f"{PREFIX}.token_type", np.full(len(tokens), NORMAL))
        if not isinstance(array, np.ndarray) or len(array) != len(tokens):
            raise CorruptFile(
                f"{path} holds {len(tokens):,} tokens but a different number of token types; copy it again"
            )
        types = [int(type) for type in array]
        size = len(tokens)
        while size and types[size - 1] == UNUSED and tokens[size - 1] == FILLER.format(id=size - 1):
            size -= 1
        return cls(path, metadata, tokens[:size], types[:size])

    @property
    def ids(self) -> dict[str, int]:
        """Ids by token; the first id of a repeated token."""
        return {token: id for id, token in reversed(list(enumerate(self.tokens)))}

    def tokens_of_type(self, *types: int) -> list[str]:
        """The tokens of these types."""
        return [token for token, type in zip(self.tokens, self.types, strict=True) if type in types]

    def special_token(self, name: str) -> str | None:
        """The special token of this name (bos, eos ...); None if the file has none."""
        key = f"{PREFIX}.{SPECIAL_ID_KEYS[name]}"
        id = self.metadata.get(key)
        if id is None:
            return None
        if isinstance(id, bool) or not isinstance(id, int):
            raise CorruptFile(f"{self.path} has {key} = {str(id)[:40]!r}; it must be a token id")
        # Some files use an id beyond the vocabulary for none.
        return self.tokens[id] if 0 <= id < len(self.tokens) else None

    def flag(self, name: str, default: bool) -> bool:
        """A switch of the tokenizer."""
        return bool(self.metadata.get(f"{PREFIX}.{name}", default))

    def added_tokens(self, *, add_bos: bool = False, add_eos: bool = False) -> AddedTokens:
        """Special tokens, added tokens, and bos and eos around a text; the arguments are the defaults of those."""
        bos, eos = self.special_token("bos"), self.special_token("eos")
        return AddedTokens(
            special=self.tokens_of_type(CONTROL, UNKNOWN),
            added=self.tokens_of_type(USER),
            before=[bos] if bos is not None and self.flag("add_bos_token", add_bos) else [],
            after=[eos] if eos is not None and self.flag("add_eos_token", add_eos) else [],
        )

    def scores(self) -> list[tuple[str, float]]:
        """(token, score) of every token."""
        scores = self.metadata.get(f"{PREFIX}.scores")
        if not isinstance(scores, np.ndarray) or len(scores) < len(self.tokens):
            raise CorruptFile(f"{self.path} holds {len(self.tokens):,} tokens and fewer scores; copy it again")
        return [(token, float(score)) for token, score in zip(self.tokens, scores, strict=False)]


def read_gguf_tokenizer(path: Path, metadata: Mapping[str, Any]) -> Tokenizer | None:
    """The tokenizer of a file's metadata; None if it has none.

    Raises UnknownName for an unsupported model or pre-tokenizer, CorruptFile for an unusable tokenizer.
    """
    kind = metadata.get(f"{PREFIX}.model")
    if kind in (None, "no_vocab", "none"):
        return None
    if not isinstance(kind, str) or kind not in TOKENIZER_MODELS:
        raise UnknownName(
            f"{path} has a tokenizer of the model {str(kind)[:40]!r}, which is not supported; "
            f"supported: {', '.join(TOKENIZER_MODELS)}"
        )
    vocabulary = GGUFVocabulary.read(path, metadata)
    contents = TOKENIZER_MODELS[kind](vocabulary)
    special = vocabulary.special_token
    config: dict[str, Any] = {f"{name}_token": special(name) for name in ("bos", "eos", "unk", "pad")}
    config |= {f"{name}_token": special(name) for name in ("sep", "cls", "mask") if special(name)}
    if kind == "bert":
        config |= {"bos_token": config.get("cls_token"), "eos_token": config.get("sep_token")}
    template = metadata.get(CHAT_TEMPLATE_KEY)
    if isinstance(template, str):
        config["chat_template"] = template
    tokenizer = Tokenizer(contents, config)
    try:
        _ = tokenizer.vocab
    except Exception as error:  # the library raises bare Exceptions
        raise CorruptFile(f"{path} holds an unusable tokenizer ({error}); copy it again") from None
    return tokenizer


def byte_level_json(vocabulary: GGUFVocabulary) -> str:
    """The tokenizer.json of a byte-level BPE (gpt2)."""
    merges = vocabulary.metadata.get(f"{PREFIX}.merges")
    pre = vocabulary.metadata.get(f"{PREFIX}.pre")
    if not isinstance(merges, list) or not all(isinstance(merge, str) for merge in merges):
        raise CorruptFile(f"{vocabulary.path} holds no {PREFIX}.merges, a list of texts; copy it again")
    if not isinstance(pre, str):
        raise BadInput(
            f"{vocabulary.path} holds no {PREFIX}.pre, so its pre-tokenizer is unknown; convert its model again with a "
            "newer converter"
        )
    pretokenizer = find_pretokenizer(pre)
    if pretokenizer is None:
        raise UnknownName(
            f"{vocabulary.path} has the pre-tokenizer {pre[:40]!r}, which is not supported; "
            f"supported: {', '.join((*PRETOKENIZERS, *ALIASES))}"
        )
    # The first character is skipped: a token may start with the separating space.
    pairs = [(merge[:at], merge[at + 1 :]) for merge in merges if (at := merge.find(" ", 1)) > 0]
    added_tokens = vocabulary.added_tokens(add_bos=pretokenizer.ignore_merges)
    return byte_level_bpe(vocabulary.ids, pairs, pretokenizer, added_tokens)


def sentencepiece_bpe_json(vocabulary: GGUFVocabulary) -> str:
    """The tokenizer.json of a SentencePiece BPE (llama)."""
    types = dict(zip(vocabulary.tokens, vocabulary.types, strict=True))
    normal = [(token, score) for token, score in vocabulary.scores() if types[token] == NORMAL]
    return sentencepiece_bpe(
        normal,
        vocabulary.ids,
        vocabulary.special_token("unk") or vocabulary.tokens[0],
        vocabulary.added_tokens(add_bos=True),
        add_prefix_space=vocabulary.flag("add_space_prefix", True),
        byte_fallback=BYTE in vocabulary.types,
    )


def sentencepiece_unigram_json(vocabulary: GGUFVocabulary) -> str:
    """The tokenizer.json of a SentencePiece Unigram (t5)."""
    charsmap = vocabulary.metadata.get(f"{PREFIX}.precompiled_charsmap")
    normalizers: list[Mapping[str, Any]] = []
    if isinstance(charsmap, np.ndarray) and len(charsmap):
        encoded = base64.b64encode(charsmap.astype(np.uint8).tobytes()).decode()
        normalizers.append({"type": "Precompiled", "precompiled_charsmap": encoded})
    if vocabulary.flag("remove_extra_whitespaces", False):
        normalizers += COLLAPSE_SPACES
    unknown = vocabulary.special_token("unk")
    return sentencepiece_unigram(
        vocabulary.scores(),
        0 if unknown is None else vocabulary.ids[unknown],
        vocabulary.added_tokens(add_eos=True),
        add_prefix_space=vocabulary.flag("add_space_prefix", True),
        byte_fallback=BYTE in vocabulary.types,
        before=normalizers,
    )


def wordpiece_json(vocabulary: GGUFVocabulary) -> str:
    """The tokenizer.json of a WordPiece (bert), lower-casing as in llama.cpp."""
    special = {token for name in SPECIAL_ID_KEYS if (token := vocabulary.special_token(name)) is not None}

    def to_wordpiece(token: str, type: int) -> str:
        if token in special or type in (CONTROL, UNKNOWN) or (token.startswith("[") and token.endswith("]")):
            return token
        return token.removeprefix("▁") if token.startswith("▁") else f"##{token}"

    entries = zip(vocabulary.tokens, vocabulary.types, strict=True)
    ids = {to_wordpiece(token, type): id for id, (token, type) in enumerate(entries)}
    cls, sep = vocabulary.special_token("cls"), vocabulary.special_token("sep")
    added_tokens = AddedTokens(
        special=[*special, *vocabulary.tokens_of_type(CONTROL)],
        before=[cls] if cls else [],
        after=[sep] if sep else [],
    )
    return bert_wordpiece(ids, added_tokens, unknown=vocabulary.special_token("unk") or "[UNK]")


TOKENIZER_MODELS = {
    "gpt2": byte_level_json,
    "llama": sentencepiece_bpe_json,
    "t5": sentencepiece_unigram_json,
    "bert": wordpiece_json,
}
"""From tokenizer.ggml.model to a function that makes a tokenizer.json."""


def gguf_tokenizer_fields(tokenizer: Tokenizer, vocab: int) -> dict[str, Any]:
    """The metadata of a file for a tokenizer and a model with `vocab` entries.

    Raises CannotDo for a tokenizer that GGUF cannot represent.
    """
    parts = json.loads(tokenizer.contents)
    model, added = parts["model"], {token["content"]: token for token in parts.get("added_tokens") or []}
    if model.get("type") != "BPE":
        raise CannotDo(
            f"GGUF cannot represent this tokenizer ({tokenizer.kind}); supported: byte-level BPE, SentencePiece BPE; "
            "keep the model folder"
        )
    ids = tokenizer.ids
    tokens = [FILLER.format(id=id) for id in range(vocab)]
    types = [UNUSED] * vocab
    for token, id in ids.items():
        tokens[id] = token
        types[id] = NORMAL if token not in added else CONTROL if added[token].get("special") else USER
    pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
    fields: dict[str, Any]
    if model.get("byte_fallback"):
        types = [
            BYTE if token in BYTE_PIECES and type == NORMAL else type for token, type in zip(tokens, types, strict=True)
        ]
        if (unknown := model.get("unk_token")) in ids:
            types[ids[unknown]] = UNKNOWN
        fields = {"model": "llama", "pre": "default", "scores": merge_scores(pairs, tokens, types)}
        fields["add_space_prefix"] = adds_prefix_space(parts)
    else:
        name = pretokenizer_name(parts)
        if name is None:
            raise CannotDo(
                "GGUF has no name for this tokenizer's pre-tokenizer, so llama.cpp would give other ids; "
                f"supported: {', '.join(PRETOKENIZERS)}; keep the model folder"
            )
        # Empty lists cannot be written: a merge that no text can use stands for none.
        merges = [f"{a} {b}" for a, b in pairs] or [f"{tokens[-1]} {tokens[-1]}"]
        fields = {"model": "gpt2", "pre": name, "merges": merges}
    fields |= {"tokens": tokens, "token_type": types, **special_token_fields(tokenizer)}
    out = {f"{PREFIX}.{name}": value for name, value in fields.items()}
    template = find_template(tokenizer.config)
    return out if template is None else {**out, CHAT_TEMPLATE_KEY: template}


def special_token_fields(tokenizer: Tokenizer) -> dict[str, Any]:
    """Ids of special tokens, and whether bos and eos are added to a text."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    special_ids = {"bos": bos, "eos": eos, "unk": tokenizer.unk_token_id, "pad": tokenizer.pad_token_id}
    fields: dict[str, Any] = {SPECIAL_ID_KEYS[name]: id for name, id in special_ids.items() if id is not None}
    adds_bos = bos is not None and tokenizer.post_processor_ids[:1] == (bos,)
    adds_eos = eos is not None and tokenizer.post_processor_ids[adds_bos:] == (eos,)
    return fields | {"add_bos_token": adds_bos, "add_eos_token": adds_eos}


BYTE_PIECES = frozenset(f"<0x{byte:02X}>" for byte in range(256))


def merge_scores(merges: list[Any], tokens: list[str], types: list[int]) -> list[float]:
    """Scores of all tokens that give the order of the merges: llama.cpp merges into the piece with the highest score
    first.

    Raises CannotDo if no scores give that order.
    """
    ranks: dict[str, int] = {}
    previous = ""
    for rank, (a, b) in enumerate(merges):
        if a + b in ranks and previous != a + b:
            raise CannotDo(
                f"this tokenizer merges into {a + b!r} at two ranks, which scores of SentencePiece cannot represent; "
                "keep the model folder"
            )
        previous = a + b
        ranks.setdefault(previous, rank)
    return [
        -1000.0
        if type in (CONTROL, USER)
        else 0.0
        if type in (BYTE, UNKNOWN)
        else -float(ranks.get(token, len(merges)))
        for token, type in zip(tokens, types, strict=True)
    ]


def adds_prefix_space(parts: Mapping[str, Any]) -> bool:
    """Whether a space is added before a text. Raises CannotDo for any other normalization."""
    normalizers = (parts.get("normalizer") or {}).get("normalizers") or [parts.get("normalizer")]
    types = [each.get("type") if isinstance(each, Mapping) else None for each in normalizers]
    metaspace = parts.get("pre_tokenizer") or {}
    if types == [None] and metaspace.get("type") == "Metaspace" and not metaspace.get("split", True):
        return bool(metaspace.get("prepend_scheme") != "never")
    if types not in (["Prepend", "Replace"], ["Replace"]) or parts.get("pre_tokenizer") is not None:
        raise CannotDo(
            "this tokenizer normalizes or pre-tokenizes text in a way that GGUF cannot represent; keep the model folder"
        )
    return bool(types[0] == "Prepend")
