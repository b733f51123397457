"""adapter_config.json: what peft says of a LoRA adapter, read without trust and written so that peft opens it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from clearstory.errors import BadInput
from clearstory.formats.hf.config_json import read_json

CONFIG = "adapter_config.json"

MOST_RANK = 2**16

METADATA_KEYS = {
    *("auto_mapping", "peft_version", "revision", "inference_mode", "task_type", "fan_in_fan_out"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),  # the tensors say it again
    *("megatron_core", "qalora_group_size", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
}
"""Keys that change no number, or only together with one that is refused."""

READ = {
    *("peft_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "bias", "use_rslora"),
    *("rank_pattern", "alpha_pattern", "init_lora_weights"),
}

BEGINNINGS = (None, True, False, "gaussian", "orthogonal", "eva")
"""How A and B may have begun. All others change the base as well, which no adapter carries."""


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter is.

    Args:
        base: the folder of the model it was made for, as its file says.
        r: the rank of every map without a pattern.
        lora_alpha: its alpha.
        rslora: whether products are scaled by alpha / √r (Kalajdzievski 2023), not by alpha / r.
        dropout: share of what goes into A that was dropped in training.
        ranks: ranks of maps by the end of their names.
        alphas: alphas likewise.
    """

    base: str
    r: int
    lora_alpha: float
    rslora: bool
    dropout: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]

    def rank(self, place: str) -> int:
        """The rank of one of their maps."""
        return next((rank for end, rank in self.ranks.items() if ends(place, end)), self.r)

    def alpha(self, place: str) -> float:
        """What its product is multiplied by, times its rank."""
        alpha = next((alpha for end, alpha in self.alphas.items() if ends(place, end)), self.lora_alpha)
        return alpha * math.sqrt(self.rank(place)) if self.rslora else alpha


def ends(place: str, end: str) -> bool:
    """Whether a name ends with whole words.

    >>> ends("model.layers.0.mlp.c_proj", "mlp.c_proj"), ends("model.layers.0.mlp.c_proj", "proj")
    (True, False)
    """
    return place == end or place.endswith(f".{end}")


def read_adapter_config(folder: Path) -> AdapterConfig:
    """The adapter_config.json of a folder. Raises BadInput naming what this house cannot honour."""
    said = read_json(folder / CONFIG)
    if said.get("peft_type") != "LORA":
        refuse("peft_type", said.get("peft_type"), "this house opens LoRA adapters ('LORA')")
    if said.get("bias", "none") != "none":
        refuse("bias", said["bias"], "this house adapts linear maps and leaves biases at rest ('none'); " + MERGE)
    if said.get("init_lora_weights") not in BEGINNINGS:
        refuse("init_lora_weights", said["init_lora_weights"], "it changes the base too; " + MERGE)
    for key, value in said.items():
        if key not in READ and key not in METADATA_KEYS and value not in (None, False, [], {}, ""):
            refuse(key, value, "this house adapts by plain LoRA, A and B beside linear maps; " + MERGE)
    base = said.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise BadInput(f"{folder / CONFIG} names no base; put its folder under base_model_name_or_path")
    return AdapterConfig(
        base=base,
        r=rank("r", said.get("r", 8)),
        lora_alpha=number("lora_alpha", said.get("lora_alpha", 8)),
        rslora=said.get("use_rslora") is True,
        dropout=number("lora_dropout", said.get("lora_dropout", 0.0), most=0.999),
        ranks={end: rank(f"rank_pattern.{end}", each) for end, each in pattern(said, "rank_pattern").items()},
        alphas={end: number(f"alpha_pattern.{end}", each) for end, each in pattern(said, "alpha_pattern").items()},
    )


MERGE = 'merge it once: peft.PeftModel.from_pretrained(BASE, ADAPTER).merge_and_unload().save_pretrained("NEW")'


def refuse(key: str, value: object, have: str) -> NoReturn:
    """The one sentence for a key whose value cannot be honoured."""
    raise BadInput(f"{CONFIG} asks for {key} = {repr(value)[:60]}; {have}")


def rank(key: str, value: object) -> int:
    """A whole number within its bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_RANK:
        refuse(key, value, f"it must be a whole number from 1 to {MOST_RANK:,}")
    return value


def number(key: str, value: object, most: float = 1e6) -> float:
    """A number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
        refuse(key, value, f"it must be a number from 0 to {most:,g}")
    return float(value)


def pattern(said: Mapping[str, Any], key: str) -> dict[str, Any]:
    """What differs from map to map. Regular expressions from strangers are not run: names and ends of names only."""
    found = said.get(key) or {}
    if not isinstance(found, dict):
        refuse(key, found, "it must be an object of names")
    for end in found:
        if not all(word.replace("_", "").isalnum() for word in end.split(".")):
            refuse(key, end, "this house reads names of maps and ends of such names, no regular expressions")
    return found


def describe(
    pairs: Mapping[str, tuple[int, float]],
    others: Collection[str],
    *,
    base: str,
    dropout: float,
    transposed: bool,
    task: str | None,
) -> dict[str, Any]:
    """adapter_config.json of maps with their (rank, alpha); `others` are maps of the base that are not adapted.

    >>> said = describe({"h.0.attn.c_attn": (6, 12.0), "h.0.attn.c_proj": (2, 4.0)}, ["h.0.mlp.c_proj"], base="b",
    ...                 dropout=0.0, turned=True, task="CAUSAL_LM")
    >>> said["target_modules"], said["r"], said["rank_pattern"]
    (['attn.c_proj', 'c_attn'], 6, {'attn.c_proj': 2})
    """
    usual, _ = Counter(pairs.values()).most_common(1)[0]
    same = {place: [other for other, each in pairs.items() if each != pairs[place]] for place in pairs}
    odd = {shortest(place, [*others, *same[place]]): each for place, each in pairs.items() if each != usual}
    return {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": usual[0],
        "lora_alpha": bare(usual[1]),
        "lora_dropout": dropout,
        "use_rslora": False,
        "bias": "none",
        "fan_in_fan_out": transposed,
        "init_lora_weights": True,
        "target_modules": sorted({shortest(place, others) for place in pairs}),
        "rank_pattern": {end: each[0] for end, each in odd.items() if each[0] != usual[0]},
        "alpha_pattern": {end: bare(each[1]) for end, each in odd.items() if each[1] != usual[1]},
    }


def shortest(place: str, others: Collection[str]) -> str:
    """The shortest end of a name that none of the others has."""
    words = place.split(".")
    for count in range(1, len(words)):
        end = ".".join(words[-count:])
        if not any(ends(other, end) for other in others):
            return end
    return place


def bare(value: float) -> float:
    """Without a fraction where it has none: peft's own are whole."""
    return int(value) if value == int(value) else value
