"""tiktoken's files: one token per line, its bytes in base64 and its rank.

Such a file does not contain the pre-tokenizer and the special tokens; they are determined by the name of the encoding.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path

from clearstory.durable import read_file
from clearstory.errors import BadInput, CorruptFile
from clearstory.text.pretokenizers import (
    BYTE_LEVEL,
    BYTE_LEVEL_NO_REGEX,
    CL100K,
    GPT4O,
    PreTokenizer,
    sequence,
    split_step,
)
from clearstory.text.token_bytes import BYTE_ALPHABET
from clearstory.text.tokenizer_json import AddedTokens, byte_level_bpe

MAX_BYTES = 64 * 2**20

MAX_TOKEN = 2048
"""Characters of a token in base64: the time to find its merge is quadratic in them."""

CHARACTERS = {byte: character for character, byte in BYTE_ALPHABET.items()}


@dataclass(frozen=True)
class TiktokenEncoding:
    """Pre-tokenizer and special tokens of an encoding."""

    pretokenizer: PreTokenizer
    special: dict[str, int]


ENCODINGS: dict[str, TiktokenEncoding] = {
    "gpt2": TiktokenEncoding(PreTokenizer(BYTE_LEVEL), {"<|endoftext|>": 50_256}),
    "r50k_base": TiktokenEncoding(PreTokenizer(BYTE_LEVEL), {"<|endoftext|>": 50_256}),
    "p50k_base": TiktokenEncoding(PreTokenizer(BYTE_LEVEL), {"<|endoftext|>": 50_256}),
    "cl100k_base": TiktokenEncoding(
        PreTokenizer(sequence(split_step(CL100K), BYTE_LEVEL_NO_REGEX), ignore_merges=True),
        {
            "<|endoftext|>": 100_257,
            "<|fim_prefix|>": 100_258,
            "<|fim_middle|>": 100_259,
            "<|fim_suffix|>": 100_260,
            "<|endofprompt|>": 100_276,
        },
    ),
    "o200k_base": TiktokenEncoding(
        PreTokenizer(sequence(split_step(GPT4O), BYTE_LEVEL_NO_REGEX), ignore_merges=True),
        {"<|endoftext|>": 199_999, "<|endofprompt|>": 200_018},
    ),
}
"""Encodings by file name, without its suffix."""


def read_tiktoken(path: Path) -> tuple[str, dict[str, str]]:
    """tokenizer.json and tokenizer_config.json of a file. Raises BadInput for an unknown encoding name."""
    encoding = ENCODINGS.get(path.stem)
    if encoding is None:
        raise BadInput(
            f"{path} does not contain its pre-tokenizer, and its name is not a known encoding; rename it to its "
            f"encoding: {', '.join(f'{name}.tiktoken' for name in ENCODINGS)}"
        )
    ranks = parse_ranks(path)
    ids = {byte_level_string(token): rank for token, rank in ranks.items()}
    merges = [(byte_level_string(a), byte_level_string(b)) for a, b in recover_merges(ranks)]
    ids |= {token: id for token, id in encoding.special.items() if token not in ids}
    end = "<|endoftext|>"
    contents = byte_level_bpe(ids, merges, encoding.pretokenizer, AddedTokens(special=list(encoding.special)))
    return contents, {"eos_token": end, "bos_token": end, "pad_token": end}


def parse_ranks(path: Path) -> dict[bytes, int]:
    """Rank of each token, as a dict from bytes to rank. Raises CorruptFile for invalid lines or missing bytes."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(read_file(path, MAX_BYTES).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            if len(token) > MAX_TOKEN:
                raise ValueError(f"a token of {len(token):,} characters")
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise CorruptFile(
                f"line {number:,} of {path} is not a token and a rank: {line[:40]!r}; download the file again"
            ) from None
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing or len(set(ranks.values())) < len(ranks):
        reason = f"has no token for the byte {missing[0]}" if missing else "has the same rank for two tokens"
        raise CorruptFile(f"{path} {reason}; download it again")
    return ranks


def recover_merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pair that each longer token is merged from, by rank: what remains of its bytes after all merges of lower
    rank.

    >>> recover_merges({b"a": 0, b"b": 1, b"ab": 2, b"abb": 3})
    [(b'a', b'b'), (b'ab', b'b')]
    """
    pairs = []
    for token, rank in sorted(ranks.items(), key=lambda each: each[1]):
        parts = [token[at : at + 1] for at in range(len(token))]
        while len(parts) > 2:
            best = min(range(len(parts) - 1), key=lambda at: ranks.get(parts[at] + parts[at + 1], rank))
            if ranks.get(parts[best] + parts[best + 1], rank) >= rank:
                break
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        if len(parts) == 2:
            pairs.append((parts[0], parts[1]))
    return pairs


def byte_level_string(token: bytes) -> str:
    """Bytes in GPT-2's printable alphabet."""
    return "".join(CHARACTERS[byte] for byte in token)
