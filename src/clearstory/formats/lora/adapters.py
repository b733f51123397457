"""Save and open LoRA adapters as peft stores them, with the layer names of the base model's class in transformers.

adapter_config.json           rank, alpha, layers, path of the base model
adapter_model.safetensors     A and B of each layer
clearstory.json               model card, hash of the base weights, rank of each native layer; peft ignores it
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from clearstory.durable import json_text, replace_files, verify_folder, write_folder, write_json, write_text
from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput, CannotDo, CorruptFile
from clearstory.formats.generation_json import write_generation_config
from clearstory.formats.hf.config_json import format_of_model, read_json, weight_map_of
from clearstory.formats.hf.load_weights import equal_bits, stored_config
from clearstory.formats.lora.adapter_config import CONFIG, adapter_config_dict, read_adapter_config
from clearstory.formats.lora.adapter_heads import (
    TASK_TYPES,
    describe_head,
    load_whole_modules,
    saved_modules,
    whole_weights,
    with_head,
)
from clearstory.formats.lora.adapter_tensors import FILE, PREFIX, read_matrices
from clearstory.formats.lora.fused_layers import FusedLinear, fuse_lora, fused_linears, split_lora
from clearstory.formats.lora.whole_weights import WholeWeights, apply_whole_weights
from clearstory.formats.model_card import ModelCard, adapter_readme
from clearstory.formats.native import NATIVE
from clearstory.formats.output_folder import check_writable
from clearstory.formats.sentence_folder import SentencePipeline
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.generation_config import GenerationConfig
from clearstory.models.heads import ClassificationHead, backbone_of, bare_backbone, is_bare_encoder
from clearstory.models.lora import LoRALinear, adaptable_layers, lora_layers, merge_lora, remove_lora
from clearstory.models.shallow_copy import shallow_copy
from clearstory.text.tokenizers import Tokenizer

METADATA = "clearstory.json"

HASHED_NUMBERS = 64
"""How many numbers of each weight enter the hash of a base model. Any training changes them."""


def save_adapter(
    folder: Path | str,
    model: nn.Module,
    base: Path | str,
    tokenizer: Tokenizer | None,
    card: ModelCard,
    *,
    overwrite: bool = False,
    sentence: SentencePipeline | None = None,
    generation_config: GenerationConfig | None = None,
) -> Path:
    """Write a model's LoRA adapter; `base` is the folder of its base model. Returns the folder.

    A `generation_config` replaces that of the base model.

    Raises FolderExists unless `overwrite`, CannotDo for a model without adapters.
    """
    folder = expand_home(folder)
    check_writable(folder, overwrite)
    with write_folder(folder) as temporary:
        write_adapter(temporary, model, base, card)
        if tokenizer is not None:
            tokenizer.save(temporary)
        if sentence is not None:
            sentence.save(temporary)
        if generation_config is not None:
            write_generation_config(temporary, model, tokenizer, generation_config)
    return folder


def write_adapter(folder: Path, model: nn.Module, base: Path | str, card: ModelCard) -> None:
    """Write the adapter's files into an existing folder, read them back and compare them bit for bit."""
    adapters = lora_layers(model)
    if not adapters:
        raise CannotDo("this model has no LoRA adapters; save it as a model")
    class_name, linears = model_fused_linears(model)
    if missing := adapters.keys() - {name for linear in linears for name in linear.native_names}:
        raise CannotDo(
            f"{class_name} has no linear layer for {min(missing)}, so peft cannot store its adapter; "
            "merge the adapters and save the model"
        )
    adapted = [linear for linear in linears if any(name in adapters for name in linear.native_names)]
    matrices = {linear.hf_name: fuse_lora(linear, adapters) for linear in adapted}
    config = adapter_config_dict(
        {name: (len(each.a), each.alpha) for name, each in matrices.items()},
        [linear.hf_name for linear in linears if linear.hf_name not in matrices],
        base=str(base),
        dropout=next(iter(adapters.values())).dropout,
        transposed=any(linear.transposed for linear in adapted),
        task_type=task_type(model),
        saved=saved_modules(model),
    )
    architecture = None if class_name == NATIVE.name else class_name
    write_json(folder / CONFIG, config)
    metadata = {
        "card": card.as_dict(),
        "architecture": architecture,
        "base": weights_fingerprint(model, getattr(model, "modules_to_save", ())),
        "ranks": {name: each.rank for name, each in adapters.items()},
        **({"modules_to_save": list(chosen)} if (chosen := getattr(model, "modules_to_save", ())) else {}),
        **({"classifier": describe_head(model.config)} if isinstance(model, ClassificationHead) else {}),
        **({"backbone": True} if is_bare_encoder(model) else {}),
    }
    write_json(folder / METADATA, metadata)
    tensors = {f"{PREFIX}{name}.lora_A.weight": each.a for name, each in matrices.items()}
    tensors |= {f"{PREFIX}{name}.lora_B.weight": each.b for name, each in matrices.items()}
    tensors |= {f"{PREFIX}{name}": each for name, each in whole_weights(model).items()}
    # Cloned: adapters that were split from a fused layer may share A.
    cloned = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(cloned, folder / FILE, {"format": "pt"})
    write_text(folder / "README.md", adapter_readme(card, architecture, str(base), task_type(model)))
    verify_adapter(folder, model)


def task_type(model: nn.Module) -> str | None:
    """peft's task type, which selects its wrapper class; None for encoders, which peft opens without one."""
    if isinstance(model, ClassificationHead):
        return TASK_TYPES[model.config.label_level]
    if has_capability(model, Capability.SOURCE):
        return "SEQ_2_SEQ_LM"
    return "CAUSAL_LM" if has_capability(model, Capability.CAUSAL) else None


def verify_adapter(folder: Path, model: nn.Module) -> None:
    """Read an adapter and compare it with the model it was written from, bit for bit. Raises CorruptFile."""
    again = read_adapter(folder, model)
    for name, weight in whole_weights(model).items():
        if not equal_bits(weight.detach().cpu(), whole_weights(again)[name].detach().cpu()):
            raise CorruptFile(f"{name} in {folder} differs from what was written; check the disk and save again")
    loaded = lora_layers(again)
    for name, adapter in lora_layers(model).items():
        for a, b in ((adapter.lora_a, loaded[name].lora_a), (adapter.lora_b, loaded[name].lora_b)):
            if not equal_bits(a.detach().cpu(), b.detach().cpu()):
                raise CorruptFile(f"{name} in {folder} differs from what was written; check the disk and save again")


def update_adapter_card(folder: Path, card: ModelCard) -> None:
    """Replace the model card of a saved adapter; its weights are unchanged."""
    metadata = read_metadata(folder)
    architecture = metadata["architecture"] if isinstance(metadata.get("architecture"), str) else None
    config = read_adapter_config(folder)
    readme = adapter_readme(card, architecture, config.base, config.task_type)
    contents = {METADATA: json_text({**metadata, "card": card.as_dict()}), "README.md": readme}
    replace_files(folder, {name: text.encode() for name, text in contents.items()})


def read_adapter(folder: Path, model: nn.Module, *, same_base: bool = True) -> Any:
    """The model with the adapter and the head of a folder in place of any it has. Base weights are shared with `model`.

    `same_base` requires the base model that the adapter was trained on, if the folder holds its hash. Raises BadInput
    for unsupported settings of peft, CorruptFile for tensors that do not fit the model.
    """
    adapted, whole, _ = read_parts(folder, model, same_base=same_base)
    if whole.layers and not load_whole_modules(adapted, whole.replaced):
        raise BadInput(
            f"the adapter {folder} changes {whole.layers[0]}, which cannot be trained further; merge it first: "
            f"clearstory convert {folder} FOLDER"
        )
    return adapted


def merge_adapter(folder: Path, model: nn.Module, *, same_base: bool = True) -> Any:
    """The model with the adapter of a folder merged into it, its whole weights and untied embeddings included."""
    adapted, whole, linears = read_parts(folder, model, same_base=same_base)
    return apply_whole_weights(merge_lora(adapted), whole, linears)


def read_parts(folder: Path, model: nn.Module, *, same_base: bool) -> tuple[Any, WholeWeights, dict[str, FusedLinear]]:
    """The model with the LoRA of an adapter, the adapter's other changes, and the linear layers by name."""
    verify_folder(folder, skip=("README.md", "optimizer.safetensors", "state.json"))
    config, metadata = read_adapter_config(folder), read_metadata(folder)
    if not (folder / FILE).is_file():
        raise BadInput(no_adapter_message(folder))
    model = with_head(model, folder, FILE, config, metadata.get("classifier"))
    if metadata.get("backbone") is True and not is_bare_encoder(model):
        model = bare_backbone(model).eval()
    trained = metadata.get("modules_to_save")
    trained = trained if isinstance(trained, list) and all(isinstance(name, str) for name in trained) else []
    if same_base and metadata["base"] not in (None, weights_fingerprint(model, trained)):
        raise CorruptFile(
            f"the adapter {folder} was trained on a model with weights other than those of {config.base}; restore "
            f"that model, or set its folder in {CONFIG}"
        )
    _, fused = model_fused_linears(model)
    base_config: Any = model.config
    by_name = {linear.hf_name: linear for linear in fused}
    matrices, whole = read_matrices(folder, config, by_name, base_config)
    linears = adaptable_layers(remove_lora(model))
    adapters: dict[str, LoRALinear] = {}
    for linear in fused:
        if linear.hf_name not in matrices:
            continue
        for name, each in split_lora(linear, matrices[linear.hf_name], metadata["ranks"]).items():
            a, b = each.a.to(linears[name].weight), each.b.to(linears[name].weight)
            adapters[name] = LoRALinear(linears[name], a=a, b=b, alpha=each.alpha, dropout=config.dropout)
    adapted = shallow_copy(
        model, lambda name, each: adapters.get(name, each.base if isinstance(each, LoRALinear) else None)
    ).train(model.training)
    return adapted, whole, by_name


def model_fused_linears(model: nn.Module) -> tuple[str, list[FusedLinear]]:
    """The class of transformers a model is saved as, and the linear layers of that class."""
    config: Any = model.config
    form, extra = format_of_model(model)
    return form.name, fused_linears(
        weight_map_of(form, stored_config(config, extra)), adaptable_layers(remove_lora(model))
    )


def read_metadata(folder: Path) -> dict[str, Any]:
    """clearstory.json: "card", "base" (hash of the base weights) and "ranks" by native layer. Defaults if it is
    absent.
    """
    metadata = read_json(folder / METADATA) if (folder / METADATA).is_file() else {}
    ranks = metadata.get("ranks")
    if not isinstance(ranks, dict) or not all(isinstance(rank, int) and rank >= 0 for rank in ranks.values()):
        ranks = {}
    return {**metadata, "base": metadata.get("base"), "ranks": ranks}


def find_base_folder(folder: Path) -> Path:
    """The folder of an adapter's base model: the path in its config, or a folder next to the adapter.

    Raises BadInput if it does not exist, or is an adapter itself.
    """
    path = read_adapter_config(folder).base
    candidates = (expand_home(path), folder / path, folder.parent / path)
    base = next((each for each in candidates if each.exists()), None)
    if base is None:
        raise BadInput(
            f"the adapter {folder} has the base model {path}, which does not exist; "
            f"put it there, or set base_model_name_or_path in {CONFIG} to its folder"
        )
    if (base / CONFIG).is_file() and not (base / "config.json").is_file():
        raise BadInput(f"the adapter {folder} has the base model {path}, which is an adapter itself; merge that first")
    return base


def no_adapter_message(folder: Path) -> str:
    """Why an adapter without safetensors cannot be opened, and what to do."""
    if not (folder / "adapter_model.bin").is_file():
        return f"{folder} holds {CONFIG} and no {FILE}; copy the whole folder"
    return (
        f"{folder} holds adapter_model.bin, a pickle, which can run code when it is opened, and no {FILE}; if you "
        "trust "
        "it, open it once with peft and save it again"
    )


@torch.no_grad()
def weights_fingerprint(model: nn.Module, trained: Sequence[str] = ()) -> str:
    """A hash of a sample of every base weight; adapters, a head over a backbone, and the modules that are `trained` as
    a whole are left out.
    """
    digest = blake2b(digest_size=16)
    left_out = tuple(f"{name.removeprefix('backbone.')}." for name in trained)
    for name, tensor in sorted(backbone_of(remove_lora(model)).state_dict().items()):
        if name.startswith(left_out):
            continue
        sample = tensor.detach().reshape(-1)[:: max(1, tensor.numel() // HASHED_NUMBERS)].cpu().contiguous()
        digest.update(f"{name} {list(tensor.shape)}".encode() + sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
