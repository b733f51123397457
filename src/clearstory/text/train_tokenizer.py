"""Trains tokenizers: from a specification such as `bpe:8192` and text to a Tokenizer.

characters     one token per character of the text; other characters become <unk>
bytes          256 tokens, for any text in any script
words          white-space separated words, and <eos> for every line feed; lossy
wordpunct      words and punctuation marks apart, as NLTK's WordPunctTokenizer, and <eos> for every line feed; lossy
bpe:8192       byte-level BPE over all of Unicode, as GPT-2's (Sennrich et al. 2016); the default kind
wordpiece:8192 BERT's WordPiece (Devlin et al. 2019); lossy
unigram:8192   Unigram language model (Kudo 2018), over bytes
FOLDER         a saved tokenizer
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput, BadSetting, UnknownName, nearest
from clearstory.text.segment_encoding import CUT, chunks
from clearstory.text.token_bytes import BYTE_ALPHABET
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.word_tokenizer import UNKNOWN, word_level_json, words_by_frequency
from clearstory.text.wordpunct_tokenizer import wordpunct_json, wordpunct_tokens_by_frequency

END = "<|endoftext|>"
SIZE = 8192  # default vocabulary size; two seconds to train on 4 MB


def train_tokenizer(spec: str, texts: Iterable[str], *, eos: str = END, uncased: bool = False) -> Tokenizer:
    """Train a tokenizer of the kind `spec` on texts; `eos` is the end-of-document token.

    The vocabulary can be smaller than requested if the text is short; `vocab` is its size. `uncased` is for wordpiece.
    Training is deterministic, except for unigram, whose trainer does not sum in a fixed order. Raises UnknownName for
    an unknown kind, BadSetting for an invalid size, BadInput if unigram has too little text.

    >>> train_tokenizer("characters", ["banana"]).encode("nab")
    [2, 0, 1]
    """
    kind, _, size = spec.partition(":")
    if kind not in KINDS:
        if expand_home(spec).exists():
            return Tokenizer.open(spec)
        raise UnknownName(
            f"there is no tokenizer {spec!r} and no folder of that name; {nearest(kind, KINDS)}; "
            "the default kind is bpe:8192"
        )
    if uncased and kind != "wordpiece":
        raise BadSetting(f"{spec} is cased; only wordpiece can be uncased")
    if isinstance(texts, Iterator):
        texts = list(texts)  # some trainers read the text twice
    return KINDS[kind](texts, _size(spec, kind, size), eos, uncased)


def _size(spec: str, kind: str, size: str) -> int:
    """The requested vocabulary size; 0 for as many tokens as there are."""
    if ":" not in spec:
        return SIZE if kind in SIZED else 0
    if kind not in SIZED and kind not in ("words", "wordpunct"):
        raise BadSetting(f"{spec!r} gives a size, but {kind} has no size setting; write {kind}")
    if not (size.isascii() and size.isdecimal()):
        raise BadSetting(f"{spec!r} does not end in a vocabulary size; write {kind}:{SIZE}")
    count, least = int(size), SIZED.get(kind, 3)
    if not least <= count <= 1_000_000:
        raise BadSetting(f"{spec!r} has a size of {count:,} tokens; {kind} supports {least:,} to 1,000,000")
    return count


def _characters(texts: Iterable[str], size: int, eos: str, uncased: bool) -> Tokenizer:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models

    alphabet: set[str] = set()
    for text in texts:
        alphabet.update(text)
    # BPE without merges makes one token per character, five times as fast as a Split pre-tokenizer.
    vocabulary = {token: id for id, token in enumerate([*sorted(alphabet), eos, "<unk>"])}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([eos])  # not <unk>: decoded text shows it
    return _finish(backend, eos=eos, bos=eos, unk="<unk>", pad=eos)


def _bytes(texts: Iterable[str], size: int, eos: str, uncased: bool) -> Tokenizer:
    from tokenizers import models

    backend = _byte_level(models.BPE(vocab=dict(BYTE_ALPHABET), merges=[]), use_regex=False)
    backend.add_special_tokens([eos])
    return _finish(backend, eos=eos, bos=eos, pad=eos)


def _bpe(texts: Iterable[str], size: int, eos: str, uncased: bool) -> Tokenizer:
    from tokenizers import models, trainers

    backend = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[eos], initial_alphabet=sorted(BYTE_ALPHABET), show_progress=False
    )
    backend.train_from_iterator(short_texts(texts), trainer)
    return _finish(backend, eos=eos, bos=eos, pad=eos)


def _unigram(texts: Iterable[str], size: int, eos: str, uncased: bool) -> Tokenizer:
    from tokenizers import models, trainers

    # Over bytes, where sentencepiece works over characters: every text can be encoded, ▁ included.
    backend = _byte_level(models.Unigram())
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=[eos], initial_alphabet=sorted(BYTE_ALPHABET), show_progress=False
    )
    backend.train_from_iterator(short_texts(texts), trainer)
    trained_vocab = json.loads(backend.to_str())["model"]["vocab"]
    if any(score is None for _, score in trained_vocab):  # NaN in the library's JSON
        raise BadInput(f"there is too little text to train unigram:{size}; give more text, or use the tokenizer bytes")
    return _finish(backend, eos=eos, bos=eos, pad=eos)


def _words(texts: Iterable[str], size: int, eos: str, uncased: bool) -> Tokenizer:
    words = [UNKNOWN, LINE_END, *words_by_frequency(texts, LINE_END)][: size or None]
    return _word_level(word_level_json(words, LINE_END))


def _wordpunct(texts: Iterable[str], size: int, eos: str, uncased: bool) -> Tokenizer:
    words = [UNKNOWN, LINE_END, *wordpunct_tokens_by_frequency(texts, LINE_END)][: size or None]
    return _word_level(wordpunct_json(words, LINE_END))


LINE_END = "<eos>"
"""End of line, as in word-level benchmarks. It and <unk> are ordinary tokens to the library, and have the first ids;
the others are sorted by frequency for adaptive softmax."""


def _word_level(contents: str) -> Tokenizer:
    # Explicit None: otherwise a word <s> or <pad> of the text would be taken for bos or pad.
    none = {"bos_token": None, "pad_token": None}
    return Tokenizer(contents, {"eos_token": LINE_END, "unk_token": UNKNOWN, **none})


def _wordpiece(texts: Iterable[str], size: int, eos: str, uncased: bool) -> Tokenizer:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=uncased, strip_accents=uncased)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    alphabet: set[str] = set()
    for text in short_texts(texts):
        alphabet.update(backend.normalizer.normalize_str(text))
    letters = sorted(letter for letter in alphabet if not letter.isspace())
    # Given in sorted order: the trainer would number them in hash order, and differ from run to run.
    stated = [*special, *letters, *(f"##{letter}" for letter in letters)]
    trainer = trainers.WordPieceTrainer(vocab_size=max(size, len(stated)), special_tokens=stated, show_progress=False)
    backend.train_from_iterator(short_texts(texts), trainer)
    whole = Backend(models.WordPiece(vocab=backend.get_vocab(), unk_token="[UNK]"))
    whole.normalizer, whole.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    whole.decoder = decoders.WordPiece()
    whole.add_special_tokens(special)
    marks = [(token, whole.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    whole.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=marks
    )
    roles = {"eos": "[SEP]", "bos": "[CLS]", "unk": "[UNK]", "pad": "[PAD]"}
    made = _finish(whole, **roles, cls="[CLS]", sep="[SEP]", mask="[MASK]")
    # So that transformers returns token_type_ids.
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return replace(made, config={**made.config, "model_input_names": inputs})


def short_texts(texts: Iterable[str]) -> Iterator[str]:
    """The texts in parts that begin where every pre-tokenizer cuts: the pre-tokens, and so the merges, are the same.

    The trainer needs a hundred bytes for each character of the texts that it has at hand, and takes 1.5 times as long
    for long ones.
    """
    for text in texts:
        yield from chunks(text, CUT, TRAINING_CHARACTERS)


TRAINING_CHARACTERS = 2000


KINDS: dict[str, Callable[[Iterable[str], int, str, bool], Tokenizer]] = {
    "characters": _characters,
    "bytes": _bytes,
    "words": _words,
    "wordpunct": _wordpunct,
    "bpe": _bpe,
    "wordpiece": _wordpiece,
    "unigram": _unigram,
}

SIZED = {"bpe": 257, "wordpiece": 6, "unigram": 257}  # kinds with a size, and the smallest vocabulary of each


def _byte_level(model: Any, use_regex: bool = True) -> Any:
    """A byte-level tokenizer with GPT-2's alphabet and regular expression."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, pre_tokenizers

    backend = Backend(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    backend.decoder = decoders.ByteLevel()
    return backend


def _finish(backend: Any, **roles: str) -> Tokenizer:
    """The Tokenizer with its special tokens named as in tokenizer_config.json."""
    config = {f"{role}_token": token for role, token in roles.items()}
    contents: str = backend.to_str(pretty=True)
    return Tokenizer(json.dumps(json.loads(contents), ensure_ascii=False, indent=1), config)
