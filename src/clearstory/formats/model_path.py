"""Paths: which model folder a path means."""

from __future__ import annotations

from pathlib import Path

from clearstory.durable import current_path
from clearstory.errors import BadInput, CannotDo, nearest

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def resolve_model_path(path: Path | str) -> Path:
    """The model folder that is meant: a folder with a config.json, as a checkpoint is one too, or a run's `model/`. A
    folder with an adapter_config.json serves as well.

    Raises BadInput where there is none, with what is there instead; CannotDo for a checkpoint that says nothing of its
    model.
    """
    given = Path(path).expanduser()
    folder = current_path(given)
    if folder.is_file():
        raise BadInput(file_given(folder))
    if not folder.exists():
        raise BadInput(f"there is no folder {given}; {neighbours(given)}")
    if holds_model(folder):
        return folder
    if folder.parent.name == "checkpoints" and folder.name.startswith("step-"):
        run = folder.parent.parent
        raise CannotDo(f"{given} is a checkpoint, with which a run goes on; open its run, {run}")
    inner = current_path(folder / "model")
    if holds_model(inner):
        return inner
    if (folder / "config.yaml").is_file():
        raise BadInput(
            f"the run {given} has saved no model yet; let it go on with: clearstory train --out {given} --resume"
        )
    raise BadInput(f"{given} holds no config.json; name a model folder or a run folder")


def holds_model(folder: Path) -> bool:
    """Whether there is a model, or what was learnt beside one."""
    return any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))


def file_given(file: Path) -> str:
    """The way out for a path to a file."""
    if file.suffix == ".gz":
        return f"{file} is packed, and this house opens folders, .arpa, .arpa.gz, .gguf and .bin; unpack it first"
    if (file.parent / "config.json").is_file():
        return f"{file} is a file of a model folder; open the folder, {file.parent}"
    if file.suffix in PICKLES:
        return (
            f"{file} can run code when it is opened, and it is no checkpoint of llama2.c; where you trust it, convert "
            f'it once: transformers.AutoModelForCausalLM.from_pretrained("{file.parent}").save_pretrained("NEW")'
        )
    return f"{file} is a file, and a model is a folder or a .gguf; name one of them"


def neighbours(path: Path) -> str:
    """What stands where a missing folder was looked for."""
    parent = path.absolute().parent
    if not parent.is_dir():
        return f"nor is there {parent}"
    names = [each.name for each in sorted(parent.iterdir())[:100] if each.is_dir() and not each.name.startswith(".")]
    return nearest(path.name, names) if names else f"{parent} holds no folders"
