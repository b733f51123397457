"""Model paths: the model folder that a path refers to."""

from __future__ import annotations

import struct
from pathlib import Path

from clearstory.durable import current_path, is_regular_file
from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput, CannotDo, nearest

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def resolve_model_path(path: Path | str) -> Path:
    """The folder with config.json, adapter_config.json or a model of Marian: the path itself (model, adapter,
    checkpoint) or a run's `model/`.

    Raises BadInput if there is none, with a description of the contents; CannotDo for a checkpoint without a config.
    """
    given = expand_home(path)
    folder = current_path(weights_of_step(given))
    if folder.is_file():
        raise BadInput(unsupported_file_message(folder))
    if not folder.exists():
        raise BadInput(f"there is no folder {given}; {nearest_folders(given)}")
    if has_config(folder):
        return folder
    if (folder / "modules.json").is_file():
        from clearstory.formats.sentence_folder import find_transformer_folder  # imports torch

        if (inner := find_transformer_folder(folder)) is not None:
            return inner
    if folder.parent.name == "checkpoints" and folder.name.startswith("step-"):
        run = folder.parent.parent
        raise CannotDo(f"{given} is a checkpoint for resuming a run, without a model config; open its run, {run}")
    model = current_path(folder / "model")
    if has_config(model):
        return model
    if (folder / "config.yaml").is_file():
        raise BadInput(
            f"the run {given} has saved no model yet; resume it with: clearstory train --out {given} --resume"
        )
    raise BadInput(f"{given} has no config.json; give a model folder or a run folder")


def weights_of_step(path: Path) -> Path:
    """For a deleted checkpoint of a run whose weights were kept (`weights-000064`), those weights; else the path."""
    kept = path.parent / path.name.replace("step-", "weights-", 1)
    return kept if path.parent.name == "checkpoints" and not path.exists() and kept.is_dir() else path


def has_config(folder: Path) -> bool:
    """Whether a folder holds a model or a LoRA adapter."""
    names = ("config.json", "adapter_config.json")
    return any((folder / name).is_file() for name in names) or bool(marian_files(folder))


def marian_files(folder: Path) -> list[Path]:
    """The models in Marian's binary format in a folder, most often one."""
    return [file for file in sorted(folder.glob("*.bin")) if is_marian_bin(file)]


def is_marian_bin(file: Path) -> bool:
    """Whether a file is in version 1 of Marian's binary format: after the number of its tensors come the length of the
    first one's name, its type, dimensions and bytes.
    """
    if not is_regular_file(file):
        return False
    with file.open("rb") as opened:
        header = opened.read(48)
    if len(header) < 48:
        return False
    version, count, name, _, dimensions, _ = struct.unpack("<6Q", header)
    return bool(version == 1 and 1 <= count <= 2**16 and 1 <= name <= 2**10 and dimensions <= 8)


def unsupported_file_message(file: Path) -> str:
    """Why a file cannot be opened as a model, and what to do."""
    if file.suffix == ".gz":
        return (
            f"{file} is compressed; supported: folders, .arpa, .arpa.gz, .gguf, .bin of llama2.c or Marian; decompress "
            "it first"
        )
    if (file.parent / "config.json").is_file():
        return f"{file} is a file of a model folder; open the folder, {file.parent}"
    if file.suffix in PICKLE_SUFFIXES:
        return (
            f"{file} is not a llama2.c checkpoint, and a pickle can run code when it is opened; if you trust it, "
            "convert "
            f'it once: transformers.AutoModelForCausalLM.from_pretrained("{file.parent}").save_pretrained("NEW")'
        )
    return f"{file} is not a model; supported: folders, .arpa, .arpa.gz, .gguf, .bin of llama2.c or Marian"


def nearest_folders(path: Path) -> str:
    """The folders next to a missing one, with the nearest name first."""
    parent = path.absolute().parent
    if not parent.is_dir():
        return f"{parent} does not exist either"
    names = [each.name for each in sorted(parent.iterdir())[:100] if each.is_dir() and not each.name.startswith(".")]
    return nearest(path.name, names) if names else f"{parent} holds no folders"
