"""Vocabularies: the tokens of the ids of a tokenizer.json, and which of them are special tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from clearstory.durable import parse_json
from clearstory.errors import VocabularyMismatch
from clearstory.text.backend import build_backend
from clearstory.text.token_bytes import bytes_of_token, printable_token, token_style
from clearstory.text.tokenizer_files import TOKENIZER_FILE
from clearstory.text.tokenizer_limits import check_size
from clearstory.text.wordpunct_tokenizer import is_wordpunct

# Used if tokenizer_config.json does not name the token of a role: the first of these that is in the vocabulary.
DEFAULT_TOKENS = {
    "eos": ("<|endoftext|>", "</s>", "<eos>", "[SEP]", "<|end_of_text|>", "<|im_end|>"),
    "bos": ("<|endoftext|>", "<s>", "<bos>", "[CLS]", "<|begin_of_text|>"),
    "unk": ("<unk>", "[UNK]"),
    "pad": ("<pad>", "[PAD]"),
    "cls": ("[CLS]",),
    "sep": ("[SEP]",),
    "mask": ("[MASK]", "<mask>"),
}


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a tokenizer.json and their ids; `Tokenizer` adds what encodes and decodes."""

    contents: str = field(repr=False)
    config: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @cached_property
    def vocab(self) -> int:
        """Vocabulary size; ids run from 0 to vocab - 1."""
        return max(self.ids.values(), default=-1) + 1

    @cached_property
    def id_dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """The smaller of uint16 and uint32 that holds every id."""
        return np.dtype(np.uint16 if self.vocab <= 1 << 16 else np.uint32)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Vocabulary as a dict from token string to id."""
        ids: dict[str, int] = self._backend.get_vocab(with_added_tokens=True)
        return ids

    @cached_property
    def kind(self) -> str:
        """Kind of tokenizer: characters, bytes, words, wordpunct, bpe, wordpiece or unigram."""
        model = self._json["model"]
        if self._model_name == "WordLevel" and is_wordpunct({**self._json, "model": {**model, "type": "WordLevel"}}):
            return "wordpunct"
        name = {"WordLevel": "words", "WordPiece": "wordpiece", "Unigram": "unigram"}.get(self._model_name, "bpe")
        if name == "bpe" and not model.get("merges"):
            return "bytes" if self._style == "byte-level" else "characters"
        return name

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the tokenizer.json, equal for tokenizers that produce the same ids."""
        return hashlib.sha256(self.contents.encode()).hexdigest()

    def token_bytes(self, id: int) -> bytes:
        """Bytes of text of a single token; empty for special tokens."""
        [id] = self._check_ids([id])
        return self._bytes_of(id)

    def display_token(self, id: int) -> str:
        """Printable form of one token: ␣ for a space, ↵ for a line feed, ⇥ for a tab, <0xE3> for a byte that is not
        valid UTF-8.

        An id beyond the vocabulary, of rows that an embedding matrix has to spare, is shown as <id>.

        >>> from clearstory.text.train_tokenizer import train_tokenizer
        >>> [train_tokenizer("bytes", []).display_token(id) for id in (32, 65, 227)]
        ['␣', 'A', '<0xE3>']
        """
        if id >= self.vocab:
            return f"<{id}>"
        [id] = self._check_ids([id])
        token = self._tokens[id] or f"<{id}>"
        if id in self._special or self._style == "wordpiece":
            return token
        return printable_token(self._bytes_of(id)) or token

    @cached_property
    def byte_lengths(self) -> npt.NDArray[np.int64]:
        """Number of UTF-8 bytes of text of each id, shape (V,); 0 for special tokens.

        For a lossless tokenizer they add up to the size of the text. For tokenizers that drop white space they are only
        the bytes of their tokens.
        """
        return np.array([len(text) for text in self._bytes], dtype=np.int64)

    @cached_property
    def eos_token_id(self) -> int | None:
        """Id of the token that ends a document, or None."""
        return self._role("eos")

    @cached_property
    def bos_token_id(self) -> int | None:
        """Id of the token that begins a text, or None; for many tokenizers the same as eos_token_id."""
        return self._role("bos")

    @cached_property
    def unk_token_id(self) -> int | None:
        """Id of the token for unknown text; None if the vocabulary can encode everything."""
        spells_everything = self._style == "byte-level" or self._json["model"].get("byte_fallback")
        return None if spells_everything else self._role("unk")

    @cached_property
    def pad_token_id(self) -> int | None:
        """Id of the padding token, or None."""
        return self._role("pad")

    @cached_property
    def cls_token_id(self) -> int | None:
        """Id of the [CLS] token that an encoder reads first, or None."""
        return self._special_role("cls")

    @cached_property
    def sep_token_id(self) -> int | None:
        """Id of the [SEP] token that an encoder reads after each text, or None."""
        return self._special_role("sep")

    @cached_property
    def mask_token_id(self) -> int | None:
        """Id of the [MASK] token, or None."""
        return self._special_role("mask")

    @cached_property
    def special_names(self) -> frozenset[str]:
        """Strings of the special tokens that are not ordinary entries of the vocabulary."""
        return frozenset(token["content"] for token in self._added if token.get("special"))

    @cached_property
    def added_names(self) -> frozenset[str]:
        """Strings of all tokens that are matched in text before it is tokenized, special or not."""
        return frozenset(token["content"] for token in self._added)

    @cached_property
    def plain_added_names(self) -> frozenset[str]:
        """Strings of the added tokens that take no white space around them."""
        return frozenset(
            token["content"] for token in self._added if not token.get("lstrip") and not token.get("rstrip")
        )

    @cached_property
    def special_tokens_mask(self) -> npt.NDArray[np.bool_]:
        """True for ids of special tokens, shape (V,)."""
        marked = np.zeros(self.vocab, dtype=np.bool_)
        marked[list(self._special)] = True
        return marked

    @cached_property
    def _backend(self) -> Any:
        """The `tokenizers` object; it encodes special tokens in text as plain characters and never truncates."""
        return build_backend(self.contents, self._json, parse_special=False)

    @cached_property
    def _json(self) -> dict[str, Any]:
        check_size(self.contents, TOKENIZER_FILE)
        parts: dict[str, Any] = parse_json(self.contents, TOKENIZER_FILE)
        return parts

    @property
    def _added(self) -> list[dict[str, Any]]:
        """Added tokens in addition to the model's vocabulary. Their ids are not used: the library renumbers them."""
        return self._json.get("added_tokens") or []

    @cached_property
    def _style(self) -> Any:
        return token_style({**self._json, "model": {**self._json["model"], "type": self._model_name}})

    @cached_property
    def _model_name(self) -> str:
        return type(self._backend.model).__name__  # old files omit it

    @cached_property
    def _tokens(self) -> list[str | None]:
        tokens: list[str | None] = [None] * self.vocab
        for token, id in self.ids.items():
            tokens[id] = token
        return tokens

    @cached_property
    def _special(self) -> frozenset[int]:
        """Ids of special tokens."""
        marked = {self.ids[token["content"]] for token in self._added if token.get("special")}
        # Word and character vocabularies hold <unk> and <eos> as ordinary tokens.
        roles = (
            map(self._role, ("eos", "bos", "unk", "pad")) if self.kind in ("words", "wordpunct", "characters") else ()
        )
        return frozenset(marked.union(role for role in roles if role is not None))

    @cached_property
    def _added_ids(self) -> frozenset[int]:
        """Ids of added tokens: they are matched in the raw text, so they are stored unescaped."""
        return frozenset(self.ids[token["content"]] for token in self._added)

    @cached_property
    def _bytes(self) -> list[bytes]:
        """Bytes of text of each id."""
        return [self._bytes_of(id) for id in range(self.vocab)]

    def _bytes_of(self, id: int) -> bytes:
        """Bytes of text of an id of the vocabulary."""
        token = self._tokens[id]
        if token is None or id in self._special:
            return b""
        return bytes_of_token(token, "plain" if id in self._added_ids else self._style)

    def _role(self, role: str) -> int | None:
        if f"{role}_token" in self.config:
            token = self.config[f"{role}_token"]
            token = token.get("content") if isinstance(token, Mapping) else token
            return self.ids.get(token) if isinstance(token, str) else None
        return next((self.ids[token] for token in DEFAULT_TOKENS[role] if token in self.ids), None)

    def _special_role(self, role: str) -> int | None:
        """Id of the token of a role, if it is a special token: in a word vocabulary, [MASK] can be an ordinary word."""
        id = self._role(role)
        return id if id in self._special else None

    def _check_ids(self, ids: Iterable[int]) -> list[int]:
        known = [int(id) for id in ids]
        wrong = next((id for id in known if not 0 <= id < self.vocab), None)
        if wrong is not None:
            raise VocabularyMismatch(
                f"token id {wrong:,} is outside the tokenizer's vocabulary of {self.vocab:,}; open the tokenizer that "
                "was saved with the model"
            )
        return known
