"""Checkpoint: a run that can be gone on with, as if it had never stopped.

    RUN/checkpoints/step-000500/
        model.safetensors        weights, under their own names
        optimizer.safetensors    what the optimizers remember of each
        state.json               the step, the plan, the best so far: everything that is not a tensor

Files are what torch's distributed checkpoint calls its Hugging Face storage: `HuggingFaceStorageReader` reads them, on
any number of ranks. One process writes them through `safetensors` itself: torch.distributed.checkpoint takes 1.3 s to
import, and its plain format carries a pickle. Nothing here is ever unpickled.
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
from clearstory.errors import CorruptFile

NAME = re.compile(r"step-(\d{6,})")
FILES = ("model.safetensors", "optimizer.safetensors", "state.json")


@dataclass(frozen=True)
class Checkpoint:
    """What a folder of this kind holds."""

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
    """Write the checkpoint of a step; its folder. Whole or not at all. Raises OutOfSpace before anything is written.

    `describe` adds what a reader of models wants to find beside the weights.
    """
    folder = run / "checkpoints" / f"step-{step:06d}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    need = sum(t.numel() * t.element_size() for tensors in (model, optimizer) for t in tensors.values())
    with durable.write_folder(folder, need=need) as temporary:
        for name, tensors in (("model", model), ("optimizer", optimizer)):
            # Copies of what shares memory (tied weights are stored once already, under one name).
            whole = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
            save_file(whole, temporary / f"{name}.safetensors", metadata={"format": "pt"})
        if describe is not None:
            describe(temporary)
        (temporary / "state.json").write_text(json.dumps({"step": step, **values}, allow_nan=False), encoding="utf-8")
    return folder


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint. Raises CorruptFile when something is missing or not what it should be."""
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise CorruptFile(
            f"the checkpoint {folder} has no {' and no '.join(missing)}; resume from another, or delete it"
        )
    try:
        values = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        step = int(values["step"])
        model, optimizer = (load_file(folder / name) for name in FILES[:2])
    except (SafetensorError, ValueError, KeyError, TypeError, OSError) as reason:
        raise CorruptFile(
            f"the checkpoint {folder} cannot be read ({reason}); resume from another, or delete it"
        ) from None
    return Checkpoint(step, model, optimizer, values)


def list_checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    folder = run / "checkpoints"
    found = [(int(m[1]), path) for path in folder.glob("step-*") if (m := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def prune_checkpoints(run: Path, keep: int) -> None:
    """Delete all checkpoints but the newest `keep` and that of step 0, from which learning can be watched."""
    for path in list_checkpoints(run)[: -keep or None]:
        if int(path.name.removeprefix("step-")) > 0:
            durable.remove_folder(path)
