"""Checkpoint averaging: the mean of the weights of a run's last evaluations. Vaswani et al. 2017, section 6.1.

RUN/averaging/step-000064.safetensors    trained weights at an evaluation; the last ones are kept
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from clearstory import durable
from clearstory.errors import CorruptFile
from clearstory.recipes.training.events import ModelSaved, TrainingEvent, TrainingNote
from clearstory.recipes.training.training_run import TrainingRun
from clearstory.training.base import load_weights, trainable_weights

FOLDER = "averaging"
NAME = re.compile(r"step-(\d{6,})\.safetensors")


def saved_steps(run: TrainingRun) -> dict[int, Path]:
    """The files of kept weights by their steps, in order."""
    files = (run.folder.path / FOLDER).glob("step-*.safetensors")
    return dict(sorted((int(match[1]), path) for path in files if (match := NAME.fullmatch(path.name))))


def keep_weights(run: TrainingRun) -> None:
    """Write the trained weights of an evaluation, and delete those of earlier ones that will not be averaged."""
    count, step = run.settings.average_checkpoints, run.trainer.step
    if not count or not run.trainer.complete_after_each_step:
        return
    folder = run.folder.path / FOLDER
    folder.mkdir(exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in trainable_weights(run.model).items()}
    temporary = folder / f"step-{step:06d}.partial"
    save_file(weights, temporary)
    temporary.replace(folder / f"step-{step:06d}.safetensors")
    for path in list(saved_steps(run).values())[:-count]:
        durable.remove_file(path)


def remove_weights_after(run: TrainingRun) -> None:
    """Delete the weights of evaluations after the trainer's step, which a resumed run takes again."""
    for step, path in saved_steps(run).items():
        if step > run.trainer.step:
            durable.remove_file(path)


def average_weights(run: TrainingRun) -> Iterator[TrainingEvent]:
    """Evaluate the mean of the kept weights, and keep it as the model where it is the best of the run; events of it.

    The trainer's own weights are as before.
    """
    kept = saved_steps(run) if run.settings.average_checkpoints else {}
    if len(kept) < 2:
        return
    own = {f"model.{name}": tensor.clone() for name, tensor in trainable_weights(run.model).items()}
    load_weights(run.model, mean_of_files(list(kept.values())))
    steps = f"the mean of the weights of the last {len(kept)} evaluations (from step {min(kept):,})"
    if not run.validates:
        run.save_best_model(None)
        run.keeps_average = True
        yield TrainingNote(message=f"{steps} is kept")
    else:
        validation = run.evaluate(run.eval_tokens)
        is_best = validation.criterion < run.best_criterion
        if is_best:
            run.save_best_model(validation)
            run.best_criterion, run.best_step, run.keeps_average = validation.criterion, run.trainer.step, True
        run.log(kind="average", steps=list(kept), best=is_best, **run.validation.record(validation))
        loss = f"validation {validation.score.nats_per_token:.3f} nats per {run.validation.objective.loss_unit}"
        yield TrainingNote(message=f"{steps}: {loss}, {'best so far' if is_best else 'not better than the best'}")
    load_weights(run.model, own)
    if run.keeps_average:
        yield ModelSaved(step=run.trainer.step, path=run.folder.model_folder, kind="model")


def mean_of_files(files: list[Path]) -> dict[str, Tensor]:
    """The mean of the tensors of files, in fp32 at least, under their names with "model." before; integers are those of
    the last one. Raises CorruptFile.
    """
    means: dict[str, Tensor] = {}
    for count, file in enumerate(files, start=1):
        try:
            tensors = load_file(file)
        except Exception as error:
            raise CorruptFile(f"{file} cannot be read ({error}); delete it to average the others") from None
        for name, tensor in tensors.items():
            if count == 1 or not tensor.dtype.is_floating_point:
                means[f"model.{name}"] = tensor.double() if tensor.dtype.is_floating_point else tensor
            else:
                means[f"model.{name}"] += (tensor.double() - means[f"model.{name}"]) / count
    return {name: mean.to(torch.float32) if mean.dtype == torch.float64 else mean for name, mean in means.items()}
