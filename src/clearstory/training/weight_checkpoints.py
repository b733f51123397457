"""Weight checkpoints: a model's weights at about twelve log-spaced steps of a run, for views over training.

    RUN/checkpoints/weights-000064/
        model.safetensors, config.json, tokenizer.json ...    opens as a model

A run resumes from `step-` folders, of which only the newest are kept; these have no optimizer state and stay.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from clearstory import durable
from clearstory.training.checkpoint import list_checkpoints

WEIGHTS_NAME = re.compile(r"weights-(\d{6,})")


@lru_cache(maxsize=8)
def log_spaced_steps(total: int, count: int) -> tuple[int, ...]:
    """`count` log-spaced steps from 0 to `total`; all of them if there are fewer.

    >>> log_spaced_steps(1000, 12)
    (0, 1, 2, 4, 8, 16, 32, 64, 127, 253, 503, 1000)
    >>> log_spaced_steps(20, 12)
    (0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20)
    """
    if count <= 2:
        return (0, total)
    steps = [0, 1]
    while steps[-1] < total:
        ratio = (total / steps[-1]) ** (1 / max(1, count - len(steps)))
        steps.append(max(steps[-1] + 1, round(steps[-1] * ratio)))
    return tuple(steps)


def thin_steps(steps: Iterable[int], count: int) -> list[int]:
    """`count` of the steps, at ratios as equal as possible, the first and the last included.

    >>> thin_steps([0, 1, 2, 3, 4, 6, 8, 900, 1000], 6)
    [0, 1, 4, 8, 900, 1000]
    """
    left = sorted(steps)
    while len(left) > max(2, count):
        logs = [math.log1p(step) for step in left]
        gaps = [after - before for before, after in zip(logs, logs[2:], strict=False)]
        del left[1 + gaps.index(min(gaps))]
    return left


def is_weight_step(step: int, saved: int, total: int, count: int) -> bool:
    """Whether a log-spaced step has been reached since step `saved`, so that weights are saved at this step.

    `total` is the number of steps as planned now. Under a time limit it changes during the run, and the steps with it.
    """
    return any(saved < each <= step for each in log_spaced_steps(total, count))


def save_weights(run: Path, step: int, model: Mapping[str, Tensor], describe: Callable[[Path], None]) -> Path:
    """Write the weights of a step, atomically, and return their folder. Raises OutOfSpace before anything is written.

    `describe` adds the files that make the folder open as a model: its config and tokenizer, or an adapter.
    """
    folder = run / "checkpoints" / f"weights-{step:06d}"
    need = sum(tensor.numel() * tensor.element_size() for tensor in model.values())
    with durable.write_folder(folder, need=need) as temporary:
        if model:
            contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in model.items()}
            save_file(contiguous, temporary / "model.safetensors", metadata={"format": "pt"})
        describe(temporary)
    return folder


def list_weights(run: Path) -> dict[int, Path]:
    """The weight checkpoints of a run by their steps, in order."""
    folders = (run / "checkpoints").glob("weights-*")
    return dict(sorted((int(match[1]), path) for path in folders if (match := WEIGHTS_NAME.fullmatch(path.name))))


def list_saved_models(run: Path) -> dict[int, Path]:
    """The folder of every saved step of a run, in order: weight checkpoints, and those to resume from."""
    found = {int(path.name.removeprefix("step-")): path for path in list_checkpoints(run)} | list_weights(run)
    return dict(sorted(found.items()))


def prune_weights(run: Path, count: int) -> None:
    """Delete weight checkpoints until there are `count` with step 0, at ratios as equal as possible."""
    found = list_weights(run)
    kept = thin_steps({0, *found}, count)
    for step, path in found.items():
        if step not in kept:
            durable.remove_folder(path)


def remove_weights_after(run: Path, step: int) -> None:
    """Delete the weight checkpoints of later steps, which a resumed run repeats."""
    for each, path in list_weights(run).items():
        if each > step:
            durable.remove_folder(path)
