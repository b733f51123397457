"""adapter_config.json of peft: read as untrusted input, and written so that peft opens it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from clearstory.errors import BadInput
from clearstory.formats.hf.config_json import read_json

CONFIG = "adapter_config.json"

MAX_RANK = 2**16

MAX_PATTERNS, MAX_EXPRESSION, MAX_REPEATS = 4096, 1000, 3
"""Upper bounds of a rank or alpha pattern: its entries, the length of one, and its repetitions."""

IGNORED_ADAPTER_KEYS = {
    *("auto_mapping", "peft_version", "revision", "inference_mode", "fan_in_fan_out"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),  # the tensors' names repeat them
    *("megatron_core", "qalora_group_size", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
}
"""Keys that change no output by themselves: they matter only together with a key that is rejected."""

SUPPORTED_ADAPTER_KEYS = {
    *("peft_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "bias", "use_rslora"),
    *("rank_pattern", "alpha_pattern", "init_lora_weights", "use_dora", "modules_to_save"),
    "task_type",
}

SUPPORTED_INIT = (None, True, False, "gaussian", "orthogonal", "eva")
"""Supported values of init_lora_weights. All others change the base weights, which an adapter does not store."""


@dataclass(frozen=True)
class AdapterConfig:
    """The settings of a LoRA adapter.

    Args:
        base: the path of the base model, as written in the file.
        r: the rank of every layer without a pattern.
        lora_alpha: alpha of every layer without a pattern.
        rslora: scale by alpha / √r (Kalajdzievski 2023) instead of alpha / r.
        dropout: dropout probability of the adapter's input during training.
        ranks: ranks by the regular expression of layer names, or of their last components.
        alphas: alphas by the same.
        dora: whether the length of each row of a merged matrix is learned (Liu et al. 2024).
        saved: names of modules that are stored in full.
        task_type: task of the adapted model, such as CAUSAL_LM or SEQ_CLS.
    """

    base: str
    r: int
    lora_alpha: float
    rslora: bool
    dropout: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    dora: bool = False
    saved: tuple[str, ...] = ()
    task_type: str | None = None

    def rank(self, layer: str) -> int:
        """The rank of one layer, named as in transformers."""
        return next((rank for pattern, rank in self.ranks.items() if matches_pattern(layer, pattern)), self.r)

    def alpha(self, layer: str) -> float:
        """The alpha of one layer for a scale of alpha / rank, rsLoRA included."""
        alphas = (alpha for pattern, alpha in self.alphas.items() if matches_pattern(layer, pattern))
        alpha = next(alphas, self.lora_alpha)
        return alpha * math.sqrt(self.rank(layer)) if self.rslora else alpha


def matches_pattern(layer: str, pattern: str) -> bool:
    r"""Whether a regular expression matches a dotted name, or its last components, as in peft.

    >>> matches_pattern("model.layers.11.mlp.up_proj", r"layers\.1\d\..*"), matches_pattern("a.q_proj", "proj")
    (True, False)
    """
    return re.match(rf"(.*\.)?({pattern})$", layer) is not None


def has_suffix(layer: str, suffix: str) -> bool:
    """Whether the last components of a dotted name are `suffix`.

    >>> has_suffix("model.layers.0.mlp.c_proj", "mlp.c_proj"), has_suffix("model.layers.0.mlp.c_proj", "proj")
    (True, False)
    """
    return layer == suffix or layer.endswith(f".{suffix}")


def read_adapter_config(folder: Path) -> AdapterConfig:
    """The adapter_config.json of a folder. Raises BadInput naming an unsupported key."""
    values = read_json(folder / CONFIG)
    if values.get("peft_type") != "LORA":
        reject_key("peft_type", values.get("peft_type"), "supported: 'LORA'")
    if values.get("bias", "none") != "none":
        reject_key("bias", values["bias"], "supported: 'none'; " + MERGE)
    if values.get("init_lora_weights") not in SUPPORTED_INIT:
        reject_key("init_lora_weights", values["init_lora_weights"], "it also changes the base weights; " + MERGE)
    for key, value in values.items():
        ignored = key in SUPPORTED_ADAPTER_KEYS or key in IGNORED_ADAPTER_KEYS
        if not ignored and value not in (None, False, [], {}, ""):
            reject_key(key, value, "supported: LoRA of linear layers without further settings; " + MERGE)
    base = values.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise BadInput(f"{folder / CONFIG} names no base model; set base_model_name_or_path to its folder")
    saved = values.get("modules_to_save") or []
    if not isinstance(saved, list) or not all(isinstance(name, str) for name in saved):
        reject_key("modules_to_save", saved, "it must be a list of names")
    ranks, alphas = read_pattern(values, "rank_pattern"), read_pattern(values, "alpha_pattern")
    return AdapterConfig(
        base=base,
        r=check_rank("r", values.get("r", 8)),
        lora_alpha=check_number("lora_alpha", values.get("lora_alpha", 8)),
        rslora=values.get("use_rslora") is True,
        dropout=check_number("lora_dropout", values.get("lora_dropout", 0.0), maximum=0.999),
        ranks={suffix: check_rank(f"rank_pattern.{suffix}", each) for suffix, each in ranks.items()},
        alphas={suffix: check_number(f"alpha_pattern.{suffix}", each) for suffix, each in alphas.items()},
        dora=values.get("use_dora") is True,
        saved=tuple(saved),
        task_type=values["task_type"] if isinstance(values.get("task_type"), str) else None,
    )


MERGE = 'merge it once: peft.PeftModel.from_pretrained(BASE, ADAPTER).merge_and_unload().save_pretrained("NEW")'


def reject_key(key: str, value: object, reason: str) -> NoReturn:
    """Raise BadInput for a key with an unsupported value."""
    raise BadInput(f"{CONFIG} has {key} = {repr(value)[:60]}; {reason}")


def check_rank(key: str, value: object) -> int:
    """The value, a rank within its bounds. Raises BadInput."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_RANK:
        reject_key(key, value, f"it must be an integer from 1 to {MAX_RANK:,}")
    return value


def check_number(key: str, value: object, maximum: float = 1e6) -> float:
    """The value, a number from 0 to `maximum`. Raises BadInput."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= maximum:
        reject_key(key, value, f"it must be a number from 0 to {maximum:,g}")
    return float(value)


def read_pattern(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A rank or alpha pattern: values by regular expression, each of which can be matched in a short time."""
    pattern = values.get(key) or {}
    if not isinstance(pattern, dict) or len(pattern) > MAX_PATTERNS:
        reject_key(key, pattern, f"it must be an object of at most {MAX_PATTERNS:,} layer names")
    for expression in pattern:
        # A repeated group, or many repetitions, could take for ever on an untrusted file.
        repeats = len(re.findall(r"[*+{]", expression))
        if len(expression) > MAX_EXPRESSION or repeats > MAX_REPEATS or re.search(r"\)[*+{]|\\[1-9]|\(\?", expression):
            reject_key(
                key, expression, f"supported: regular expressions of up to {MAX_REPEATS} * or +, none after a group"
            )
        try:
            re.compile(expression)
        except (re.error, OverflowError, RecursionError) as error:
            reject_key(key, expression, f"it is not a regular expression ({error})")
    return pattern


def adapter_config_dict(
    adapters: Mapping[str, tuple[int, float]],
    others: Collection[str],
    *,
    base: str,
    dropout: float,
    transposed: bool,
    task_type: str | None,
    saved: Sequence[str] = (),
) -> dict[str, Any]:
    """The contents of adapter_config.json.

    Args:
        adapters: (rank, alpha) of each adapted layer, named as in transformers.
        others: the layers of the base model that are not adapted.
        base: the path of the base model.
        dropout: dropout probability.
        transposed: whether the layers are Conv1D.
        task_type: peft's task type.
        saved: names of modules that are stored whole.

    >>> config = adapter_config_dict({"h.0.attn.c_attn": (6, 12.0), "h.0.attn.c_proj": (2, 4.0)}, ["h.0.mlp.c_proj"],
    ...                              base="b", dropout=0.0, transposed=True, task_type="CAUSAL_LM")
    >>> config["target_modules"], config["r"], config["rank_pattern"]
    (['attn.c_proj', 'c_attn'], 6, {'attn.c_proj': 2})
    """
    default, _ = Counter(adapters.values()).most_common(1)[0]
    different = {layer: [other for other, each in adapters.items() if each != adapters[layer]] for layer in adapters}
    exceptions = {
        shortest_suffix(layer, [*others, *different[layer]]): each
        for layer, each in adapters.items()
        if each != default
    }
    return {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": default[0],
        "lora_alpha": as_number(default[1]),
        "lora_dropout": dropout,
        "use_rslora": False,
        "bias": "none",
        "fan_in_fan_out": transposed,
        "init_lora_weights": True,
        "modules_to_save": list(saved) or None,
        "target_modules": sorted({shortest_suffix(layer, others) for layer in adapters}),
        "rank_pattern": {suffix: each[0] for suffix, each in exceptions.items() if each[0] != default[0]},
        "alpha_pattern": {suffix: as_number(each[1]) for suffix, each in exceptions.items() if each[1] != default[1]},
    }


def shortest_suffix(layer: str, others: Collection[str]) -> str:
    """The shortest suffix of a dotted name that none of the others has."""
    components = layer.split(".")
    for length in range(1, len(components)):
        suffix = ".".join(components[-length:])
        if not any(has_suffix(other, suffix) for other in others):
            return suffix
    return layer


def as_number(value: float) -> float:
    """An int if the value is whole, as peft writes alpha."""
    return int(value) if value == int(value) else value
