"""Tokenizers: text to token ids and back, over a Hugging Face tokenizer.json.

Text never becomes a special token: a document that contains the characters `<|endoftext|>` gets the ids of those
characters. Only `encode_parsing_special`, which encodes rendered chat templates, turns such text into special tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from clearstory.durable import verify_folder
from clearstory.durable.paths import expand_home
from clearstory.errors import CorruptFile
from clearstory.text.array_encoding import ArrayEncoder, by_line, character_encoder
from clearstory.text.backend import HiddenSpecialTokens, build_backend, hide_special_tokens
from clearstory.text.limited_backend import call_library
from clearstory.text.segment_encoding import Ids, pattern_for, segment_encoder
from clearstory.text.tokenizer_files import TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, TOKENIZER_NAMES, read_tokenizer_files
from clearstory.text.vocabulary import Vocabulary
from clearstory.text.word_tokenizer import fast_encoder
from clearstory.text.wordpunct_tokenizer import wordpunct_encoder


@dataclass(frozen=True)
class Tokenizer(Vocabulary):
    """Encodes text to ids and decodes ids to text. Train one with `train_tokenizer`, open a saved one with
    `Tokenizer.open`.

    `contents` is a whole tokenizer.json, which alone decides the ids; `config` is a tokenizer_config.json, which names
    the special tokens (end of text, beginning of text, unknown, padding and so on).

    >>> from clearstory.text.train_tokenizer import train_tokenizer
    >>> tokenizer = train_tokenizer("bytes", [])
    >>> tokenizer.encode("Hi"), tokenizer.decode([72, 105])
    ([72, 105], 'Hi')
    """

    @classmethod
    def open(cls, path: str | Path) -> Tokenizer:
        """The tokenizer of a folder or file: tokenizer.json, GPT-2's vocab.json with merges.txt, BERT's vocab.txt,
        SentencePiece's .model or tiktoken's .tiktoken.

        Raises BadInput if there is none, CorruptFile if the file is truncated or invalid.
        """
        path = expand_home(path)
        if path.is_dir():
            verify_folder(path, only=TOKENIZER_NAMES)
        contents, config = read_tokenizer_files(path)
        tokenizer = cls(contents, config)
        try:
            _ = tokenizer._backend, tokenizer.vocab, tokenizer._special
        except CorruptFile as error:
            raise CorruptFile(f"{path} does not contain a usable {TOKENIZER_FILE}: {error}") from None
        return tokenizer

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, which `transformers.AutoTokenizer` opens."""
        from clearstory.durable import replace_files

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **self.config}
        texts = {
            TOKENIZER_FILE: self.contents,
            TOKENIZER_CONFIG_FILE: json.dumps(config, indent=2, ensure_ascii=False) + "\n",
        }
        replace_files(folder, {name: text.encode() for name, text in texts.items()})

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        if (encode := self._fast_encode) is not None:
            return call_library(lambda: encode(text), [text])
        return self.encode_plain_ids(text, add_special_tokens=False)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of several texts; see `encode_arrays`, which takes a tenth of the memory."""
        return [ids.tolist() for ids in self.encode_arrays(texts)]

    def encode_arrays(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids of several texts, each an array of `id_dtype`; see `array_encoding`.

        >>> from clearstory.text.train_tokenizer import train_tokenizer
        >>> train_tokenizer("bytes", []).encode_arrays(["Hi"])
        [array([ 72, 105], dtype=uint16)]
        """
        encode = self._encode_arrays
        if encode is None:
            return self._encode_by_library(texts)
        names = self._parsed_names
        if not names or not any(name in text for text in texts for name in names):
            return call_library(lambda: encode(texts), texts)
        return [
            (self._encode_by_library if any(name in text for name in names) else encode)([text])[0] for text in texts
        ]

    def _encode_by_library(self, texts: Sequence[str]) -> list[Ids]:
        encoded = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        spelled = [self.spells_special_token(text) for text in texts]
        return [
            np.array(self.encode(text) if again else one.ids, self.id_dtype)
            for text, one, again in zip(texts, encoded, spelled, strict=True)
        ]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a text, and the character span [start, stop) of each token.

        >>> from clearstory.text.train_tokenizer import train_tokenizer
        >>> train_tokenizer("words", ["a cat"]).encode_with_offsets(" the  cat")
        ([0, 3], [(1, 4), (6, 9)])
        """
        encoded, ids = self.encode_plain(text, add_special_tokens=False)
        return ids, encoded.offsets

    def encode_plain(self, text: str, add_special_tokens: bool) -> tuple[Any, list[int]]:
        """The encoding of a text as the library returns it, and the token ids; special tokens in text are characters.

        `add_special_tokens`: with those that the post-processor adds around a text.
        """
        backend, own_ids = self._plain_backend(text)
        encoded = backend.encode(text, add_special_tokens=add_special_tokens)
        return encoded, own_ids(encoded.ids)

    def encode_plain_ids(self, text: str, add_special_tokens: bool) -> list[int]:
        """The token ids of `encode_plain`, in less time and memory than with offsets."""
        backend, own_ids = self._plain_backend(text)
        [encoded] = backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        return own_ids(encoded.ids)

    def _plain_backend(self, text: str) -> tuple[Any, Callable[[list[int]], list[int]]]:
        """The backend to which special tokens in the text are characters, and a function that makes its ids our own."""
        if not self.spells_special_token(text):
            return self._backend, lambda ids: ids
        hidden = self.hide_special_tokens(self.special_names)
        return hidden.backend, hidden.original_ids

    def spells_special_token(self, text: str) -> bool:
        """Whether the library would find a special token in a text that it does not parse for them.

        A Unigram model does: to it, a special token of its vocabulary is a piece like others.
        """
        return self.kind == "unigram" and any(name in text for name in self.special_names)

    def hide_special_tokens(self, names: frozenset[str]) -> HiddenSpecialTokens:
        """The tokenizer with the tokens `names` renamed, so that no text spells them; computed once."""
        if names not in self._hidden:
            self._hidden[names] = hide_special_tokens(self.contents, names, self.ids)
        return self._hidden[names]

    def encode_parsing_special(self, text: str) -> list[int]:
        """Token ids of a text in which special tokens are parsed, as rendered chat templates need. Not for untrusted
        text.
        """
        ids: list[int] = self._special_backend.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, special tokens skipped; an incomplete UTF-8 sequence decodes to U+FFFD.

        Raises VocabularyMismatch for an id outside the vocabulary.
        """
        text: str = self._backend.decode(self._check_ids(ids), skip_special_tokens=True)
        return text

    def decode_bytes(self, ids: Iterable[int], *, begins: bool = True) -> bytes:
        """Exact bytes of ids, also where they end inside a UTF-8 sequence.

        `begins`: whether they are the beginning of a text, before which many tokenizers put a space.
        """
        known = self._check_ids(ids)
        if self.kind in (
            "words",
            "wordpunct",
            "wordpiece",
            "characters",
        ):  # their decoder adds characters that no token contains
            return self.decode(known).encode()
        text = b"".join(map(self._bytes_of, known))
        return text.removeprefix(b" ") if begins and self._strips_prefix_space else text

    def is_lossless(self, text: str) -> bool:
        """Whether decoding the ids of `text` gives exactly `text`."""
        return self.decode(self.encode(text)) == text

    @cached_property
    def post_processor_ids(self) -> tuple[int, ...]:
        """Special token ids that the post-processor adds around a text; see `encoding.encode_text`."""
        return tuple(self._backend.encode("", add_special_tokens=True).ids)

    @cached_property
    def eos_ends_lines(self) -> bool:
        """Whether a line feed is encoded as the token that ends a document, as word tokenizers do."""
        return self.eos_token_id is not None and self.encode("\n") == [self.eos_token_id]

    @cached_property
    def cuts_at_special_tokens(self) -> bool:
        """Whether the texts between special tokens are encoded independently of each other; False if not known."""
        return pattern_for(self._json) is not None

    @cached_property
    def _fast_encode(self) -> Callable[[str], list[int]] | None:
        """Encode function for word tokenizers, faster than the library's; None for the others."""
        return fast_encoder(self._json) or wordpunct_encoder(
            self._json, lambda line: self.encode_plain_ids(line, add_special_tokens=False)
        )

    @cached_property
    def _encode_arrays(self) -> ArrayEncoder | None:
        """Encode function for arrays that is faster than the library's; None if there is none."""
        if self._fast_encode is not None:
            return by_line(self._fast_encode, self.id_dtype)
        if (by_character := character_encoder(self._json, self.id_dtype)) is not None:
            return by_character
        pattern = None if self._backend.limited else pattern_for(self._json)
        if pattern is None:
            return None

        backend = self._backend.backend  # its failures are turned into errors once for all texts
        return segment_encoder(pattern, lambda one: backend.encode(one, add_special_tokens=False).ids, self.id_dtype)

    @cached_property
    def _parsed_names(self) -> frozenset[str]:
        """Strings that the library finds in texts as a whole; see `spells_special_token` for those of Unigram."""
        return self.added_names if self.kind == "unigram" else self.added_names - self.special_names

    @cached_property
    def _special_backend(self) -> Any:
        return build_backend(self.contents, self._json)

    @cached_property
    def _hidden(self) -> dict[frozenset[str], HiddenSpecialTokens]:
        return {}

    @cached_property
    def _strips_prefix_space(self) -> bool:
        """Whether a space is prepended before encoding and stripped after decoding, as SentencePiece does."""
        decoder = self._json.get("decoder") or {}
        return any(strips_prefix_space(step) for step in decoder.get("decoders") or [decoder])


def strips_prefix_space(decoder: Mapping[str, Any]) -> bool:
    """Whether a decoder of a tokenizer.json strips the space before a text."""
    if decoder.get("type") == "Metaspace":
        return decoder.get("prepend_scheme", "always") != "never" and decoder.get("add_prefix_space", True) is True
    return decoder.get("type") == "Strip" and bool(decoder.get("start"))
