"""Sequence-level distillation: the outputs of a teacher for the training sources as targets. Kim and Rush 2016.

RUN/teacher/HASH.jsonl    a source and the teacher's output on each line; HASH is of the teacher and its settings
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from clearstory.errors import BadInput
from clearstory.formats.folders import OpenedModel, open_model
from clearstory.formats.lora.adapters import weights_fingerprint
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.recipes.settings.text_to_text import source_truncation, text_to_text_task
from clearstory.recipes.training.events import GenerationProgress, TrainingEvent
from clearstory.recipes.training.run_folder import TEACHER_FOLDER, RunFolder
from clearstory.tasks.data.examples import DataSplits, ParallelExample
from clearstory.tasks.text_generation import TargetDecoding, generate_targets, view_for_generation
from clearstory.tasks.text_to_text_format import TextToTextFormat
from clearstory.tasks.text_to_text_settings import TextToTextSettings

CHUNK = 512
"""Number of sources whose outputs are written together; an interrupted run loses at most these."""


@dataclass(frozen=True)
class Teacher:
    """A model with its decoding settings, and the file of its outputs in a run folder.

    Args:
        opened: the model.
        format: formats sources as its input.
        decoding: decoding settings of its targets.
        file: its outputs so far.
    """

    opened: OpenedModel
    format: TextToTextFormat
    decoding: TargetDecoding
    file: Path

    @classmethod
    def of(cls, recipe: FinetuneRecipe, folder: RunFolder) -> Teacher:
        """The teacher of a recipe. Raises BadInput for one without a tokenizer, CannotDo for one that does not generate
        text.
        """
        wanted, task = recipe.distillation, text_to_text_task(recipe.task)
        assert task is not None, "the settings are checked"
        assert wanted.teacher is not None, "the settings are checked"
        opened = open_model(wanted.teacher)
        if opened.tokenizer is None:
            raise BadInput(f"the teacher {wanted.teacher} has no tokenizer.json, so text cannot be tokenized")
        truncate, config = source_truncation(recipe.truncate), opened.generation_config
        format = TextToTextFormat.of(task, opened.model, opened.tokenizer, TextToTextSettings(), truncate, config)
        decoding = TargetDecoding.of(config, reads_source=format.reads_source, beam=wanted.teacher_num_beams)
        if not format.reads_source:
            format = replace(format, reserved=decoding.limit(1, format))
        parts = (weights_fingerprint(opened.model), opened.tokenizer.fingerprint, format.settings, truncate, decoding)
        digest = blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        return cls(opened, format, decoding, folder.path / TEACHER_FOLDER / f"{digest}.jsonl")

    def known_outputs(self) -> dict[str, str]:
        """The outputs in the file by source, without a last line that was not written whole."""
        found: dict[str, str] = {}
        for line in self.file.read_bytes().splitlines() if self.file.is_file() else ():
            try:
                source, target = json.loads(line)
            except ValueError:
                continue
            found[source] = target
        return found


def teacher_outputs(
    recipe: FinetuneRecipe, folder: RunFolder, examples: Iterable[ParallelExample]
) -> Generator[TrainingEvent, None, dict[str, str]]:
    """The teacher's output for each source, generated where the run folder does not have it yet; yields the progress.

    An interrupted run is continued by the same command.
    """
    teacher = Teacher.of(recipe, folder)
    outputs = teacher.known_outputs()
    locations = {example.source: example.location for example in examples}
    missing = [source for source in locations if source not in outputs]
    total = len(locations)
    if not missing:
        return outputs
    read = {source: teacher.format.encode_source(source, locations[source]).ids for source in missing}
    missing.sort(key=lambda source: -len(read[source]))
    lengths = [len(read[source]) for source in missing]
    model = view_for_generation(teacher.opened.model, teacher.format, lengths, teacher.decoding, "auto")
    teacher.file.parent.mkdir(parents=True, exist_ok=True)
    with teacher.file.open("ab") as file:
        file.write(b"\n")  # ends a line that was not written whole
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            made: dict[str, str] = {}
            try:
                for index, texts in generate_targets(
                    model, teacher.format, [read[each] for each in chunk], teacher.decoding
                ):
                    made[chunk[index]] = texts[0].text
                    yield GenerationProgress(what="teacher", done=total - len(missing) + start + len(made), total=total)
            finally:  # also after Ctrl-C
                file.write("".join(json.dumps(each) + "\n" for each in made.items()).encode())
                file.flush()
                os.fsync(file.fileno())
            outputs |= made
    return outputs


def with_teacher_targets(data: DataSplits[ParallelExample], outputs: Mapping[str, str]) -> DataSplits[ParallelExample]:
    """The data with the teacher's outputs as targets of the training sources; where one is empty, they stay."""
    examples = tuple(
        replace(each, targets=(outputs[each.source],)) if outputs[each.source] else each
        for each in unique_sources(data.train.examples)
    )
    empty = sum(not outputs[each.source] for each in examples)
    note = f"{len(examples) - empty:,} training targets are the teacher's outputs"
    if empty:
        note += f"; its outputs for {empty:,} other sources are empty, and their targets are kept"
    if repeated := len(data.train.examples) - len(examples):
        note += f"; {repeated:,} training examples with a source that occurs before are left out"
    return replace(data, train=replace(data.train, examples=examples), notes=(*data.notes, note))


def unique_sources(examples: Iterable[ParallelExample]) -> list[ParallelExample]:
    """The first example of each source."""
    found: dict[str, ParallelExample] = {}
    for example in examples:
        found.setdefault(example.source, example)
    return list(found.values())
