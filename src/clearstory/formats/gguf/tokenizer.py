"""GGUF tokenizers: a file's vocabulary as a tokenizer of ours, and ours as a file's.

tokenizer.ggml.model   gpt2   byte-level BPE: tokens, merges, and `pre`, the name of how text is cut
                       llama  SentencePiece's BPE: tokens and scores
                       t5     SentencePiece's Unigram: the same, and a table that normalizes
                       bert   word pieces: ▁ before those that begin a word, where vocab.txt has ## inside
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clearstory.errors import BadInput, CannotDo, CorruptFile, UnknownName, nearest
from clearstory.text.tokenizer_json import COLLAPSE_SPACES, AddedTokens, byte_level_bpe, sentencepiece_unigram, sentencepiece_bpe, bert_wordpiece
from clearstory.text.chat_template import ChatTemplate
from clearstory.text.sentencepiece import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER
from clearstory.text.pretokenizers import ALIASES, PRETOKENIZERS, find_pretokenizer, pretokenizer_name
from clearstory.text.tokenizers import Tokenizer

KEY = "tokenizer.ggml"
TEMPLATE = "tokenizer.chat_template"

ROLES = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "pad": "padding_token_id",
    # Their spelling.
    "sep": "seperator_token_id",
    "cls": "cls_token_id",
    "mask": "mask_token_id",
}

FILLER = "[PAD{id}]"
"""A token for a row of the embedding that no token has: GGUF wants a text for each."""


@dataclass(frozen=True)
class GGUFVocabulary:
    """A file's tokens with their kinds, checked against each other."""

    path: Path
    fields: Mapping[str, Any]
    tokens: list[str]
    kinds: list[int]

    @classmethod
    def read(cls, path: Path, fields: Mapping[str, Any]) -> GGUFVocabulary:
        """Raises CorruptFile where lists differ in length or are none; unused tokens at the end are left out."""
        tokens = fields.get(f"{KEY}.tokens")
        if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) for token in tokens):
            raise CorruptFile(f"{path} holds no {KEY}.tokens, a list of texts; copy it anew")
        kinds = fields.get(f"{KEY}.token_type", np.full(len(tokens), NORMAL))
        if not isinstance(kinds, np.ndarray) or len(kinds) != len(tokens):
            raise CorruptFile(f"{path} holds {len(tokens):,} tokens and another number of kinds; copy it anew")
        said = [int(kind) for kind in kinds]
        used = len(tokens)
        while used and said[used - 1] == UNUSED and tokens[used - 1] == FILLER.format(id=used - 1):
            used -= 1
        return cls(path, fields, tokens[:used], said[:used])

    @property
    def ids(self) -> dict[str, int]:
        """Each token's id; of two alike, the first's."""
        return {token: id for id, token in reversed(list(enumerate(self.tokens)))}

    def of(self, *kinds: int) -> list[str]:
        """The tokens of these kinds."""
        return [token for token, kind in zip(self.tokens, self.kinds, strict=True) if kind in kinds]

    def role(self, role: str) -> str | None:
        """The token that plays a part."""
        id = self.fields.get(f"{KEY}.{ROLES[role]}")
        if id is None:
            return None
        if isinstance(id, bool) or not isinstance(id, int):
            raise CorruptFile(f"{self.path} says {KEY}.{ROLES[role]} is {str(id)[:40]!r}, and it must be an id")
        # Some files name an id past the vocabulary where they mean none.
        return self.tokens[id] if 0 <= id < len(self.tokens) else None

    def flag(self, name: str, default: bool) -> bool:
        """A yes or no."""
        return bool(self.fields.get(f"{KEY}.{name}", default))

    def beside(self, *, begin: bool = False, end: bool = False) -> AddedTokens:
        """Special and added tokens, and those that other tools put around a text by default."""
        before, after = self.role("bos"), self.role("eos")
        return AddedTokens(
            special=self.of(CONTROL, UNKNOWN),
            added=self.of(USER),
            before=[before] if before is not None and self.flag("add_bos_token", begin) else [],
            after=[after] if after is not None and self.flag("add_eos_token", end) else [],
        )

    def scores(self) -> list[tuple[str, float]]:
        """Every token with its score."""
        scores = self.fields.get(f"{KEY}.scores")
        if not isinstance(scores, np.ndarray) or len(scores) < len(self.tokens):
            raise CorruptFile(f"{self.path} holds {len(self.tokens):,} tokens and not as many scores; copy it anew")
        return [(token, float(score)) for token, score in zip(self.tokens, scores, strict=False)]


def read_gguf_tokenizer(path: Path, fields: Mapping[str, Any]) -> Tokenizer | None:
    """The tokenizer of a file's fields; None where it has none.

    Raises UnknownName for a kind or a way of cutting that is not here, CorruptFile for one that cannot be used.
    """
    kind = fields.get(f"{KEY}.model")
    if kind in (None, "no_vocab", "none"):
        return None
    if not isinstance(kind, str) or kind not in READERS:
        raise UnknownName(f"{path} has a tokenizer of the kind {str(kind)[:40]!r}; {nearest(str(kind), READERS)}")
    vocabulary = GGUFVocabulary.read(path, fields)
    contents = READERS[kind](vocabulary)
    config: dict[str, Any] = {f"{role}_token": vocabulary.role(role) for role in ("bos", "eos", "unk", "pad")}
    config |= {f"{role}_token": vocabulary.role(role) for role in ("sep", "cls", "mask") if vocabulary.role(role)}
    if kind == "bert":
        config |= {"bos_token": config.get("cls_token"), "eos_token": config.get("sep_token")}
    template = fields.get(TEMPLATE)
    if isinstance(template, str):
        config["chat_template"] = template
    tokenizer = Tokenizer(contents, config)
    try:
        _ = tokenizer.vocab
    except Exception as error:  # the library raises bare Exceptions
        raise CorruptFile(f"{path} holds no tokenizer that can be used ({error}); copy it anew") from None
    return tokenizer


def read_byte_pairs(vocabulary: GGUFVocabulary) -> str:
    """GPT-2's kind."""
    merges = vocabulary.fields.get(f"{KEY}.merges")
    pre = vocabulary.fields.get(f"{KEY}.pre")
    if not isinstance(merges, list) or not all(isinstance(merge, str) for merge in merges):
        raise CorruptFile(f"{vocabulary.path} holds no {KEY}.merges, a list of texts; copy it anew")
    if not isinstance(pre, str):
        raise BadInput(
            f"{vocabulary.path} holds no {KEY}.pre, so how it cuts text is unknown; convert its model anew with a "
            "newer converter"
        )
    way = find_pretokenizer(pre)
    if way is None:
        raise UnknownName(
            f"{vocabulary.path} cuts text as {pre[:40]!r}, and how that is done is unknown here; "
            f"{nearest(pre, (*PRETOKENIZERS, *ALIASES))}"
        )
    # A token may begin with the space that parts the two.
    pairs = [(merge[:at], merge[at + 1 :]) for merge in merges if (at := merge.find(" ", 1)) > 0]
    return byte_level_bpe(vocabulary.ids, pairs, way, vocabulary.beside(begin=way.ignore_merges))


def read_scored_pairs(vocabulary: GGUFVocabulary) -> str:
    """SentencePiece's BPE."""
    kinds = dict(zip(vocabulary.tokens, vocabulary.kinds, strict=True))
    usable = [(token, score) for token, score in vocabulary.scores() if kinds[token] == NORMAL]
    return sentencepiece_bpe(
        usable,
        vocabulary.ids,
        vocabulary.role("unk") or vocabulary.tokens[0],
        vocabulary.beside(begin=True),
        add_prefix_space=vocabulary.flag("add_space_prefix", True),
        byte_fallback=BYTE in vocabulary.kinds,
    )


def read_likeliest(vocabulary: GGUFVocabulary) -> str:
    """SentencePiece's Unigram."""
    table = vocabulary.fields.get(f"{KEY}.precompiled_charsmap")
    before: list[Mapping[str, Any]] = []
    if isinstance(table, np.ndarray) and len(table):
        packed = base64.b64encode(table.astype(np.uint8).tobytes()).decode()
        before.append({"type": "Precompiled", "precompiled_charsmap": packed})
    if vocabulary.flag("remove_extra_whitespaces", False):
        before += COLLAPSE_SPACES
    unknown = vocabulary.role("unk")
    return sentencepiece_unigram(
        vocabulary.scores(),
        0 if unknown is None else vocabulary.ids[unknown],
        vocabulary.beside(end=True),
        add_prefix_space=vocabulary.flag("add_space_prefix", True),
        byte_fallback=BYTE in vocabulary.kinds,
        before=before,
    )


def read_word_pieces(vocabulary: GGUFVocabulary) -> str:
    """BERT's, lower-casing as llama.cpp does."""
    special = {token for role in ROLES if (token := vocabulary.role(role)) is not None}

    def spelt(token: str, kind: int) -> str:
        if token in special or kind in (CONTROL, UNKNOWN) or (token.startswith("[") and token.endswith("]")):
            return token
        return token.removeprefix("▁") if token.startswith("▁") else f"##{token}"

    ids = {
        spelt(token, kind): id for id, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.kinds, strict=True))
    }
    before, after = vocabulary.role("cls"), vocabulary.role("sep")
    beside = AddedTokens(
        special=[*special, *vocabulary.of(CONTROL)],
        before=[before] if before else [],
        after=[after] if after else [],
    )
    return bert_wordpiece(ids, beside, unknown=vocabulary.role("unk") or "[UNK]")


READERS = {"gpt2": read_byte_pairs, "llama": read_scored_pairs, "t5": read_likeliest, "bert": read_word_pieces}
"""By tokenizer.ggml.model."""


def gguf_tokenizer_fields(tokenizer: Tokenizer, vocab: int) -> dict[str, Any]:
    """The fields of a file for a tokenizer of ours, and a model that has `vocab` rows.

    Raises CannotDo for a tokenizer that GGUF's readers cannot have.
    """
    parts = json.loads(tokenizer.contents)
    model, added = parts["model"], {token["content"]: token for token in parts.get("added_tokens") or []}
    ids = tokenizer.ids
    tokens = [FILLER.format(id=id) for id in range(vocab)]
    kinds = [UNUSED] * vocab
    for token, id in ids.items():
        tokens[id] = token
        kinds[id] = NORMAL if token not in added else CONTROL if added[token].get("special") else USER
    if model.get("type") != "BPE":
        raise CannotDo(
            f"GGUF's readers have no tokenizer like this one ({tokenizer.kind}); they have byte-level BPE and "
            "SentencePiece's BPE; keep the model as a folder"
        )
    fields: dict[str, Any] = {}
    pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
    if model.get("byte_fallback"):
        kinds = [
            BYTE if token in BYTE_PIECES and kind == NORMAL else kind for token, kind in zip(tokens, kinds, strict=True)
        ]
        if (unknown := model.get("unk_token")) in ids:
            kinds[ids[unknown]] = UNKNOWN
        fields = {"model": "llama", "pre": "default", "scores": scores_of(tokenizer, pairs, tokens, kinds)}
        fields["add_space_prefix"] = prefixed(parts)
    else:
        name = pretokenizer_name(parts)
        if name is None:
            raise CannotDo(
                "this tokenizer cuts text in a way that GGUF has no name for, so llama.cpp would make other ids; "
                f"it has {', '.join(PRETOKENIZERS)}; keep the model as a folder"
            )
        # Empty lists cannot be written; a pair that no text can spell stands for none.
        merges = [f"{a} {b}" for a, b in pairs] or [f"{tokens[-1]} {tokens[-1]}"]
        fields = {"model": "gpt2", "pre": name, "merges": merges}
    fields |= {"tokens": tokens, "token_type": kinds}
    roles = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "unk": tokenizer.unk_token_id, "pad": tokenizer.pad_token_id}
    fields |= {ROLES[role]: id for role, id in roles.items() if id is not None}
    begins = tokenizer.bos_token_id is not None and tokenizer.post_processor_ids[:1] == (tokenizer.bos_token_id,)
    ends = tokenizer.eos_token_id is not None and tokenizer.post_processor_ids[begins:] == (tokenizer.eos_token_id,)
    fields |= {"add_bos_token": begins, "add_eos_token": ends}
    out = {f"{KEY}.{name}": value for name, value in fields.items()}
    try:
        return {**out, TEMPLATE: ChatTemplate.from_tokenizer(tokenizer).source}
    except CannotDo:
        return out


BYTE_PIECES = frozenset(f"<0x{byte:02X}>" for byte in range(256))


def scores_of(tokenizer: Tokenizer, pairs: list[Any], tokens: list[str], kinds: list[int]) -> list[float]:
    """Scores that merge in the order of the pairs: llama.cpp takes the best-scored piece first.

    Raises CannotDo where the pairs are in an order that no scores give.
    """
    ranks: dict[str, int] = {}
    last = ""
    for rank, (a, b) in enumerate(pairs):
        if a + b in ranks and last != a + b:
            raise CannotDo(
                f"this tokenizer merges into {a + b!r} at two ranks, which SentencePiece's scores cannot say; "
                "keep the model as a folder"
            )
        last = a + b
        ranks.setdefault(last, rank)
    return [
        -1000.0 if kind in (CONTROL, USER) else 0.0 if kind in (BYTE, UNKNOWN) else -float(ranks.get(token, len(pairs)))
        for token, kind in zip(tokens, kinds, strict=True)
    ]


def prefixed(parts: Mapping[str, Any]) -> bool:
    """Whether a text gets a space before it. Raises CannotDo for what else may be done to it."""
    steps = (parts.get("normalizer") or {}).get("normalizers") or [parts.get("normalizer")]
    kinds = [step.get("type") if isinstance(step, Mapping) else None for step in steps]
    if kinds not in (["Prepend", "Replace"], ["Replace"]) or parts.get("pre_tokenizer") is not None:
        raise CannotDo(
            "this tokenizer changes text before it cuts it in a way that GGUF cannot say; keep the model as a folder"
        )
    return bool(kinds[0] == "Prepend")
