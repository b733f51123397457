"""Checkpoints: everything needed to continue a run exactly.

    RUN/checkpoints/step-000500/
        model.safetensors        weights, under their own names
        optimizer.safetensors    optimizer state of each parameter
        state.json               the step, the plan, the best loss so far: everything that is not a tensor
        checksums.json           a digest of each file

Files are what torch's distributed checkpoint calls its Hugging Face storage: `HuggingFaceStorageReader` reads them, on
any number of ranks. One process writes them through `safetensors` itself: torch.distributed.checkpoint takes 1.3 s to
import, and its plain format contains a pickle. Nothing here is ever unpickled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from clearstory import durable
from clearstory.errors import ClearstoryError, CorruptFile

FOLDER_NAME = re.compile(r"step-(\d{6,})")
FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
MAX_STATE_BYTES = 2**28


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint folder."""

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    values: dict[str, Any]


def save_checkpoint(
    run: Path,
    step: int,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    values: Mapping[str, Any],
    describe: Callable[[Path], None] | None = None,
) -> Path:
    """Write the checkpoint of a step, atomically, and return its folder. Raises OutOfSpace before anything is written.

    `describe` adds the files that make the folder open as a model: its config and tokenizer.
    """
    folder = run / "checkpoints" / f"step-{step:06d}"
    need = sum(t.numel() * t.element_size() for tensors in (model, optimizer) for t in tensors.values())
    with durable.write_folder(folder, need=need) as temporary:
        for name, tensors in (("model", model), ("optimizer", optimizer)):
            # Copies of tensors that share memory (tied weights are stored once already, under one name).
            contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
            save_file(contiguous, temporary / f"{name}.safetensors", metadata={"format": "pt"})
        if describe is not None:
            describe(temporary)
        durable.write_text(temporary / "state.json", json.dumps({"step": step, **values}, allow_nan=False))
    return folder


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint. Raises CorruptFile if a file is missing, invalid or has changed since it was saved."""
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise CorruptFile(f"the checkpoint {folder} has no {' and no '.join(missing)}; {way_out(folder)}")
    try:
        durable.verify_folder(folder, skip=("README.md",))
        values = durable.parse_json(durable.read_file(folder / "state.json", MAX_STATE_BYTES), folder / "state.json")
        step = int(values["step"])
        model, optimizer = (load_file(folder / name) for name in FILES[:2])
    except (SafetensorError, ClearstoryError, ValueError, KeyError, TypeError, OverflowError, OSError) as reason:
        raise CorruptFile(f"the checkpoint {folder} is damaged ({reason}); {way_out(folder)}") from None
    named = FOLDER_NAME.fullmatch(folder.name)
    if named is not None and int(named[1]) != step:
        raise CorruptFile(
            f"the checkpoint {folder} is a renamed copy of the checkpoint of step {step:,}; {way_out(folder)}"
        )
    return Checkpoint(step, model, optimizer, values)


def way_out(folder: Path) -> str:
    """Advice for a checkpoint that cannot be read: the checkpoint to resume from after deleting it."""
    names = [path.name for path in list_checkpoints(folder.parent.parent)]
    before = names[: names.index(folder.name)] if folder.name in names else []
    return f"delete it to resume from {before[-1]}" if before else "delete it and restart the run"


def list_checkpoints(run: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first."""
    folders = (run / "checkpoints").glob("step-*")
    found = [(int(m[1]), path) for path in folders if (m := FOLDER_NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def prune_checkpoints(run: Path, keep: int) -> None:
    """Delete all checkpoints except the newest `keep` and that of step 0, the initial weights."""
    for path in list_checkpoints(run)[: -keep or None]:
        if int(path.name.removeprefix("step-")) > 0:
            durable.remove_folder(path)
