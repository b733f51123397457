"""Tokenizers: text to token ids and back, over a Hugging Face tokenizer.json.

Text never becomes a special token: a document that contains the characters `<|endoftext|>` gets the ids of those
characters. Only `encode_parsing_special`, which encodes rendered chat templates, turns such text into special tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clearstory.durable import parse_json, verify_folder
from clearstory.errors import CorruptFile, VocabularyMismatch
from clearstory.text.array_encoding import ArrayEncoder, by_line, character_encoder
from clearstory.text.backend import HiddenSpecialTokens, build_backend, hide_special_tokens
from clearstory.text.limited_backend import call_library
from clearstory.text.segment_encoding import Ids, pattern_for, segment_encoder
from clearstory.text.token_bytes import bytes_of_token, printable_token, token_style
from clearstory.text.tokenizer_files import TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, TOKENIZER_NAMES, read_tokenizer_files
from clearstory.text.tokenizer_limits import check_size
from clearstory.text.word_tokenizer import fast_encoder
from clearstory.text.wordpunct_tokenizer import is_wordpunct, wordpunct_encoder

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
class Tokenizer:
    """Encodes text to ids and decodes ids to text. Train one with `train_tokenizer`, open a saved one with
    `Tokenizer.open`.

    `contents` is a whole tokenizer.json, which alone decides the ids; `config` is a tokenizer_config.json, which names
    the special tokens (end of text, beginning of text, unknown, padding and so on).

    >>> from clearstory.text.train_tokenizer import train_tokenizer
    >>> tokenizer = train_tokenizer("bytes", [])
    >>> tokenizer.encode("Hi"), tokenizer.decode([72, 105])
    ([72, 105], 'Hi')
    """

    contents: str = field(repr=False)
    config: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def open(cls, path: str | Path) -> Tokenizer:
        """The tokenizer of a folder or file: tokenizer.json, GPT-2's vocab.json with merges.txt, BERT's vocab.txt,
        SentencePiece's .model or tiktoken's .tiktoken.

        Raises BadInput if there is none, CorruptFile if the file is truncated or invalid.
        """
        path = Path(path).expanduser()
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
        return self.encode_plain(text, add_special_tokens=False)[1]

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
        if self.spells_special_token(text):
            hidden = self.hide_special_tokens(self.special_names)
            encoded = hidden.backend.encode(text, add_special_tokens=add_special_tokens)
            return encoded, hidden.original_ids(encoded.ids)
        encoded = self._backend.encode(text, add_special_tokens=add_special_tokens)
        return encoded, encoded.ids

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

    def token_bytes(self, id: int) -> bytes:
        """Bytes of text of a single token; empty for special tokens."""
        [id] = self._check_ids([id])
        return self._bytes_of(id)

    def display_token(self, id: int) -> str:
        """Printable form of one token: ␣ for a space, ↵ for a line feed, ⇥ for a tab, <0xE3> for a byte that is not
        valid UTF-8.

        An id beyond the vocabulary (padded embedding rows) is shown as <id>.

        >>> from clearstory.text.train_tokenizer import train_tokenizer
        >>> [train_tokenizer("bytes", []).display_token(id) for id in (32, 65, 227)]
        ['␣', 'A', '<0xE3>']

        Models may have rows to spare behind the vocabulary; one of those is <its number>.
        """
        if id >= self.vocab:
            return f"<{id}>"
        [id] = self._check_ids([id])
        token = self._tokens[id] or f"<{id}>"
        if id in self._special or self._style == "wordpiece":
            return token
        return printable_token(self._bytes_of(id)) or token

    def is_lossless(self, text: str) -> bool:
        """Whether decoding the ids of `text` gives exactly `text`."""
        return self.decode(self.encode(text)) == text

    @cached_property
    def vocab(self) -> int:
        """Vocabulary size; ids run from 0 to vocab - 1."""
        return max(self.ids.values(), default=-1) + 1

    @cached_property
    def id_dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """The smaller of uint16 and uint32 that holds every id."""
        return np.dtype(np.uint16 if self.vocab <= 1 << 16 else np.uint32)

    @cached_property
    def byte_lengths(self) -> npt.NDArray[np.int64]:
        """Number of UTF-8 bytes of text that each id stands for, shape (V,); 0 for special tokens.

        For a lossless tokenizer they add up to the size of the text. Tokenizers that drop white space count the bytes
        of their tokens only.
        """
        return np.array([len(text) for text in self._bytes], dtype=np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the tokenizer.json, equal for tokenizers that produce the same ids."""
        return hashlib.sha256(self.contents.encode()).hexdigest()

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
    def ids(self) -> dict[str, int]:
        """Vocabulary as a dict from token string to id."""
        ids: dict[str, int] = self._backend.get_vocab(with_added_tokens=True)
        return ids

    @cached_property
    def post_processor_ids(self) -> tuple[int, ...]:
        """Special token ids that the post-processor adds around a text; see `encoding.encode_text`."""
        return tuple(self._backend.encode("", add_special_tokens=True).ids)

    @cached_property
    def eos_token_id(self) -> int | None:
        """Id of the token that ends a document, or None."""
        return self._role("eos")

    @cached_property
    def eos_ends_lines(self) -> bool:
        """Whether a line feed is encoded as the token that ends a document, as word tokenizers do."""
        return self.eos_token_id is not None and self.encode("\n") == [self.eos_token_id]

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
    def cuts_at_special_tokens(self) -> bool:
        """Whether the texts between special tokens are encoded independently of each other; False if not known."""
        return pattern_for(self._json) is not None

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
    def _fast_encode(self) -> Callable[[str], list[int]] | None:
        """Encode function for word tokenizers, faster than the library's; None for the others."""
        return fast_encoder(self._json) or wordpunct_encoder(
            self._json, lambda line: self.encode_plain(line, add_special_tokens=False)[1]
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
    def _json(self) -> dict[str, Any]:
        check_size(self.contents, TOKENIZER_FILE)
        parts: dict[str, Any] = parse_json(self.contents, TOKENIZER_FILE)
        return parts

    @property
    def _added(self) -> list[dict[str, Any]]:
        """Added tokens beside the model's vocabulary. Their stated ids are not used: the library renumbers them."""
        return self._json.get("added_tokens") or []

    @cached_property
    def _style(self) -> Any:
        return token_style({**self._json, "model": {**self._json["model"], "type": self._model_name}})

    @cached_property
    def _model_name(self) -> str:
        return type(self._backend.model).__name__  # old files omit it

    @cached_property
    def _strips_prefix_space(self) -> bool:
        """Whether a space is prepended before encoding and stripped after decoding, as SentencePiece does."""
        decoder = self._json.get("decoder") or {}
        return any(strips_prefix_space(step) for step in decoder.get("decoders") or [decoder])

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
    def _bytes(self) -> list[bytes]:
        """Bytes of text of each id."""
        return [self._bytes_of(id) for id in range(self.vocab)]

    def _bytes_of(self, id: int) -> bytes:
        """Bytes of text of an id of the vocabulary."""
        token = self._tokens[id]
        if token is None or id in self._special:
            return b""
        return bytes_of_token(token, "plain" if id in self._added_ids else self._style)

    @cached_property
    def _added_ids(self) -> frozenset[int]:
        """Ids of added tokens: they are matched in the raw text, so they are stored unescaped."""
        return frozenset(self.ids[token["content"]] for token in self._added)

    def _role(self, role: str) -> int | None:
        if f"{role}_token" in self.config:
            token = self.config[f"{role}_token"]
            token = token.get("content") if isinstance(token, Mapping) else token
            return self.ids.get(token) if isinstance(token, str) else None
        return next((self.ids[token] for token in DEFAULT_TOKENS[role] if token in self.ids), None)

    def _special_role(self, role: str) -> int | None:
        """Id of the token of a role, if it is a special token: in a word vocabulary, [MASK] may be an ordinary word."""
        id = self._role(role)
        return id if id in self._special else None

    def _check_ids(self, ids: Iterable[int]) -> list[int]:
        known = [int(id) for id in ids]
        wrong = next((id for id in known if not 0 <= id < self.vocab), None)
        if wrong is not None:
            raise VocabularyMismatch(
                f"token id {wrong:,} is outside the tokenizer's vocabulary of {self.vocab:,}; open the "
                "tokenizer saved beside the model"
            )
        return known


def strips_prefix_space(decoder: Mapping[str, Any]) -> bool:
    """Whether a decoder of a tokenizer.json strips the space before a text."""
    if decoder.get("type") == "Metaspace":
        return decoder.get("prepend_scheme", "always") != "never" and decoder.get("add_prefix_space", True) is True
    return decoder.get("type") == "Strip" and bool(decoder.get("start"))
