"""Pre-tokenizers of byte-level BPE tokenizers, under the names that GGUF uses.

Each is a normalizer and a pre-tokenizer as in tokenizer.json. Names are mapped to components and back; others are
refused in both directions, since a wrong pre-tokenizer silently produces wrong ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
"""GPT-2's pre-tokenizer: its regular expression, then a printable character for each byte."""

BYTE_LEVEL_NO_REGEX = {**BYTE_LEVEL, "use_regex": False}

# Regular expressions of the published tokenizer.json files.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# But for one + after {1,3}, which the library's regular expressions would take for "again and again".
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)


def split_step(pattern: str) -> dict[str, Any]:
    """A Split step that isolates the matches of `pattern`."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def sequence(*steps: Mapping[str, Any]) -> dict[str, Any]:
    """A Sequence of pre-tokenizer steps."""
    return {"type": "Sequence", "pretokenizers": [dict(step) for step in steps]}


@dataclass(frozen=True)
class PreTokenizer:
    """A pre-tokenizer. `ignore_merges`: a piece that is in the vocabulary is one token, regardless of merges."""

    pre_tokenizer: Mapping[str, Any]
    normalizer: Mapping[str, Any] | None = None
    ignore_merges: bool = False


PRETOKENIZERS: dict[str, PreTokenizer] = {
    "gpt-2": PreTokenizer(BYTE_LEVEL),
    "llama-bpe": PreTokenizer(sequence(split_step(LLAMA3), BYTE_LEVEL_NO_REGEX), ignore_merges=True),
    "dbrx": PreTokenizer(sequence(split_step(LLAMA3), BYTE_LEVEL_NO_REGEX)),
    "qwen2": PreTokenizer(sequence(split_step(QWEN2), BYTE_LEVEL_NO_REGEX), normalizer={"type": "NFC"}),
    "stablelm2": PreTokenizer(sequence(split_step(QWEN2), BYTE_LEVEL_NO_REGEX)),
    "gpt-4o": PreTokenizer(sequence(split_step(GPT4O), BYTE_LEVEL_NO_REGEX)),
    "smollm": PreTokenizer(sequence({"type": "Digits", "individual_digits": True}, BYTE_LEVEL)),
    "falcon": PreTokenizer(
        sequence(
            {"type": "Punctuation", "behavior": "Contiguous"},
            BYTE_LEVEL,
            {"type": "Digits", "individual_digits": False},
            split_step("[0-9][0-9][0-9]"),
        )
    ),
}

ALIASES = {
    **dict.fromkeys(("mpt", "olmo", "jais", "phi-2", "exaone4", "roberta-bpe", "modern-bert", "trillion"), "gpt-2"),
    **dict.fromkeys(("llama3", "llama-v3", "falcon3", "pixtral", "lfm2", "glm4"), "llama-bpe"),
    **dict.fromkeys(("smaug-bpe", "chatglm-bpe"), "dbrx"),
    **dict.fromkeys(("deepseek-r1-qwen", "megrez", "hunyuan"), "qwen2"),
    **dict.fromkeys(("starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), "smollm"),
    **dict.fromkeys(("llama4", "kanana2"), "gpt-4o"),
}
"""Other names of the same pre-tokenizers."""


def find_pretokenizer(name: str) -> PreTokenizer | None:
    """The pre-tokenizer of a GGUF name, or None.

    >>> find_pretokenizer("mpt") == find_pretokenizer("gpt-2"), find_pretokenizer("unknown")
    (True, None)
    """
    return PRETOKENIZERS.get(ALIASES.get(name, name))


def pretokenizer_name(parts: Mapping[str, Any]) -> str | None:
    """GGUF's name of the pre-tokenizer of a tokenizer.json, or None if it has none.

    >>> pretokenizer_name({"pre_tokenizer": BYTE_LEVEL, "normalizer": None, "model": {}})
    'gpt-2'
    """
    model = parts["model"]
    for name, pretokenizer in PRETOKENIZERS.items():
        if (
            is_equivalent(parts.get("pre_tokenizer"), pretokenizer.pre_tokenizer)
            and is_equivalent(parts.get("normalizer"), pretokenizer.normalizer)
            and bool(model.get("ignore_merges")) == pretokenizer.ignore_merges
        ):
            return name
    # Without merges, pre-tokenization does not matter.
    pre = parts.get("pre_tokenizer")
    only_bytes = isinstance(pre, Mapping) and pre.get("type") == "ByteLevel" and not pre.get("add_prefix_space")
    return "gpt-2" if only_bytes and not model.get("merges") and parts.get("normalizer") is None else None


def is_equivalent(one: Any, other: Any) -> bool:
    """Whether two components produce the same ids: trimmed offsets, or a Sequence of one step, make no difference."""
    return bool(canonical(one) == canonical(other))


def canonical(part: Any) -> Any:
    """A component without what does not change ids."""
    if isinstance(part, list):
        return [canonical(each) for each in part]
    if not isinstance(part, Mapping):
        return part
    for steps in ("pretokenizers", "normalizers"):
        if part.get("type") == "Sequence" and isinstance(part.get(steps), list) and len(part[steps]) == 1:
            return canonical(part[steps][0])
    return {key: canonical(value) for key, value in part.items() if key != "trim_offsets"}


KNOWN_PATTERNS: frozenset[str] = frozenset(
    {LLAMA3, QWEN2, GPT4O, CL100K, "[0-9][0-9][0-9]", " {2,}", r"\A +| +\z", r"\s+", " "}
)
"""Regular expressions of published and of our tokenizers that take linear time."""
