"""Open and save models: `open_model` opens every supported format, `save_model` writes a folder that transformers
opens too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clearstory.durable import (
    json_text,
    listed_files,
    replace_files,
    verify_folder,
    write_folder,
    write_json,
    write_text,
)
from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput, CannotDo, ModelWarning, VocabularyMismatch
from clearstory.formats.finite import check_finite_to_save
from clearstory.formats.generation_json import (
    GENERATION_FILE,
    default_generation_config,
    generation_json_dict,
    read_generation_config,
    special_token_ids,
)
from clearstory.formats.hf.config_json import (
    FolderFormat,
    detect_format,
    format_of_model,
    read_json,
    weight_map_of,
)
from clearstory.formats.hf.load_weights import load_model, state_to_store, stored_config, verify_saved
from clearstory.formats.hf.safetensors_io import SHARD_BYTES, write_weights
from clearstory.formats.model_card import PIPELINES, TEXT_GENERATION, ModelCard, read_card, readme
from clearstory.formats.model_path import is_marian_bin, marian_files, resolve_model_path
from clearstory.formats.native import NATIVE, native_pipeline
from clearstory.formats.output_folder import check_writable
from clearstory.formats.sentence_folder import SentencePipeline
from clearstory.models.base import TokenBatch
from clearstory.models.build import count_parameters
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.config import Config
from clearstory.models.generation_config import GenerationConfig
from clearstory.models.lora import lora_layers
from clearstory.text.tokenizer_files import find_tokenizer_file
from clearstory.text.tokenizers import Tokenizer

Cast = Callable[[Tensor], Tensor]

RESUME_FILES = ("optimizer.safetensors", "state.json")
"""Files of a checkpoint that are not read when it is opened as a model."""

DESCRIPTIONS = ("README.md",)
"""Files for people: a change is noted, and no reason not to open a folder."""


@dataclass(frozen=True)
class OpenedModel:
    """A model with its tokenizer and its model card.

    Args:
        model: the model, an `nn.Module` and a `LanguageModel`.
        tokenizer: its tokenizer; None if none is stored with the model.
        card: its model card.
        note: a sentence on parts of the file that were ignored, or None.
        generation_config: end tokens and generation defaults of the model.
        folder: the model folder or adapter from which it was read; None for a file.
    """

    model: Any
    tokenizer: Tokenizer | None
    card: ModelCard
    note: str | None = None
    generation_config: GenerationConfig = field(default_factory=GenerationConfig)
    folder: Path | None = None

    @torch.no_grad()
    def logits(
        self, ids: Sequence[Sequence[int]] | Tensor, source: Sequence[Sequence[int]] | None = None
    ) -> Float[Tensor, "B T V"]:
        """Logits of the next token after each token of `ids`, sequences of equal length.

        An encoder-decoder needs one sequence of `source` ids, of any length, for each sequence of `ids`. Raises
        BadInput for sequences of unequal length, VocabularyMismatch for ids outside the vocabulary, CannotDo if a
        source is missing.
        """
        batch = stack_ids(ids)
        if batch.numel() and int(batch.min()) < 0:
            raise VocabularyMismatch(f"token id {int(batch.min())} is negative; ids start at 0")
        device = next((each.device for each in (*self.model.parameters(), *self.model.buffers())), batch.device)
        options = {} if source is None else {"source": TokenBatch.from_sequences(source, device)}
        hidden, _ = self.model.forward(TokenBatch(batch.to(device)), **options)
        logits: Tensor = self.model.logits(hidden)
        return logits


def stack_ids(ids: Sequence[Any] | Tensor) -> Int[Tensor, "B T"]:
    """Sequences of token ids of equal length as one tensor. Raises BadInput."""
    if not isinstance(ids, Tensor):
        if any(isinstance(sequence, int) for sequence in ids):
            raise BadInput("ids must be a list of sequences; put a single sequence into a list: [[1, 2, 3]]")
        lengths = sorted({len(sequence) for sequence in ids})
        if len(lengths) > 1:
            raise BadInput(
                f"ids have sequences of {lengths[0]} and {lengths[-1]} tokens; all must have the same length"
            )
        ids = torch.tensor([list(sequence) for sequence in ids], dtype=torch.long)
    if ids.ndim != 2 or ids.shape[1] == 0 or ids.dtype.is_floating_point or ids.dtype == torch.bool:
        raise BadInput(f"ids have shape {list(ids.shape)} and dtype {ids.dtype}; integers of shape (B, T) are required")
    return ids.long()


def save_model(
    folder: Path | str,
    model: nn.Module,
    tokenizer: Tokenizer | None,
    card: ModelCard,
    *,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
    generation_config: GenerationConfig | None = None,
    sentence: SentencePipeline | None = None,
) -> Path:
    """Write a model folder that this library and, if a class fits, transformers open. Returns the folder.

    It is written under a temporary name, read back, compared bit for bit and then renamed. Raises FolderExists unless
    `overwrite`, VocabularyMismatch for a tokenizer with more tokens than the model, Diverged for weights that are not
    finite, OutOfSpace, and CannotDo for a model of an unknown family or with unmerged adapters.
    """
    folder = expand_home(folder)
    check_writable(folder, overwrite)
    if lora_layers(model):
        raise CannotDo("this model has LoRA adapters; merge them and save the model, or save only the adapters")
    config: Any = getattr(model, "config", None)
    form, extra = format_of_model(model)
    check_tokenizer(model, tokenizer)
    card = replace(card, parameters=count_parameters(model))
    state = state_to_store(model, config, extra)
    check_finite_to_save(state.items(), config)
    weight_map = weight_map_of(form, stored_config(config, extra))
    plan = list(weight_map.from_native({name: tensor.to("meta") for name, tensor in state.items()}))
    size = sum(tensor.numel() * tensor.element_size() for _, tensor in plan)
    with write_folder(folder, need=size) as temporary:
        write_config_files(temporary, form, config, extra, model, tokenizer, card, generation_config)
        write_text(temporary / "README.md", model_readme(card, form, read_json(temporary / "config.json")))
        if tokenizer is not None:
            stored = with_max_length(tokenizer, config.context)
            (stored if sentence is None else with_pad_token(stored)).save(temporary)
        if sentence is not None:
            sentence.save(temporary)
        write_weights(temporary, plan, weight_map.from_native(state), shard_bytes)
        verify_saved(temporary, model, config)
    return folder


def with_max_length(tokenizer: Tokenizer, context: int | None) -> Tokenizer:
    """The tokenizer with `model_max_length`, to which transformers truncates: at most the context."""
    known = tokenizer.config.get("model_max_length")
    length = context if isinstance(known, bool) or not isinstance(known, int) else min(known, context or known)
    return replace(tokenizer, config={**tokenizer.config, **({} if length is None else {"model_max_length": length})})


def with_pad_token(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with a padding token, without which sentence-transformers refuses batches: that of the end of a
    text, if it has no other.
    """
    end = tokenizer.config.get("eos_token")
    if tokenizer.config.get("pad_token") is not None or end is None:
        return tokenizer
    return replace(tokenizer, config={**tokenizer.config, "pad_token": end})


def write_config_files(
    folder: Path,
    form: FolderFormat,
    config: Config,
    extra: dict[str, Any],
    model: nn.Module,
    tokenizer: Tokenizer | None,
    card: ModelCard,
    generation_config: GenerationConfig | None = None,
) -> None:
    """Write config.json, and generation_config.json for models that generate text."""
    write_json(folder / "config.json", config_json_dict(form, config, extra, model, tokenizer, card))
    if has_capability(model, Capability.CAUSAL):
        write_json(folder / GENERATION_FILE, generation_json_dict(config, tokenizer, generation_config))


def model_readme(card: ModelCard, form: FolderFormat, external: Mapping[str, Any]) -> str:
    """The text of README.md of a folder with this config.json."""
    if form is NATIVE:
        return readme(card, None, native_pipeline(external))
    return readme(card, form.name, PIPELINES.get(form.auto_class, TEXT_GENERATION), form.auto_class)


def update_model_card(folder: Path | str, card: ModelCard) -> None:
    """Replace the model card of a saved model or adapter; its weights are unchanged."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        from clearstory.formats.lora.adapters import update_adapter_card

        update_adapter_card(folder, card)
        return
    external = read_json(folder / "config.json")
    section = external.get("clearstory")
    section = {**(section if isinstance(section, dict) else {}), "card": card.as_dict()}
    text = json_text({**external, "clearstory": section}), model_readme(card, detect_format(external), external)
    replace_files(folder, {"config.json": text[0].encode(), "README.md": text[1].encode()})


def open_model(path: Path | str, *, dtype: torch.dtype | None = None, keep_blocks: bool = False) -> OpenedModel:
    """Open the model at a path: a model folder (of Clearstory or transformers), a LoRA adapter of peft whose base model
    is present (merged), a run folder, a folder or file of Marian (.bin), or a file (.arpa, .gguf, or a .bin of
    llama2.c).

    float16, bfloat16 and quantized weights are converted to float32, others are unchanged; with `dtype`, all are
    converted to it. With `keep_blocks`, the weights of a .gguf file stay quantized in memory, for `inference_model`;
    they are dequantized at each access. No code in the folder is run. Raises BadInput, UnknownName, CorruptFile and
    VocabularyMismatch.
    """
    cast = widen if dtype is None else lambda tensor: convert(tensor, dtype)
    if (file := expand_home(path)).is_file():
        for endings, open_file in FILE_FORMATS.items():
            if open_file is open_gguf and keep_blocks and dtype is None:
                open_file = partial(open_gguf, keep_blocks=True)
            if file.name.endswith(endings) and (opened := open_file(file, cast)) is not None:
                check_tokenizer(opened.model, opened.tokenizer)
                return opened
    folder = resolve_model_path(path)
    if not (folder / "config.json").is_file():
        if files := marian_files(folder):
            return open_marian_folder(folder, files, cast)
        return open_adapter(folder, dtype)
    model: Any
    changed = verify_folder(folder, skip=RESUME_FILES, unread=DESCRIPTIONS)
    # What was written here was finite then, and has not changed.
    unverified = {file.name for file in folder.glob("*.safetensors")} - listed_files(folder)
    model, external = load_model(folder, cast, check=bool(unverified))
    tokenizer = Tokenizer.open(folder) if find_tokenizer_file(folder) is not None else None
    check_tokenizer(model, tokenizer)
    section = external.get("clearstory")
    name = expand_home(path).absolute().name
    default = ModelCard(name=name, family=model.config.family, parameters=count_parameters(model))
    card = read_card(section.get("card") if isinstance(section, dict) else None, default)
    form = detect_format(external)
    remarks = [form.ignored_keys_note(external), *(f"{name} has changed since it was saved" for name in changed)]
    notes = [form.omission_note, *remarks]
    for remark in filter(None, remarks):
        warnings.warn(f"{folder}: {remark}", ModelWarning, stacklevel=2)
    generation_config = read_generation_config(folder, external, tokenizer)
    return OpenedModel(model, tokenizer, card, "; ".join(filter(None, notes)) or None, generation_config, folder)


def open_adapter(folder: Path, dtype: torch.dtype | None) -> OpenedModel:
    """The base model of a LoRA adapter, with the adapter merged into it."""
    from clearstory.formats.lora.adapters import find_base_folder, merge_adapter, read_metadata

    base = open_model(find_base_folder(folder), dtype=dtype)
    # The hash of the base is of its stored dtype: with another, it cannot be compared.
    model = merge_adapter(folder, base.model, same_base=dtype is None)
    tokenizer = Tokenizer.open(folder) if find_tokenizer_file(folder) is not None else base.tokenizer
    check_tokenizer(model, tokenizer)
    card = read_card(read_metadata(folder).get("card"), replace(base.card, name=folder.absolute().name))
    own = (folder / GENERATION_FILE).is_file()
    config = read_generation_config(folder, {}, tokenizer) if own else base.generation_config
    return OpenedModel(model.eval(), tokenizer, card, generation_config=config, folder=folder)


def open_arpa(file: Path, cast: Cast) -> OpenedModel:
    """An n-gram model in ARPA format."""
    from clearstory.formats.arpa.read import read_arpa

    model, tokenizer = read_arpa(file)
    model = model.to(cast(torch.zeros(1)).dtype)
    card = ModelCard(name=file.name, family="ngram", parameters=count_parameters(model))
    return OpenedModel(model, tokenizer, card, generation_config=default_generation_config(tokenizer))


def open_gguf(file: Path, cast: Cast, *, keep_blocks: bool = False) -> OpenedModel:
    """A model in GGUF format (llama.cpp)."""
    from clearstory.formats.gguf.read import read_gguf

    gguf = read_gguf(file, cast, keep_blocks=keep_blocks)
    card = ModelCard(name=gguf.name, parameters=count_parameters(gguf.model) + gguf.parameters_in_blocks)
    return OpenedModel(gguf.model, gguf.tokenizer, card, generation_config=gguf.generation_config)


def open_llama2c(file: Path, cast: Cast) -> OpenedModel | None:
    """A llama2.c checkpoint with the tokenizer file in its folder; None for a .bin file of another kind."""
    from clearstory.formats.llama2c import (
        find_tokenizer_bin,
        read_llama2c,
        read_llama2c_config,
        read_llama2c_tokenizer,
    )

    config = read_llama2c_config(file)
    if config is None:
        return None
    model, tokenizer_file = read_llama2c(file, config, cast), find_tokenizer_bin(file, config.vocab)
    tokenizer = None if tokenizer_file is None else read_llama2c_tokenizer(tokenizer_file, config.vocab)
    card = ModelCard(name=file.stem, parameters=count_parameters(model))
    generation_config = default_generation_config(tokenizer)
    return OpenedModel(model, tokenizer, card, generation_config=generation_config)


def open_marian(file: Path, cast: Cast) -> OpenedModel:
    """A model in Marian's binary format with the SentencePiece vocabulary in its folder."""
    from clearstory.formats.marian_bin import find_marian_vocabulary, read_marian_bin, read_marian_tokenizer

    vocabulary = find_marian_vocabulary(file)
    model = read_marian_bin(file, cast)
    tokenizer = None if vocabulary is None else read_marian_tokenizer(vocabulary)
    check_tokenizer(model, tokenizer)
    card = ModelCard(name=file.stem, parameters=count_parameters(model))
    return OpenedModel(model, tokenizer, card, generation_config=default_generation_config(tokenizer))


def open_marian_folder(folder: Path, files: Sequence[Path], cast: Cast) -> OpenedModel:
    """The one Marian model in a folder. Raises BadInput for several."""
    if len(files) > 1:
        raise BadInput(f"{folder} holds {len(files)} Marian models; name one of them, such as {files[0]}")
    opened = open_marian(files[0], cast)
    return replace(opened, card=replace(opened.card, name=folder.absolute().name), folder=folder)


def open_bin(file: Path, cast: Cast) -> OpenedModel | None:
    """A model of Marian or llama2.c; None for a .bin file of another kind."""
    return open_marian(file, cast) if is_marian_bin(file) else open_llama2c(file, cast)


FILE_FORMATS: dict[tuple[str, ...], Callable[[Path, Cast], OpenedModel | None]] = {
    (".arpa", ".arpa.gz"): open_arpa,
    (".gguf",): open_gguf,
    (".bin",): open_bin,
}
"""Single-file formats: endings of the file's name, and the function that opens it. Each is imported when it is met."""


def widen(tensor: Tensor) -> Tensor:
    """float16 and bfloat16 converted to float32; other dtypes unchanged."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def convert(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A floating-point tensor converted to `dtype`; integers unchanged."""
    return tensor.to(dtype) if tensor.dtype.is_floating_point else tensor


def check_tokenizer(model: Any, tokenizer: Tokenizer | None) -> None:
    """Raise VocabularyMismatch for a tokenizer with more tokens than the model, or with at most half as many.

    Published models have up to a hundredth of unused vocabulary entries; half indicates the tokenizer of another model.
    """
    if tokenizer is not None and not model.vocab // 2 < tokenizer.vocab <= model.vocab:
        raise VocabularyMismatch(
            f"the model has a vocabulary of {model.vocab:,} tokens, the tokenizer one of {tokenizer.vocab:,}; "
            "use the tokenizer saved with the model"
        )


def config_json_dict(
    form: FolderFormat,
    config: Config,
    extra: dict[str, Any],
    model: nn.Module,
    tokenizer: Tokenizer | None,
    card: ModelCard,
) -> dict[str, Any]:
    """The contents of config.json."""
    dtypes = [each.dtype for each in model.parameters() if each.dtype.is_floating_point]
    section: dict[str, Any] = {"card": card.as_dict()} | ({"model": extra} if extra else {})
    return {
        **form.config_from_native(config),
        **special_token_ids(tokenizer),
        "dtype": str(dtypes[0] if dtypes else torch.float32).removeprefix("torch."),
        "clearstory": section,
    }
