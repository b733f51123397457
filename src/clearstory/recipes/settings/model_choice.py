"""ModelChoice: a preset and changed fields of its config, as in `--model clear --model.layers 2`. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from clearstory.errors import UnknownName, nearest
from clearstory.models.config import Config
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.families import CONFIG_TYPES, PRESET_TOKENIZERS, preset
from clearstory.models.transformer.sizing import DEFAULT_PARAMETERS, clear_config
from clearstory.models.families import scale_config


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """A model preset and the fields of its config that are changed.

    Args:
        name: name of the preset.
        overrides: changed fields of its config.

    Raises UnknownName with the nearest preset or field.
    """

    name: str = "clear"
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = preset(self.name).__dataclass_fields__
        for key in self.overrides:
            if key not in known:
                raise UnknownName(f"{self.name} has no setting called 'model.{key}'; {nearest(key, known)}")

    @staticmethod
    def config_classes() -> tuple[type[Config], ...]:
        """Config classes whose fields may be overridden. `schema` recognises this type by the method."""
        return CONFIG_TYPES

    @property
    def tokenizer(self) -> str | None:
        """The tokenizer this preset is made for; None for any."""
        return PRESET_TOKENIZERS.get(self.name)

    @property
    def family(self) -> str:
        """The model family of the preset, such as "transformer"."""
        return preset(self.name).family

    @property
    def kind(self) -> str:
        """Of Transformers, which of their shapes; all others read left to right, as decoders do."""
        return str(self.overrides.get("architecture", getattr(preset(self.name), "architecture", "decoder")))

    def config(self, *, vocab: int, context: int | None = None, parameters: int | None = None) -> Any:
        """The config of a model for a tokenizer of `vocab` tokens, at about `parameters` parameters if that is given.

        What is set by hand is kept exactly; where a width is, heads and hidden follow it unless they are set as well.

        >>> ModelChoice(name="gpt2", overrides={"width": 384}).config(vocab=50_257).heads
        6
        """
        usual: Any = preset(self.name)
        if not isinstance(usual, TransformerConfig):
            base: Any = replace(usual, **{"vocab": vocab, **self.overrides})
            return base if parameters is None else scale_config(base, parameters)
        wiring = {key: value for key, value in self.overrides.items() if key not in SIZE_FIELDS}
        base = replace(usual, **{"vocab": vocab, **wiring})
        if context is not None and "context" not in self.overrides:
            base = replace(base, context=context)
        sized = not any(key in SIZE_FIELDS for key in self.overrides)
        if self.name == "clear" and (sized or parameters is not None):
            shape = clear_config(parameters or DEFAULT_PARAMETERS, vocab, base.context)
            base = replace(base, **{key: getattr(shape, key) for key in SIZE_FIELDS})
        elif parameters is not None:
            base = scale_config(base, parameters)
        return resize_config(base, {key: value for key, value in self.overrides.items() if key in SIZE_FIELDS})


SIZE_FIELDS = ("width", "layers", "heads", "kv_heads", "head_dim", "intermediate_size")
"""Fields that say how large a model is; all others say how it is wired."""


def resize_config(base: TransformerConfig, given: Mapping[str, Any]) -> TransformerConfig:
    """The config with these sizes; of the others, those that would no longer fit follow in proportion."""
    shape: dict[str, Any] = dict(given)
    width = shape.get("width", base.width)
    if "heads" in shape and "head_dim" not in shape:
        shape["head_dim"] = max(2, width // shape["heads"] // 2 * 2)
    elif ("width" in shape or "head_dim" in shape) and "heads" not in shape:
        shape["heads"] = max(1, width // shape.get("head_dim", base.head_dim))
        if "head_dim" not in shape and shape["heads"] == 1:
            shape["head_dim"] = max(2, min(base.head_dim, width // 2 * 2))
    heads = shape.get("heads", base.heads)
    if "kv_heads" not in shape:
        shared = base.heads // base.kv_heads
        shape["kv_heads"] = heads // shared if heads % shared == 0 else heads
    if "width" in shape and "intermediate_size" not in shape:
        shape["intermediate_size"] = max(8, round(base.intermediate_size * width / base.width / 8) * 8)
    return replace(base, **shape)
