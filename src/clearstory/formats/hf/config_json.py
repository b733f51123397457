"""config.json: detect a folder's format, read its config, choose a format for a config."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from clearstory.durable import parse_json, read_file
from clearstory.errors import BadInput, CannotDo, CorruptFile, UnknownName
from clearstory.formats.hf.architecture import HFArchitecture
from clearstory.formats.hf.classifiers import CLASSIFIERS, HFClassifier
from clearstory.formats.hf.decoders import DECODERS
from clearstory.formats.hf.encoder_decoders import ENCODER_DECODERS
from clearstory.formats.hf.encoders import ENCODERS
from clearstory.formats.hf.weight_map import WeightMap
from clearstory.formats.native import NATIVE
from clearstory.models.baselines.config import BASELINE_CONFIGS
from clearstory.models.config import Config
from clearstory.models.families import CONFIG_TYPES
from clearstory.models.head_config import ClassifierConfig

HF_ARCHITECTURES: dict[str, HFArchitecture | HFClassifier] = {
    **{each.name: each for each in (*DECODERS, *ENCODERS, *ENCODER_DECODERS)},
    **{each.name: each for each in CLASSIFIERS},
}
"""Supported classes of transformers by name, in the order in which they are tried for a config."""

MAX_JSON_BYTES = 4 * 2**20
"""Upper bound of a config.json's size: real ones, with labels for 20,000 classes, are below 1 MiB."""

DECODER_START = "decoder_start_token_id"


class FolderFormat(Protocol):
    """The format of a model folder: a class of transformers or our native format. Members as in `HFArchitecture`."""

    @property
    def name(self) -> str: ...

    @property
    def model_type(self) -> str: ...

    @property
    def weight_prefix(self) -> str: ...

    @property
    def extra_fields(self) -> frozenset[str]: ...

    @property
    def auto_class(self) -> str: ...

    @property
    def duplicate_weights(self) -> Mapping[str, str]: ...

    @property
    def legacy_suffixes(self) -> Mapping[str, str]: ...

    @property
    def infer_from_weights(self) -> Any: ...

    @property
    def zero_biases(self) -> Any: ...

    @property
    def omission_note(self) -> str | None: ...

    @property
    def ignored_weights(self) -> tuple[str, ...]: ...

    @property
    def weight_map(self) -> Any: ...

    def config_to_native(self, external: Mapping[str, Any]) -> Any: ...

    def config_from_native(self, config: Any) -> dict[str, Any]: ...

    def ignored_keys_note(self, external: Mapping[str, Any]) -> str | None: ...

    def lost_fields(self, config: Any) -> dict[str, Any] | None: ...

    def apply_extra(self, config: Any, extra: Mapping[str, Any]) -> Any: ...


def choose_format(config: Config, hf_class: str | None = None) -> tuple[FolderFormat, dict[str, Any]]:
    """The first format that can store a config, and its extra fields. The native format stores every config.

    A model that was opened keeps its class `hf_class`, or one of the same type, if that can store it.

    >>> from clearstory.models.transformer.presets import CLEAR, NANOGPT_CHAR
    >>> choose_format(CLEAR)[0].name, choose_format(NANOGPT_CHAR)[0].name, choose_format(NANOGPT_CHAR)[1]
    ('Qwen3ForCausalLM', 'GPT2LMHeadModel', {'bias': False})
    """
    if type(config) not in (*CONFIG_TYPES, ClassifierConfig, *BASELINE_CONFIGS.values()):
        raise CannotDo(
            f"{type(config).__name__} is not a config of a model family, so its model cannot be saved; "
            f"supported: {', '.join(each.__name__ for each in CONFIG_TYPES)}"
        )
    own = HF_ARCHITECTURES.get(hf_class or "")
    # The sort is stable: first the class itself, then those of its type, then all others in their order.
    formats: list[FolderFormat] = sorted(
        (each for each in HF_ARCHITECTURES.values() if each.config_type is type(config)),
        key=lambda each: own is not None and (each is not own) + (each.model_type != own.model_type),
    )
    for each in (*formats, NATIVE):
        extra = each.lost_fields(config)
        if extra is not None:
            return each, extra
    raise AssertionError("the native format stores every config")


def weight_map_of(form: FolderFormat, config: Config) -> WeightMap:
    """The weight map of a format for one config."""
    weight_map = form.weight_map(config)
    assert isinstance(weight_map, WeightMap)
    return weight_map


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The JSON object in an untrusted file. Raises CorruptFile."""
    value = parse_json(read_file(path, max_bytes), path)
    if not isinstance(value, dict):
        raise CorruptFile(f"{path} holds a JSON {type(value).__name__}, but an object is required; copy the file again")
    return value


def read_config_json(folder: Path) -> dict[str, Any]:
    """The config.json of a folder, with what generation_config.json adds. Raises CorruptFile."""
    return add_decoder_start(read_json(folder / "config.json"), folder)


def read_native_config(form: FolderFormat, external: Mapping[str, Any]) -> tuple[Config, dict[str, Any]]:
    """The config of a config.json, and its extra fields. Raises BadInput for an unsupported setting."""
    section = external.get("clearstory")
    extra = section.get("model") if isinstance(section, dict) else None
    extra = extra if isinstance(extra, dict) else {}
    return form.apply_extra(form.config_to_native(external), extra), extra


def add_decoder_start(external: dict[str, Any], folder: Path) -> dict[str, Any]:
    """config.json with decoder_start_token_id, which some folders store in generation_config.json only."""
    path = folder / "generation_config.json"
    if external.get("is_encoder_decoder") is not True or DECODER_START in external or not path.is_file():
        return external
    generation = read_json(path)
    return {**external, DECODER_START: generation[DECODER_START]} if DECODER_START in generation else external


CLASS_ALIASES = {"T5WithLMHeadModel": "T5ForConditionalGeneration", "BertLMHeadModel": "BertForMaskedLM"}
"""Other names of supported classes: older ones, and that of BERT with the same head."""

TYPE_BY_KEYS = {"bert": {"type_vocab_size", "hidden_size"}, "gpt2": {"n_embd", "n_layer"}, "t5": {"d_kv", "d_ff"}}
"""Keys that identify the model_type of the oldest files, which have neither model_type nor architectures."""


def detect_format(external: Mapping[str, Any]) -> FolderFormat:
    """The format of a config.json: by class, or by model_type if it names no class or a bare one."""
    if external.get("model_type") == NATIVE.model_type:
        return NATIVE
    classes = external.get("architectures")
    name = classes[0] if isinstance(classes, list) and classes else None
    name = CLASS_ALIASES.get(name, name) if isinstance(name, str) else None
    if name in HF_ARCHITECTURES:
        check_model_type(HF_ARCHITECTURES[name], external.get("model_type"))
        return HF_ARCHITECTURES[name]
    by_type = {each.model_type: each for each in reversed(HF_ARCHITECTURES.values())}  # the first of each type
    model_type = external.get("model_type")
    if name is None and model_type is None:
        model_type = next((each for each, keys in TYPE_BY_KEYS.items() if keys <= external.keys()), None)
    if name is not None and name in BARE_MODELS:
        model_type = BARE_MODELS[name]
    elif name is not None:
        model_type = None
    if isinstance(model_type, str) and model_type in by_type:
        return by_type[model_type]
    if name is None and external.get("model_type") is None:
        raise BadInput("config.json has neither architectures nor model_type; is this the folder of a language model?")
    unknown = str(name or external.get("model_type"))
    raise UnknownName(f"config.json names the architecture {unknown[:60]!r}, which is not supported; {SUPPORTED}")


def check_model_type(form: HFArchitecture | HFClassifier, model_type: object) -> None:
    """Raise BadInput for the model_type of another supported class: transformers opens that one."""
    others = {each.model_type for each in HF_ARCHITECTURES.values()} - {form.model_type}
    if isinstance(model_type, str) and model_type in others:
        raise BadInput(
            f"config.json has the model_type {model_type!r} and the architecture {form.name!r}, whose model_type is "
            f"{form.model_type!r}; correct the one that is wrong"
        )


def infer_class(form: FolderFormat, external: Mapping[str, Any], names: Collection[str]) -> FolderFormat:
    """The format with the heads that the weights have, where config.json names no class; only BERT has several."""
    if external.get("architectures") or form.model_type != "bert":
        return form
    if not any(name.startswith("cls.predictions.transform.") for name in names):
        return form
    both = {"bert.pooler.dense.weight", "cls.seq_relationship.weight"} <= set(names)
    return HF_ARCHITECTURES["BertForPreTraining" if both else "BertForMaskedLM"]


def class_names(architectures: Iterable[HFArchitecture | HFClassifier]) -> str:
    """The names of classes, separated by commas."""
    return ", ".join(each.name for each in architectures)


BARE_MODELS = {
    **{f"{stem}Model": stem.lower() for stem in ("GPT2", "Llama", "Mistral", "Phi3", "Qwen3", "T5", "Marian")},
    "GPT2DoubleHeadsModel": "gpt2",
    "Gemma3TextModel": "gemma3_text",
}
"""model_type of classes without a head, and of GPT-2 with two heads, of which one is opened."""

SUPPORTED = (
    f"supported decoders: {class_names(DECODERS)}; encoders: {class_names(ENCODERS)}; "
    f"encoder-decoders: {class_names(ENCODER_DECODERS)}; with a classification head: {class_names(CLASSIFIERS)}"
)
"""The supported classes by kind, for messages: a class of a similar name is another model."""


def format_of_model(model: Any) -> tuple[FolderFormat, dict[str, Any]]:
    """The format that a model is saved in, and its extra fields: that of the folder it was opened from, if it fits."""
    return choose_format(getattr(model, "config", None), getattr(model, "hf_class", None))  # type: ignore[arg-type]  # checked there
