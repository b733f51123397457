"""Files that tokenizers are saved in, each read as a tokenizer.json and a tokenizer_config.json.

tokenizer.json              complete; written by Clearstory and transformers
vocab.json + merges.txt     GPT-2 and Qwen; encoder.json + vocab.bpe are the original names
vocab.txt                   BERT's WordPiece vocabulary, one piece per line
*.model                     SentencePiece
*.tiktoken                  ranks of byte strings
source.spm + vocab.json     Marian, whose target.spm splits targets
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clearstory.durable import parse_json, read_file
from clearstory.errors import BadInput, CorruptFile, UnknownName
from clearstory.text.marian import SOURCE_FILE, VOCAB_FILE, read_marian
from clearstory.text.pretokenizers import PRETOKENIZERS
from clearstory.text.sentencepiece import read_sentencepiece
from clearstory.text.tiktoken import read_tiktoken
from clearstory.text.tokenizer_classes import (
    apply_tokenizer_class,
    tokenizer_class,
    with_added_tokens,
    with_bos_and_eos,
)
from clearstory.text.tokenizer_json import AddedTokens, bert_wordpiece, byte_level_bpe
from clearstory.text.tokenizer_limits import check_size

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
CONFIG_FILE = "config.json"

MARIAN_FILES = (SOURCE_FILE, VOCAB_FILE)

VOCAB_AND_MERGES = {"vocab.json": "merges.txt", "encoder.json": "vocab.bpe"}

TOKENIZER_NAMES = frozenset({TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, TEMPLATE, *VOCAB_AND_MERGES, "vocab.txt"})
"""Tokenizer files in a folder that Clearstory writes."""

PRETOKENIZER_BY_CLASS = {
    **dict.fromkeys((None, "GPT2Tokenizer", "RobertaTokenizer", "BartTokenizer"), "gpt-2"),
    "Qwen2Tokenizer": "qwen2",
}
"""GGUF's name of the pre-tokenizer, by the tokenizer class that a folder names."""

MAX_BYTES = 128 * 2**20

MAX_SENTINELS = 2**16

APPLIED_SETTINGS = frozenset(("tokenizer_class", "add_prefix_space", "legacy", "add_bos_token", "add_eos_token"))
"""Keys of tokenizer_config.json whose effect is in the tokenizer.json once it is read."""


def find_tokenizer_file(folder: Path) -> Path | None:
    """The tokenizer file of a folder, the most complete first; None if there is none."""
    if all((folder / name).is_file() for name in MARIAN_FILES) and not (folder / TOKENIZER_FILE).is_file():
        return folder / SOURCE_FILE
    whole = [folder / name for name in (TOKENIZER_FILE, *VOCAB_AND_MERGES) if (folder / name).is_file()]
    whole = [file for file in whole if file.name == TOKENIZER_FILE or (folder / VOCAB_AND_MERGES[file.name]).is_file()]
    if (folder / "vocab.txt").is_file():
        whole.append(folder / "vocab.txt")
    for ending in ("*.model", "*.tiktoken"):
        whole += sorted(folder.glob(ending))
    return whole[0] if whole else None


def read_tokenizer_files(path: Path) -> tuple[str, dict[str, Any]]:
    """tokenizer.json (as a string) and tokenizer_config.json (as a dict) of a folder or file.

    Raises BadInput if there is none, CorruptFile if it is truncated or invalid.
    """
    file = find_tokenizer_file(path) if path.is_dir() else path
    if file is None or not file.is_file():
        others = ", ".join(
            (*(f"{a} with {b}" for a, b in VOCAB_AND_MERGES.items()), "vocab.txt, a .model or a .tiktoken")
        )
        raise BadInput(
            f"{path} has no {TOKENIZER_FILE}, nor {others}; give a folder that a model or a tokenizer was saved in"
        )
    config = read_tokenizer_config(file.parent)
    model_type = read_model_type(file.parent)
    if file.name in VOCAB_AND_MERGES or file.name in VOCAB_AND_MERGES.values():
        names = next(pair for pair in VOCAB_AND_MERGES.items() if file.name in pair)
        contents, roles = read_vocab_and_merges(file.parent / names[0], file.parent / names[1], config)
    elif file.suffix == ".txt":
        contents, roles = read_vocab_txt(file, config)
    elif file.suffix == ".model":
        kind = tokenizer_class(config, model_type)
        is_t5 = kind == "T5Tokenizer" or (file.name == "spiece.model" and not kind)
        contents, roles = read_sentencepiece(file, count_sentinels(config) if is_t5 else None)
    elif file.suffix == ".spm":
        contents, roles = read_marian(file.parent, read_json(file.parent / VOCAB_FILE), config)
    elif file.suffix == ".tiktoken":
        contents, roles = read_tiktoken(file)
    else:
        contents = read_text(file)
        check_size(contents, str(file))
        return apply_tokenizer_class(contents, config, model_type), without_class(config)
    config = {**roles, **config}
    contents = with_added_tokens(contents, read_added_tokens(file.parent, config))
    contents = with_bos_and_eos(contents, config)
    return apply_tokenizer_class(contents, config, model_type), without_class(config)


def without_class(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without the class and settings that the tokenizer.json now holds: saved again, it alone decides."""
    return {key: value for key, value in config.items() if key not in APPLIED_SETTINGS}


def count_sentinels(config: Mapping[str, Any]) -> int:
    """The number of T5's sentinels <extra_id_N>, which its SentencePiece file leaves out: extra_ids, 100 by default."""
    tokens = config.get("additional_special_tokens")
    named = [token for token in tokens if "<extra_id_" in str(token)] if isinstance(tokens, list) else []
    extra = config.get("extra_ids", 100)
    if isinstance(extra, bool) or not isinstance(extra, int) or not 0 <= extra <= MAX_SENTINELS:
        raise BadInput(
            f"{TOKENIZER_CONFIG_FILE} has extra_ids = {extra!r}; it must be an integer from 0 to {MAX_SENTINELS:,}"
        )
    return len(named) or extra


def read_model_type(folder: Path) -> object:
    """The type of the model in a tokenizer's folder; None if there is none."""
    return read_json(folder / CONFIG_FILE).get("model_type") if (folder / CONFIG_FILE).is_file() else None


def read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """Contents of special_tokens_map.json (older folders), tokenizer_config.json and chat_template.jinja; later files
    win.
    """
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", TOKENIZER_CONFIG_FILE):
        if (folder / name).is_file():
            config |= read_json(folder / name)
    if (folder / TEMPLATE).is_file():
        config["chat_template"] = read_text(folder / TEMPLATE)
    return config


def read_vocab_and_merges(vocab: Path, merges: Path, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """GPT-2's two files: ids by token, and one merge per line in order."""
    if not vocab.is_file() or not merges.is_file():
        there, lacking = (vocab, merges) if vocab.is_file() else (merges, vocab)
        raise BadInput(f"{there} needs {lacking.name} in the same folder, but it is missing; download both")
    ids = read_json(vocab)
    if not ids or not all(isinstance(id, int) and id >= 0 for id in ids.values()):
        raise CorruptFile(f"{vocab} does not map tokens to ids; download it again")
    lines = [line for line in read_text(merges).split("\n") if line and not line.startswith("#version")]
    pairs = [line.split(" ") for line in lines]
    if wrong := next((line for line, pair in zip(lines, pairs, strict=True) if len(pair) != 2), None):
        raise CorruptFile(f"{merges} has the line {wrong[:40]!r}, which is not a pair of tokens; download it again")
    extra = read_added_tokens(vocab.parent, config)
    ids |= {token: id for token, (id, _) in extra.items()}
    end = [token for token in ("<|endoftext|>",) if token in ids]
    added_tokens = AddedTokens(
        special=[*end, *(token for token, (_, special) in extra.items() if special)],
        added=[token for token, (_, special) in extra.items() if not special],
    )
    kind = config.get("tokenizer_class")
    pretokenizer = PRETOKENIZER_BY_CLASS.get(kind.removesuffix("Fast") if isinstance(kind, str) else kind)
    if pretokenizer is None:
        raise UnknownName(
            f"{TOKENIZER_CONFIG_FILE} says {str(kind)[:40]!r}, whose pre-tokenizer is unknown; supported with "
            f"{vocab.name}: {', '.join(name for name in PRETOKENIZER_BY_CLASS if name)}"
        )
    return byte_level_bpe(ids, [(a, b) for a, b in pairs], PRETOKENIZERS[pretokenizer], added_tokens), {}


def read_added_tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, tuple[int, bool]]:
    """Tokens in addition to the vocabulary: for each its id, and whether it is special."""
    found: dict[str, tuple[int, bool]] = {}
    if (folder / "added_tokens.json").is_file():
        found = {token: (id, True) for token, id in read_json(folder / "added_tokens.json").items()}
    decoder = config.get("added_tokens_decoder")
    for id, token in decoder.items() if isinstance(decoder, Mapping) else ():
        if isinstance(token, Mapping) and str(id).isdecimal():
            found[str(token.get("content"))] = (int(str(id)[:9]), bool(token.get("special")))
    if wrong := next((token for token, (id, _) in found.items() if not isinstance(id, int)), None):
        raise CorruptFile(f"{folder} gives the token {wrong[:40]!r} an id that is not a number; download it again")
    return found


def read_vocab_txt(path: Path, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """BERT's vocab.txt. By default, text is lower-cased, as in transformers' BertTokenizer."""
    tokens = read_text(path).rstrip("\n").split("\n")
    ids = {token.rstrip("\r"): id for id, token in enumerate(tokens)}
    special = [token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if token in ids]
    if "[UNK]" not in ids:
        raise BadInput(f"{path} has no [UNK] token, so it is not a BERT vocabulary; give another file")
    contents = bert_wordpiece(
        ids,
        AddedTokens(special=special, before=["[CLS]"], after=["[SEP]"]),
        lowercase=bool(config.get("do_lower_case", True)),
        strip_accents=config.get("strip_accents"),
        split_chinese=bool(config.get("tokenize_chinese_chars", True)),
    )
    roles = {"unk": "[UNK]", "pad": "[PAD]", "bos": "[CLS]", "eos": "[SEP]"}
    roles |= {"cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return contents, {f"{role}_token": token if token in ids else None for role, token in roles.items()}


def read_text(path: Path) -> str:
    """A file decoded as UTF-8."""
    try:
        return read_file(path, MAX_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{path} is not UTF-8 ({error.reason} at byte {error.start:,}); download it again") from None


def read_json(file: Path) -> dict[str, Any]:
    """A file that contains a JSON object, as a dict."""
    contents = read_text(file)
    check_size(contents, str(file))
    read = parse_json(contents, file)
    if not isinstance(read, dict):
        raise CorruptFile(f"{file} contains a {type(read).__name__}, not an object; save or download it again")
    return read
