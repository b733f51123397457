"""ModelChoice: a preset and changed fields of its config, as in `--model clear --model.layers 2`. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from clearstory.errors import BadSetting, UnknownName, nearest
from clearstory.models.config import Config
from clearstory.models.families import CONFIG_TYPES, PRESET_TOKENIZERS, family_of, preset, scale_config
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.presets import MAX_VOCAB_OF_HASHED_LOGITS, RECALL_SUBWORDS
from clearstory.models.transformer.sizing import DEFAULT_PARAMETERS, clear_config


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
        fields = preset(self.name).__dataclass_fields__
        known = [name for name, each in fields.items() if not each.metadata.get("derived")]
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
    def architecture(self) -> str:
        """The architecture of a Transformer: decoder, encoder or encoder-decoder; decoder for all other families."""
        return str(self.overrides.get("architecture", preset(self.name).architecture))

    def config(self, *, vocab: int, context: int | None = None, parameters: int | None = None) -> Any:
        """The config of a model for a tokenizer of `vocab` tokens, scaled to about `parameters` where given.

        Overrides are kept exactly. Where the width is overridden, heads and intermediate_size are scaled with it unless
        they are overridden as well.

        >>> ModelChoice(name="gpt2", overrides={"width": 384}).config(vocab=50_257).heads
        6
        """
        config = self.preset_config(vocab)
        if config.family == "mixture":
            return self.mixture_config(replace(config, **{"vocab": vocab, **self.overrides}), context, parameters)
        if config.family != "transformer":
            base: Any = replace(config, **{"vocab": vocab, **self.overrides})
            return base if parameters is None else scale_config(base, parameters)
        other_fields = {key: value for key, value in self.overrides.items() if key not in SIZE_FIELDS}
        base = replace(config, **{"vocab": vocab, **other_fields})
        if context is not None and "context" not in self.overrides:
            base = replace(base, context=context)
        default_size = not any(key in SIZE_FIELDS for key in self.overrides)
        if self.is_sized_as_clear(vocab) and (default_size or parameters is not None):
            shape = clear_config(parameters or DEFAULT_PARAMETERS, vocab, base.context)
            base = replace(base, **{key: getattr(shape, key) for key in SIZE_FIELDS})
        elif parameters is not None:
            base = scale_config(base, parameters)
        return resize_config(base, {key: value for key, value in self.overrides.items() if key in SIZE_FIELDS})

    def preset_config(self, vocab: int) -> Any:
        """The config of the preset; at large vocabularies that of `recall` for subwords."""
        is_recall = self.name == "recall" and vocab > MAX_VOCAB_OF_HASHED_LOGITS
        return RECALL_SUBWORDS if is_recall else preset(self.name)

    def is_sized_as_clear(self, vocab: int) -> bool:
        """Whether the network is `clear`'s, whose size follows from the number of parameters or the time limit.

        >>> [ModelChoice(name="recall").is_sized_as_clear(vocab) for vocab in (67, 4096)]
        [False, True]
        """
        return self.name == "clear" or self.preset_config(vocab) is RECALL_SUBWORDS

    def mixture_config(self, config: Any, context: int | None, parameters: int | None) -> Any:
        """The config of a mixture with those of its experts; `parameters` is the size of each network."""
        configs = []
        for name in config.experts:
            expert: Any = preset(name)
            overrides = {"dropout": config.dropout} if config.dropout and hasattr(expert, "dropout") else {}
            scaled = parameters if family_of(expert).scale is not None else None
            choice = ModelChoice(name=name, overrides=overrides)
            configs.append(choice.config(vocab=config.vocab, context=context, parameters=scaled))
        return replace(config, configs=tuple(configs))


SIZE_FIELDS = ("width", "layers", "heads", "kv_heads", "head_dim", "intermediate_size")
"""Config fields that set the size of a Transformer."""


def resize_config(base: TransformerConfig, sizes: Mapping[str, Any]) -> TransformerConfig:
    """The config with these sizes; sizes that are not given and no longer fit are scaled in proportion."""
    shape: dict[str, Any] = dict(sizes)
    for key, value in shape.items():
        if value < 1:
            raise BadSetting(f"model.{key} is {value:,}; it must be at least 1")
    width = shape.get("width", base.width)
    if "heads" in shape and "head_dim" not in shape:
        shape["head_dim"] = max(2, width // shape["heads"] // 2 * 2)
    elif ("width" in shape or "head_dim" in shape) and "heads" not in shape:
        shape["heads"] = max(1, width // shape.get("head_dim", base.head_dim))
        if "head_dim" not in shape and shape["heads"] == 1:
            shape["head_dim"] = max(2, min(base.head_dim, width // 2 * 2))
    heads = shape.get("heads", base.heads)
    if "kv_heads" not in shape:
        group_size = base.heads // base.kv_heads
        shape["kv_heads"] = heads // group_size if heads % group_size == 0 else heads
    if "width" in shape and "intermediate_size" not in shape:
        shape["intermediate_size"] = max(8, round(base.intermediate_size * width / base.width / 8) * 8)
    return replace(base, **shape)
