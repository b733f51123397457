"""Adapters: LoRA as peft writes it, in the names of the base's class in transformers.

adapter_config.json           rank, alpha, which maps, and where the base is
adapter_model.safetensors     A and B of each map
clearstory.json               the card, which base it was, which blocks are whose; peft takes no notice of it
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from clearstory.durable import write_folder, write_json, write_text
from clearstory.errors import BadInput, CannotDo, CorruptFile, FolderExists
from clearstory.formats.lora.adapter_config import CONFIG, AdapterConfig, describe, read_adapter_config
from clearstory.formats.hf.load_weights import stored_config, equal_bits
from clearstory.formats.model_card import ModelCard, adapter_readme
from clearstory.formats.hf.config_json import choose_format, read_json, weight_map
from clearstory.formats.native import NATIVE
from clearstory.formats.lora.fused_layers import LoRAMatrices, FusedLinear, fuse_lora, split_lora, fused_linears
from clearstory.formats.hf.safetensors_io import FLOATS, StoredTensor, read_safetensors_header
from clearstory.models.lora import Adapted, adaptations, linear_maps, unadapted
from clearstory.models.twin import twin
from clearstory.text.tokenizers import Tokenizer

FILE, NOTES = "adapter_model.safetensors", "clearstory.json"

PREFIX = "base_model.model."
"""What peft puts before every name."""

TASKS = {"decoder": "CAUSAL_LM", "encoder-decoder": "SEQ_2_SEQ_LM"}
"""What peft calls models of each kind, to give them the methods of such; it opens others as they are."""

LOOKED_AT = 64
"""Numbers of each weight that tell one base from another: training changes them all."""


def save_adapter(
    folder: Path | str,
    model: nn.Module,
    base: Path | str,
    tokenizer: Tokenizer | None,
    card: ModelCard,
    *,
    overwrite: bool = False,
) -> Path:
    """Write what an adapted model has learnt; `base` is the folder of the model it was made of.

    Raises FolderExists unless `overwrite`, CannotDo for a model that is not adapted.
    """
    folder = Path(folder).expanduser()
    if folder.exists() and not overwrite and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderExists(f"{folder} is there already; choose another name, or pass --overwrite to replace it")
    with write_folder(folder) as temporary:
        write_adapter(temporary, model, base, card)
        if tokenizer is not None:
            tokenizer.save(temporary)
    return folder


def write_adapter(folder: Path, model: nn.Module, base: Path | str, card: ModelCard) -> None:
    """The adapter's files into a folder that is there, read back and compared."""
    found = adaptations(model)
    if not found:
        raise CannotDo("this model is not adapted, and an adapter is what was learnt beside it; save it as a model")
    name, places = model_fused_linears(model)
    if missing := found.keys() - {each for slot in places for each in slot.ours}:
        raise CannotDo(
            f"{name} has no linear map that {min(missing)} is, so peft has no name for what it learnt; "
            "merge it and save the model"
        )
    pairs = {slot.theirs: fuse_lora(slot, found) for slot in places if any(each in found for each in slot.ours)}
    said = describe(
        {each: (len(pair.a), pair.alpha) for each, pair in pairs.items()},
        [slot.theirs for slot in places if slot.theirs not in pairs],
        base=str(base),
        dropout=next(iter(found.values())).dropout,
        transposed=any(slot.transposed for slot in places if slot.theirs in pairs),
        task=TASKS.get(getattr(model.config, "architecture", "decoder")),
    )
    write_json(folder / CONFIG, said)
    ranks = {each: adapted.rank for each, adapted in found.items()}
    architecture = None if name == NATIVE.name else name
    notes = {"card": card.json(), "architecture": architecture, "base": weights_fingerprint(model), "ranks": ranks}
    write_json(folder / NOTES, notes)
    tensors = {f"{PREFIX}{each}.lora_A.weight": pair.a for each, pair in pairs.items()}
    tensors |= {f"{PREFIX}{each}.lora_B.weight": pair.b for each, pair in pairs.items()}
    # Copies: adapters that came from one of the whole may share their A.
    save_file(
        {each: t.detach().cpu().contiguous().clone() for each, t in tensors.items()}, folder / FILE, {"format": "pt"}
    )
    write_text(folder / "README.md", adapter_readme(card, architecture, str(base)))
    again = adaptations(read_adapter(folder, model))
    for each, adapted in found.items():
        for a, b in ((adapted.lora_a, again[each].lora_a), (adapted.lora_b, again[each].lora_b)):
            if not equal_bits(a.detach().cpu(), b.detach().cpu()):
                raise CorruptFile(
                    f"{each} in {folder} reads back otherwise than it was written; check the disk and save again"
                )


def write_adapter_card(folder: Path, card: ModelCard) -> None:
    """Say something new of a saved adapter; what it has learnt is left alone."""
    notes = read_notes(folder)
    architecture = notes["architecture"] if isinstance(notes.get("architecture"), str) else None
    write_json(folder / NOTES, {**notes, "card": card.json()})
    write_text(folder / "README.md", adapter_readme(card, architecture, read_adapter_config(folder).base))


def read_adapter(folder: Path, model: nn.Module, *, same_base: bool = True) -> Any:
    """The model, adapted as a folder says, its own weights shared; one that is adapted already is adapted anew.

    `same_base`: whether the model must be the one that the adapter was made for, where the folder tells.
    Raises BadInput for what peft can do and this house cannot, CorruptFile for tensors that do not fit the model.
    """
    config, notes = read_adapter_config(folder), read_notes(folder)
    if not (folder / FILE).is_file():
        raise BadInput(nothing_to_read(folder))
    if same_base and notes["base"] not in (None, weights_fingerprint(model)):
        raise CorruptFile(
            f"the adapter {folder} was made for another model than stands in {config.base} now (the weights differ); "
            f"put that one back, or name its folder in {CONFIG}"
        )
    _, places = model_fused_linears(model)
    pairs = read_pairs(folder, config, {slot.theirs: slot for slot in places})
    maps = linear_maps(unadapted(model))
    found: dict[str, Adapted] = {}
    for slot in places:
        for name, pair in (split_lora(slot, pairs[slot.theirs], notes["ranks"]) if slot.theirs in pairs else {}).items():
            a, b = (each.to(maps[name].weight) for each in (pair.a, pair.b))
            found[name] = Adapted(maps[name], a=a, b=b, alpha=pair.alpha, dropout=config.dropout)
    return twin(model, lambda name, each: found.get(name, each.base if isinstance(each, Adapted) else None)).train(
        model.training
    )


def model_fused_linears(model: nn.Module) -> tuple[str, list[FusedLinear]]:
    """The class over there that a model is, and its linear maps as that class has them."""
    own: Any = model
    form, extra = choose_format(own.config)
    return form.name, fused_linears(weight_map(form, stored_config(own.config, extra)), linear_maps(unadapted(model)))


def read_pairs(folder: Path, config: AdapterConfig, places: Mapping[str, FusedLinear]) -> dict[str, LoRAMatrices]:
    """A and B of each of their maps, every name and shape compared before a number is read."""
    found: dict[str, dict[str, StoredTensor]] = {}
    for name, each in read_safetensors_header(folder / FILE).items():
        place, dot, side = name.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
        # Adapters of a bare stack, without its head, leave out what all names but the head's begin with.
        place = place if place in places else next((full for full in places if ends_after_one(full, place)), place)
        if not dot or side not in SIDES or place not in places:
            raise CorruptFile(
                f"{folder / FILE} holds {name} of shape {list(each.shape)}, and the base {config.base} has no linear "
                "map for it; they belong to different models, or it adapts more than linear maps"
            )
        if each.dtype not in FLOATS:
            raise BadInput(f"{name} is stored as {each.dtype}, and this house reads {', '.join(FLOATS)}")
        found.setdefault(place, {})[side] = each
    pairs = {}
    for place, sides in found.items():
        rank, slot = config.rank(place), places[place]
        wanted = {"lora_A": (rank, slot.inside), "lora_B": (sum(slot.rows), rank)}
        for side, shape in wanted.items():
            if side not in sides:
                raise CorruptFile(f"{folder / FILE} holds half of {place}, without its {side}; copy the folder anew")
            if sides[side].shape != shape:
                raise CorruptFile(
                    f"{CONFIG} and the base ask for {side} of {place} with shape {list(shape)}, and {FILE} holds "
                    f"{list(sides[side].shape)}; they belong to different models"
                )
        a, b = (sides[side].read() for side in SIDES)
        pairs[place] = LoRAMatrices(a, b, config.alpha(place))
    return pairs


SIDES = ("lora_A", "lora_B")


def ends_after_one(full: str, place: str) -> bool:
    """Whether a name is another without its first word."""
    return full.partition(".")[2] == place


def read_notes(folder: Path) -> dict[str, Any]:
    """What clearstory.json says, where there is one: the card, which base it was, the rank of each map of ours."""
    said = read_json(folder / NOTES) if (folder / NOTES).is_file() else {}
    ranks = said.get("ranks")
    if not isinstance(ranks, dict) or not all(isinstance(rank, int) and rank >= 0 for rank in ranks.values()):
        ranks = {}
    return {**said, "base": said.get("base"), "ranks": ranks}


def base_folder(folder: Path) -> Path:
    """Where the model lies that an adapter was made for: as its file says, or beside the adapter.

    Raises BadInput where it is not there, or is an adapter itself.
    """
    said = read_adapter_config(folder).base
    base = next(
        (each for each in (Path(said).expanduser(), folder / said, folder.parent / said) if each.exists()), None
    )
    if base is None:
        raise BadInput(
            f"the adapter {folder} was made for the model {said}, and there is no such folder; "
            f"put it there, or name its folder under base_model_name_or_path in {CONFIG}"
        )
    if (base / CONFIG).is_file() and not (base / "config.json").is_file():
        raise BadInput(
            f"the adapter {folder} names {said} as its base, which is an adapter itself; merge that one first"
        )
    return base


def nothing_to_read(folder: Path) -> str:
    """Why an adapter without safetensors cannot be opened, and the way out."""
    if not (folder / "adapter_model.bin").is_file():
        return f"{folder} holds {CONFIG} and no {FILE}; copy the whole folder"
    return (
        f"{folder} holds adapter_model.bin, which can run code when it is opened, and no {FILE}; where you trust it, "
        "open it once with peft and save it again"
    )


@torch.no_grad()
def weights_fingerprint(model: nn.Module) -> str:
    """A hash of some numbers of every weight, those learnt beside them left out."""
    digest = blake2b(digest_size=16)
    for name, tensor in sorted(unadapted(model).state_dict().items()):
        some = tensor.detach().reshape(-1)[:: max(1, tensor.numel() // LOOKED_AT)].cpu().contiguous()
        digest.update(f"{name} {list(tensor.shape)}".encode() + some.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
