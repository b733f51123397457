"""Tokenizers: text to ids and back, over a Hugging Face tokenizer.json.

Text is never read as a command: a document that spells `<|endoftext|>` gets the tokens of those characters, not the
special token. Only `encode_parsing_special`, for chat templates, reads special tokens out of text.
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

from clearstory.errors import CorruptFile, VocabularyMismatch
from clearstory.text.token_bytes import bytes_of_token, printable_token, token_style
from clearstory.text.tokenizer_files import TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, read_tokenizer_files
from clearstory.text.word_tokenizer import fast_encoder

# Where a folder does not say which token plays a part, the first of these that the vocabulary knows does.
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
    """Turns text into ids and ids into text. Learn one with `learn`, or open a saved one with `Tokenizer.open`.

    `contents` is a whole tokenizer.json, which says everything about ids; `config` is a tokenizer_config.json, which
    says which tokens end a text, begin it, and stand for the unknown.

    >>> from clearstory.text.train_tokenizer import train_tokenizer
    >>> tokenizer = train_tokenizer("bytes", [])
    >>> tokenizer.encode("Hi"), tokenizer.decode([72, 105])
    ([72, 105], 'Hi')
    """

    contents: str = field(repr=False)
    config: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def open(cls, path: str | Path) -> Tokenizer:
        """The tokenizer of a folder or a file: tokenizer.json, GPT-2's vocab.json with merges.txt, BERT's vocab.txt,
        SentencePiece's .model or tiktoken's .tiktoken.

        Raises BadInput where there is none, CorruptFile where it is cut off or is none.
        """
        path = Path(path).expanduser()
        contents, config = read_tokenizer_files(path)
        tokenizer = cls(contents, config)
        try:
            _ = tokenizer._backend
        except Exception as error:  # the library raises bare Exceptions
            raise CorruptFile(f"{path} holds no {TOKENIZER_FILE} that can be used ({error}); save or fetch it again") from None
        return tokenizer

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, as `transformers.AutoTokenizer` opens them."""
        from clearstory.durable import write_bytes

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **self.config}
        write_bytes(folder / TOKENIZER_FILE, self.contents.encode())
        write_bytes(folder / TOKENIZER_CONFIG_FILE, (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without any special tokens around or inside it."""
        if self._fast_encode is not None:
            return self._fast_encode(text)
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of several texts, on all cores unless TOKENIZERS_PARALLELISM=false."""
        if self._fast_encode is not None:
            return [self._fast_encode(text) for text in texts]
        encoded = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [one.ids for one in encoded]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of a text, and the characters start:stop of it that each was made from.

        >>> from clearstory.text.train_tokenizer import train_tokenizer
        >>> train_tokenizer("words", ["a cat"]).encode_with_offsets(" the  cat")
        ([0, 3], [(1, 4), (6, 9)])
        """
        encoded = self._backend.encode(text, add_special_tokens=False)
        return encoded.ids, encoded.offsets

    def encode_parsing_special(self, text: str) -> list[int]:
        """The ids of a text in which special tokens are spelt out, as chat templates do. Not for text of others."""
        ids: list[int] = self._special_backend.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, special tokens left out; bytes that are no character yet show as U+FFFD.

        Raises VocabularyMismatch for an id that no token has.
        """
        text: str = self._backend.decode(self._check_ids(ids), skip_special_tokens=True)
        return text

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of ids, exactly, also where they end within a character."""
        known = self._check_ids(ids)
        if self.kind in ("words", "wordpiece", "characters"):  # there the decoder adds what no token holds
            return self.decode(known).encode()
        text = b"".join(self._bytes[id] for id in known)
        return text.removeprefix(b" ") if self._strips_prefix_space else text

    def token_bytes(self, id: int) -> bytes:
        """The bytes of text that one token stands for by itself; none for special tokens."""
        [id] = self._check_ids([id])
        return self._bytes[id]

    def display_token(self, id: int) -> str:
        """One token for people to read: ␣ a space, ↵ a line feed, ⇥ a tab, <0xE3> a byte of a character.

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
        return printable_token(self._bytes[id]) or token

    def is_lossless(self, text: str) -> bool:
        """Whether decoding gives back exactly this text."""
        return self.decode(self.encode(text)) == text

    @cached_property
    def vocab(self) -> int:
        """Ids run from 0 to below this."""
        return max(self.ids.values(), default=-1) + 1

    @cached_property
    def byte_lengths(self) -> npt.NDArray[np.int64]:
        """How many bytes of text each id stands for, shape (V,); special tokens stand for none.

        Over the ids of a text these add up to its size in UTF-8, if the tokenizer is lossless. Tokenizers that throw
        white space away count the bytes of the pieces only.
        """
        return np.array([len(text) for text in self._bytes], dtype=np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the tokenizer.json: equal for tokenizers that make the same ids."""
        return hashlib.sha256(self.contents.encode()).hexdigest()

    @cached_property
    def kind(self) -> str:
        """characters, bytes, words, bpe, wordpiece or unigram."""
        model = self._json["model"]
        name = {"WordLevel": "words", "WordPiece": "wordpiece", "Unigram": "unigram"}.get(self._model_name, "bpe")
        if name == "bpe" and not model.get("merges"):
            return "bytes" if self._style == "byte-level" else "characters"
        return name

    @cached_property
    def ids(self) -> dict[str, int]:
        """Each token, as the vocabulary writes it, with its id."""
        ids: dict[str, int] = self._backend.get_vocab(with_added_tokens=True)
        return ids

    @cached_property
    def post_processor_ids(self) -> tuple[int, ...]:
        """What other tools put around a text by default; here only `encode_parsing_special` spells special tokens."""
        return tuple(self._backend.encode("", add_special_tokens=True).ids)

    @cached_property
    def eos_token_id(self) -> int | None:
        """The token that ends a document."""
        return self._role("eos")

    @cached_property
    def bos_token_id(self) -> int | None:
        """The token that begins a text; for many tokenizers the one that ends the text before."""
        return self._role("bos")

    @cached_property
    def unk_token_id(self) -> int | None:
        """The token for what the vocabulary cannot spell; none where it can spell everything."""
        spells_everything = self._style == "byte-level" or self._json["model"].get("byte_fallback")
        return None if spells_everything else self._role("unk")

    @cached_property
    def pad_token_id(self) -> int | None:
        """The token that fills rows, where there is one."""
        return self._role("pad")

    @cached_property
    def cls_token_id(self) -> int | None:
        """The token before every text that an encoder reads, whose vector stands for the whole."""
        return self._special_role("cls")

    @cached_property
    def sep_token_id(self) -> int | None:
        """The token behind each of the texts that an encoder reads together."""
        return self._special_role("sep")

    @cached_property
    def mask_token_id(self) -> int | None:
        """The token that hides another."""
        return self._special_role("mask")

    @cached_property
    def special_tokens_mask(self) -> npt.NDArray[np.bool_]:
        """Which ids stand for no text of their own, (V,)."""
        marked = np.zeros(self.vocab, dtype=np.bool_)
        marked[list(self._special)] = True
        return marked

    @cached_property
    def _backend(self) -> Any:
        """The library's tokenizer; it reads special tokens in text as plain characters, and never cuts text off."""
        backend = _build(self.contents)
        backend.encode_special_tokens = True  # their name for: encode them like any text
        return backend

    @cached_property
    def _fast_encode(self) -> Callable[[str], list[int]] | None:
        """Words are cut and looked up faster here than there."""
        return fast_encoder(self._json)

    @cached_property
    def _special_backend(self) -> Any:
        return _build(self.contents)

    @cached_property
    def _json(self) -> dict[str, Any]:
        parts: dict[str, Any] = json.loads(self.contents)
        return parts

    @property
    def _added(self) -> list[dict[str, Any]]:
        """Tokens beside the model's own. The ids they state are not asked: the library numbers them anew."""
        return self._json.get("added_tokens") or []

    @cached_property
    def _style(self) -> Any:
        return token_style({**self._json, "model": {**self._json["model"], "type": self._model_name}})

    @cached_property
    def _model_name(self) -> str:
        return type(self._backend.model).__name__  # old files do not state it

    @cached_property
    def _strips_prefix_space(self) -> bool:
        """Whether a space is put before every text and taken away again, as SentencePiece does."""
        steps = (self._json.get("decoder") or {}).get("decoders") or []
        return any(step.get("type") == "Strip" and step.get("start") for step in steps)

    @cached_property
    def _tokens(self) -> list[str | None]:
        tokens: list[str | None] = [None] * self.vocab
        for token, id in self.ids.items():
            tokens[id] = token
        return tokens

    @cached_property
    def _special(self) -> frozenset[int]:
        """Ids that stand for no text of their own."""
        marked = {self.ids[token["content"]] for token in self._added if token.get("special")}
        # Words and characters keep <unk> and <eos> among their ordinary tokens.
        roles = map(self._role, ("eos", "bos", "unk", "pad")) if self.kind in ("words", "characters") else ()
        return frozenset(marked.union(role for role in roles if role is not None))

    @cached_property
    def _bytes(self) -> list[bytes]:
        """The text of each id, as bytes."""
        # Added tokens are matched in the text itself, so they are written as they are.
        added = {self.ids[token["content"]] for token in self._added}
        return [
            b"" if token is None or id in self._special else bytes_of_token(token, "plain" if id in added else self._style)
            for id, token in enumerate(self._tokens)
        ]

    def _role(self, role: str) -> int | None:
        if f"{role}_token" in self.config:
            token = self.config[f"{role}_token"]
            token = token.get("content") if isinstance(token, Mapping) else token
            return self.ids.get(token) if token else None
        return next((self.ids[token] for token in DEFAULT_TOKENS[role] if token in self.ids), None)

    def _special_role(self, role: str) -> int | None:
        """A role that only a special token plays: in a text of words, [MASK] may be one of them."""
        id = self._role(role)
        return id if id in self._special else None

    def _check_ids(self, ids: Iterable[int]) -> list[int]:
        known = [int(id) for id in ids]
        wrong = next((id for id in known if not 0 <= id < self.vocab), None)
        if wrong is not None:
            raise VocabularyMismatch(
                f"there is no token {wrong:,} in a tokenizer of {self.vocab:,}; open the one saved beside the model"
            )
        return known


def _build(contents: str) -> Any:
    from tokenizers import Tokenizer as Backend

    backend = Backend.from_str(contents)
    # Sentence encoders ship these switched on; text would be cut off without a word.
    backend.no_truncation()
    backend.no_padding()
    return backend
