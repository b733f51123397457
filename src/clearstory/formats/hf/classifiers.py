"""Classes of transformers with a classification head: each is the backbone of another class, and a head over it.

BertForSequenceClassification     pooler, classifier          BertForTokenClassification     classifier
LlamaForSequenceClassification    score of the last token     LlamaForTokenClassification    score
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

from clearstory.errors import BadInput, BadSetting
from clearstory.formats.hf.architecture import HFArchitecture
from clearstory.formats.hf.config_keys import ExternalConfig
from clearstory.formats.hf.declared_keys import undeclared_keys, undeclared_keys_note
from clearstory.formats.hf.decoders import DECODERS
from clearstory.formats.hf.encoders import BERT_BACKBONE
from clearstory.formats.hf.label_keys import (
    LABEL_KEYS,
    label_keys,
    read_dropout,
    read_labels,
    read_problem_type,
    read_tag_scheme,
    read_threshold,
)
from clearstory.formats.hf.weight_map import Fuse, Rename, RenameTensor, WeightMap, WeightRule, Weights
from clearstory.models.head_config import ClassifierConfig, HeadPooling, ProblemType
from clearstory.models.heads import LANGUAGE_MODEL_HEADS
from clearstory.models.transformer.config import TransformerConfig

BACKBONE = "backbone."
"""Prefix of our names of a backbone's weights."""


@dataclass(frozen=True, kw_only=True)
class HFClassifier:
    """One model class of transformers with a classification head. Members as in `HFArchitecture`.

    Args:
        name: the class name.
        base: the class whose backbone it has.
        pooling: the vector of a text; None for a head that labels each token.
        head: the name of the classifier.
        dropout: its default dropout; None for the backbone's.
        ignored_weights: weights in some files that are not needed, in addition to those of `base`.
    """

    name: str
    base: HFArchitecture
    pooling: HeadPooling | None
    head: str
    dropout: float | None
    ignored_weights: tuple[str, ...] = ()

    config_type: ClassVar[type[Any]] = ClassifierConfig
    omission_note: ClassVar[str | None] = None
    duplicate_weights: Mapping[str, str] = field(default_factory=dict)

    @property
    def model_type(self) -> str:
        """Its `model_type` in config.json."""
        return self.base.model_type

    @property
    def weight_prefix(self) -> str:
        """Prefix of the backbone's weights."""
        return self.base.weight_prefix

    @property
    def extra_fields(self) -> frozenset[str]:
        """Fields of the backbone's config that are stored under `clearstory`."""
        return self.base.extra_fields

    @property
    def legacy_suffixes(self) -> Mapping[str, str]:
        """Suffixes of weight names in older files."""
        return self.base.legacy_suffixes

    @property
    def auto_class(self) -> str:
        """The Auto class of transformers that opens it."""
        return f"AutoModelFor{'Token' if self.pooling is None else 'Sequence'}Classification"

    @property
    def known_keys(self) -> frozenset[str]:
        """The keys of config.json that are read."""
        return self.base.known_keys | set(LABEL_KEYS)

    def infer_from_weights(self, config: ClassifierConfig, weights: Weights) -> ClassifierConfig:
        """The config unchanged."""
        return config

    def zero_biases(self, external: ExternalConfig) -> str | None:
        """The biases that can be missing in files."""
        return self.base.zero_biases(external)

    def ignored_keys_note(self, external: ExternalConfig) -> str | None:
        """A sentence on the keys that are ignored; None without any."""
        return undeclared_keys_note(external, undeclared_keys(external, self.known_keys))

    def config_to_native(self, external: ExternalConfig) -> ClassifierConfig:
        """Our config. Raises BadInput naming an unsupported key."""
        backbone, labels = self.base.config_to_native(external), read_labels(external)
        problem_type: ProblemType = (
            "single_label_classification" if self.pooling is None else read_problem_type(external, len(labels))
        )
        return ClassifierConfig(
            backbone=backbone,
            labels=labels,
            pooling=self.pooling,
            problem_type=problem_type,
            classifier_dropout=read_dropout(external, backbone.dropout if self.dropout is None else self.dropout),
            tag_scheme=read_tag_scheme(external) if self.pooling is None else "",
            threshold=read_threshold(external, problem_type),
        )

    def config_from_native(self, config: ClassifierConfig) -> dict[str, Any]:
        """The class's config.json, without extra fields."""
        assert isinstance(config.backbone, TransformerConfig)
        return {**self.base.config_from_native(config.backbone), "architectures": [self.name], **label_keys(config)}

    def lost_fields(self, config: ClassifierConfig) -> dict[str, Any] | None:
        """Fields of the backbone that a round trip through config.json loses; None if one of them changes a logit."""
        if not isinstance(config.backbone, TransformerConfig) or config.pooling != self.pooling:
            return None
        lost = self.base.lost_fields(config.backbone)
        if lost is None:
            return None
        try:
            back = self.config_to_native(self.config_from_native(config))
        except (BadInput, BadSetting, KeyError):
            return None
        same = (getattr(back, f.name) == getattr(config, f.name) for f in fields(config) if f.name != "backbone")
        return lost if all(same) else None

    def apply_extra(self, config: ClassifierConfig, extra: Mapping[str, Any]) -> ClassifierConfig:
        """The config with the stored extra fields of its backbone."""
        assert isinstance(config.backbone, TransformerConfig)
        return replace(config, backbone=self.base.apply_extra(config.backbone, extra))

    def weight_map(self, config: ClassifierConfig) -> WeightMap:
        """The backbone's weights without its heads, and the head's."""
        assert isinstance(config.backbone, TransformerConfig)
        of_base = self.base.weight_map(config.backbone)
        heads = [Rename("bert.pooler.dense", "pooler")] if self.pooling == "pooler" else []
        return WeightMap(
            outside=(*map_backbone(of_base.outside), *heads, Rename(self.head, "classifier")),
            per_layer=map_backbone(of_base.per_layer),
            layers=of_base.layers,
        )


def map_backbone(rules: tuple[WeightRule, ...]) -> tuple[WeightRule, ...]:
    """Rules of a model as those of a classifier's backbone; rules of its heads are left out."""
    mapped: list[WeightRule] = []
    for rule in rules:
        match rule:
            case Rename() | RenameTensor() if rule.native not in LANGUAGE_MODEL_HEADS:
                mapped.append(replace(rule, native=BACKBONE + rule.native))
            case Fuse():
                mapped.append(replace(rule, native=tuple(BACKBONE + name for name in rule.native)))
    return tuple(mapped)


def decoder_classifiers(base: HFArchitecture) -> tuple[HFClassifier, ...]:
    """The classes of a decoder with a classification head: for texts and, except for Gemma 3, for tokens."""
    stem = base.name.removesuffix("ForCausalLM").removesuffix("LMHeadModel")
    is_gemma = base.model_type == "gemma3_text"
    # An output layer that some files keep, though no head reads it.
    unused = (r"lm_head\.weight",)
    token_head = "classifier" if base.model_type == "gpt2" else "score"
    of_texts = HFClassifier(
        name=f"{stem}{'Text' * is_gemma}ForSequenceClassification",
        base=base,
        pooling="last",
        head="score",
        dropout=0.0,
        ignored_weights=(*base.ignored_weights, *unused),
    )
    of_tokens = HFClassifier(
        name=f"{stem}ForTokenClassification",
        base=base,
        pooling=None,
        head=token_head,
        dropout=0.1,
        ignored_weights=(*base.ignored_weights, *unused),
    )
    return (of_texts,) if is_gemma else (of_texts, of_tokens)


CLASSIFIERS: tuple[HFClassifier, ...] = (
    HFClassifier(
        name="BertForSequenceClassification",
        base=BERT_BACKBONE,
        pooling="pooler",
        head="classifier",
        dropout=None,
        ignored_weights=BERT_BACKBONE.ignored_weights[:1],
    ),
    HFClassifier(
        name="BertForTokenClassification",
        base=BERT_BACKBONE,
        pooling=None,
        head="classifier",
        dropout=None,
        ignored_weights=(*BERT_BACKBONE.ignored_weights[:1], r"bert\.pooler\.dense\..*"),
    ),
    *(each for base in DECODERS for each in decoder_classifiers(base)),
)
"""Supported classes, in the order in which they are tried for a config."""
