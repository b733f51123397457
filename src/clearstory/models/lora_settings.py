"""LoRA settings. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from clearstory.errors import BadSetting


@dataclass(frozen=True, kw_only=True)
class LoRASettings:
    """Low-rank adaptation (LoRA) of a model with frozen base weights. Hu et al. 2021.

    Args:
        rank: rank of the trained matrices A and B; 0: train all weights, without LoRA.
        alpha: scale of the update; the product B A is multiplied by alpha / rank.
        targets: names of the linear layers to adapt, such as query, value, up; or patterns of full names, such as
            blocks.0.*.
        dropout: dropout rate of the input of A in training.
        modules_to_save: names of modules that are trained and stored in full, such as embedding; a classification head
            is always included.
    """

    rank: int = 0
    alpha: float = 16.0
    targets: tuple[str, ...] = ("query", "value")
    dropout: float = 0.0
    modules_to_save: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise BadSetting(f"lora.rank is {self.rank}; it must be at least 1, or 0 for none")
        if self.alpha <= 0:
            raise BadSetting(f"lora.alpha is {self.alpha:g}; it must be above 0")
        if not self.targets:
            raise BadSetting("lora.targets is empty; name the layers to adapt, such as query and value")
        if not 0 <= self.dropout < 1:
            raise BadSetting(f"lora.dropout is {self.dropout:g}; it must be at least 0 and under 1")
