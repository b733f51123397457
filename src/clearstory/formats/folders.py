"""Folders: save a model for everyone, open one of anyone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clearstory.durable import write_folder, write_json, write_text
from clearstory.errors import BadInput, CannotDo, FolderExists, VocabularyMismatch
from clearstory.formats.lora.adapters import base_folder, read_adapter, read_notes, write_adapter_card
from clearstory.formats.arpa.read import is_arpa, read_arpa
from clearstory.formats.hf.load_weights import stored_config, open_weights, verify_saved, state_to_store
from clearstory.formats.model_card import ModelCard, read_card, readme
from clearstory.formats.hf.config_json import START, FolderFormat, choose_format, read_json, weight_map, detect_format
from clearstory.formats.gguf.read import is_gguf, read_gguf
from clearstory.formats.llama2c import beside, may_be_llama2c, read_llama2c_config, read_llama2c, read_vocabulary
from clearstory.formats.native import NATIVE
from clearstory.formats.model_path import resolve_model_path
from clearstory.formats.hf.safetensors_io import SHARD_BYTES, write_weights
from clearstory.models.families import count
from clearstory.models.lora import adaptations, merge
from clearstory.text.tokenizer_files import find_tokenizer_file
from clearstory.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class OpenedModel:
    """A model with its tokenizer and its card. `tokenizer` is None where the folder has none; `note` says what
    of it was left out.
    """

    model: Any
    tokenizer: Tokenizer | None
    card: ModelCard
    note: str | None = None

    @torch.no_grad()
    def logits(
        self, ids: Sequence[Any] | Tensor, source: Sequence[Sequence[int]] | None = None
    ) -> Float[Tensor, "B T V"]:
        """What the model expects after each token of `ids`: rows of equal length, in lists or a (B, T) tensor.

        An encoder-decoder reads a row of `source` for each, of any length. Raises BadInput for rows that differ in
        length or are no ids, VocabularyMismatch for ids it does not know, CannotDo where a source is missing.
        """
        from clearstory.models.base import TokenBatch

        rows = check_ids(ids)
        if rows.numel() and int(rows.min()) < 0:
            raise VocabularyMismatch(f"token id {int(rows.min())} is negative; ids begin at 0")
        device = next((each.device for each in (*self.model.parameters(), *self.model.buffers())), rows.device)
        read = {} if source is None else {"source": TokenBatch.from_sequences(source, device)}
        hidden, _ = self.model.forward(TokenBatch(rows.to(device)), **read)
        out: Tensor = self.model.logits(hidden)
        return out


def check_ids(ids: Sequence[Any] | Tensor) -> Int[Tensor, "B T"]:
    """Rows of ids as one tensor."""
    if not isinstance(ids, Tensor):
        if any(isinstance(row, int) for row in ids):
            raise BadInput("ids are rows of token ids; put one row into a list of its own: [[1, 2, 3]]")
        lengths = sorted({len(row) for row in ids})
        if len(lengths) > 1:
            raise BadInput(f"rows of {lengths[0]} and {lengths[-1]} tokens stand together; give rows of equal length")
        ids = torch.tensor([list(row) for row in ids], dtype=torch.long)
    if ids.ndim != 2 or ids.shape[1] == 0 or ids.dtype.is_floating_point or ids.dtype == torch.bool:
        raise BadInput(
            f"ids of shape {list(ids.shape)} and type {ids.dtype} are no rows of token ids; give (B, T) whole numbers"
        )
    return ids.long()


def save_model(
    folder: Path | str,
    model: nn.Module,
    tokenizer: Tokenizer | None,
    card: ModelCard,
    *,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Write a model folder that this house and transformers open; it takes its name only when it reads back the same.

    Raises FolderExists unless `overwrite`, VocabularyMismatch for a tokenizer that knows more tokens than the model,
    OutOfSpace, and CannotDo for a model of no family of this house.
    """
    folder = Path(folder).expanduser()
    if folder.exists() and not overwrite and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderExists(f"{folder} is there already; choose another name, or pass --overwrite to replace it")
    config: Any = getattr(model, "config", None)
    if adaptations(model):
        raise CannotDo("this model is adapted; merge it and save that, or save its adapter beside it")
    form, extra = choose_format(config)
    check_tokenizer(model, tokenizer)
    card = replace(card, parameters=count(model))
    state = state_to_store(model, config, extra)
    rules = weight_map(form, stored_config(config, extra))
    shells = {name: tensor.to("meta") for name, tensor in state.items()}
    plan = list(rules.from_native(shells))
    size = sum(tensor.numel() * tensor.element_size() for _, tensor in plan)
    with write_folder(folder, need=size) as temporary:
        write_json(temporary / "config.json", config_json_dict(form, config, extra, model, tokenizer, card))
        if getattr(config, "architecture", "") != "encoder":  # which generates nothing
            write_json(temporary / "generation_config.json", generation_json_dict(config, tokenizer))
        write_text(temporary / "README.md", card_page(card, form))
        if tokenizer is not None:
            tokenizer.save(temporary)
        write_weights(temporary, plan, rules.from_native(state), shard_bytes)
        verify_saved(temporary, model, config)
    return folder


def card_page(card: ModelCard, form: FolderFormat) -> str:
    """README.md."""
    return readme(card, None, "") if form is NATIVE else readme(card, form.name, form.auto_class)


def update_model_card(folder: Path | str, card: ModelCard) -> None:
    """Say something new of a saved model or adapter; its weights are left alone."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        write_adapter_card(folder, card)
        return
    theirs = read_json(folder / "config.json")
    form = detect_format(theirs)
    said = theirs.get("clearstory")
    extra = {**(said if isinstance(said, dict) else {}), "card": card.json()}
    write_json(folder / "config.json", {**theirs, "clearstory": extra})
    write_text(folder / "README.md", card_page(card, form))


def open_model(path: Path | str, *, dtype: torch.dtype | None = None) -> OpenedModel:
    """The model that a path means: a model folder of ours or of transformers, an adapter of peft's whose base is there
    (merged), a run folder, or a file of FILES.

    Weights stored as float16 or bfloat16 come as float32, quantised ones too, others as they are; with `dtype`, all
    come as that. Nothing in the folder is run. Raises BadInput, UnknownName, CorruptFile and VocabularyMismatch.
    """
    model: Any
    cast = widen if dtype is None else lambda tensor: narrow(tensor, dtype)
    if (file := Path(path).expanduser()).is_file():
        for known, read in FILES:
            if known(file) and (opened := read(file, cast)) is not None:
                check_tokenizer(opened.model, opened.tokenizer)
                return opened
    folder = resolve_model_path(path)
    if not (folder / "config.json").is_file():
        return open_adapter(folder, dtype)
    model, theirs = open_weights(folder, cast)
    tokenizer = Tokenizer.open(folder) if find_tokenizer_file(folder) is not None else None
    check_tokenizer(model, tokenizer)
    extra = theirs.get("clearstory")
    said = extra.get("card") if isinstance(extra, dict) else None
    name, kind = Path(path).expanduser().absolute().name, model.config.family
    card = read_card(said, ModelCard(name=name, family=kind, parameters=count(model)))
    return OpenedModel(model, tokenizer, card, detect_format(theirs).omission_note)


def open_adapter(folder: Path, dtype: torch.dtype | None) -> OpenedModel:
    """The model that an adapter was made for, with what it has learnt merged into it."""
    base = open_model(base_folder(folder), dtype=dtype)
    # In other numbers than those it was made for, a base can only be trusted.
    model = merge(read_adapter(folder, base.model, same_base=dtype is None))
    tokenizer = Tokenizer.open(folder) if find_tokenizer_file(folder) is not None else base.tokenizer
    check_tokenizer(model, tokenizer)
    card = read_card(read_notes(folder).get("card"), replace(base.card, name=folder.absolute().name))
    return OpenedModel(model.eval(), tokenizer, card)


Cast = Callable[[Tensor], Tensor]


def open_arpa(file: Path, cast: Cast) -> OpenedModel:
    """An n-gram model as text."""
    model, words = read_arpa(file)
    model = model.to(cast(torch.zeros(1)).dtype)
    return OpenedModel(model, words, ModelCard(name=file.name, family="ngram", parameters=count(model)))


def open_gguf(file: Path, cast: Cast) -> OpenedModel:
    """A model of llama.cpp."""
    read = read_gguf(file, cast)
    return OpenedModel(read.model, read.tokenizer, ModelCard(name=read.name, parameters=count(read.model)))


def open_llama2c(file: Path, cast: Cast) -> OpenedModel | None:
    """A checkpoint of llama2.c with the vocabulary beside it; None for a .bin of another kind."""
    config = read_llama2c_config(file)
    if config is None:
        return None
    model, words = read_llama2c(file, config, cast), beside(file, config.vocab)
    tokenizer = None if words is None else read_vocabulary(words, config.vocab)
    return OpenedModel(model, tokenizer, ModelCard(name=file.stem, parameters=count(model)))


FILES: tuple[tuple[Callable[[Path], bool], Callable[[Path, Cast], OpenedModel | None]], ...] = (
    (is_arpa, open_arpa),
    (is_gguf, open_gguf),
    (may_be_llama2c, open_llama2c),
)
"""Files that are models by themselves: how each is known by its name, and opened."""


def widen(tensor: Tensor) -> Tensor:
    """Halves as float32; what is as wide or no fraction at all, as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def narrow(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Fractions as asked for; counts stay counts."""
    return tensor.to(dtype) if tensor.dtype.is_floating_point else tensor


def check_tokenizer(model: Any, tokenizer: Tokenizer | None) -> None:
    """A model may have rows to spare, a tokenizer may not. Where half of the rows or more are, it is another's: the
    published ones leave a hundredth.
    """
    if tokenizer is not None and not model.vocab // 2 < tokenizer.vocab <= model.vocab:
        raise VocabularyMismatch(
            f"the model knows {model.vocab:,} tokens, the tokenizer makes {tokenizer.vocab:,}; "
            "open the one saved beside the model"
        )


def special_ids(tokenizer: Tokenizer | None) -> dict[str, int | None]:
    """The ids with which texts begin and end. Said even where there are none: transformers would assume its own."""
    return {
        "bos_token_id": None if tokenizer is None else tokenizer.bos_token_id,
        "eos_token_id": None if tokenizer is None else tokenizer.eos_token_id,
        "pad_token_id": None if tokenizer is None else tokenizer.pad_token_id,
    }


def generation_json_dict(config: Any, tokenizer: Tokenizer | None) -> dict[str, int | None]:
    """The whole generation_config.json."""
    begin = config.decoder_start_token_id if getattr(config, "architecture", None) == "encoder-decoder" else None
    return special_ids(tokenizer) | ({} if begin is None else {START: begin})


def config_json_dict(
    form: FolderFormat, config: Any, extra: dict[str, Any], model: nn.Module, tokenizer: Tokenizer | None, card: ModelCard
) -> dict[str, Any]:
    """The whole config.json."""
    dtypes = [each.dtype for each in model.parameters() if each.dtype.is_floating_point]
    extra: dict[str, Any] = {"card": card.json()} | ({"model": extra} if extra else {})
    return {
        **form.config_from_native(config),
        **special_ids(tokenizer),
        "dtype": str(dtypes[0] if dtypes else torch.float32).removeprefix("torch."),
        "clearstory": extra,
    }
