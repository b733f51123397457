"""Parallel examples: sources with their translations or summaries, of files of pairs or of two line-aligned files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from clearstory.errors import BadInput, BadSetting
from clearstory.tasks.data.data_files import DataFile, find_data_files
from clearstory.tasks.data.examples import LabeledData, ParallelExample
from clearstory.tasks.data.settings import LabelSettings
from clearstory.text.files import content_suffix, without_surrogates
from clearstory.text.parallel_text import READERS, check_not_labels, read_parallel
from clearstory.text.read_notes import ReadNotes
from clearstory.text.settings import ReadSettings


def read_parallel_examples(
    sources: Sequence[str | Path], settings: LabelSettings | None = None
) -> LabeledData[ParallelExample]:
    """Sources with all their targets. A field with a list of references gives an example with several targets.

    Raises BadInput, with file and line, for a record without a source or a target, for files of unequal length, and for
    labels in place of texts, unless the columns are named.

    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp(), "news.jsonl")
    >>> _ = file.write_text('{"document": "It rained. A lot.", "summary": "Rain."}\\n')
    >>> read_parallel_examples([str(file)]).examples[0].targets
    ('Rain.',)
    """
    settings = settings or LabelSettings()
    reading, notes = pair_settings(settings), ReadNotes()
    files = find_data_files(sources, reading, tuple(READERS))
    examples: list[ParallelExample] = []
    for part, paths in group_files(files):
        if settings.text_column is None and settings.pair_column is None:
            refuse_labels(paths, reading)
        for location, source, targets, lead in read_parallel(paths, reading, notes):
            source, lead, *known = (
                without_surrogates(location, text, settings.errors) for text in (source, lead, *targets)
            )
            examples.append(ParallelExample(source, tuple(known), location, part, lead))
    name = Path(sources[0]).name + (f" and {len(sources) - 1} more" if len(sources) > 1 else "")
    if not examples:
        raise BadInput(f"{name} is empty; give a file with pairs of a source and its target")
    references = sum(len(example.targets) for example in examples)
    several = f", {references:,} references" if references > len(examples) else ""
    described = f"{len(examples):,} sources{several}"
    return LabeledData(tuple(examples), (), "targets", (described, *notes.sentences()), name=name)


def pair_settings(settings: LabelSettings) -> ReadSettings:
    """How files are read as pairs: --text-column names the source, --pair-column the target."""
    given = {
        "label_column": settings.label_column,
        "negative_column": settings.negative_column,
        "split_column": settings.split_column,
        "labels": settings.labels,
    }
    if name := next((name for name, value in given.items() if value is not None), None):
        raise BadSetting(
            f"{name} is for labels, but pairs have a source (--text-column) and a target (--pair-column); leave it out"
        )
    usual = ReadSettings()
    return ReadSettings(
        pairs=True,
        source_field=settings.text_column or usual.source_field,
        target_field=settings.pair_column or usual.target_field,
        encoding=settings.encoding,
        errors=settings.errors,
    )


def group_files(files: Iterable[DataFile]) -> list[tuple[str, list[Path]]]:
    """Files that are read together, with their part of the data set: two of plain text, or one with pairs."""
    files = list(files)
    plain = [file.path for file in files if content_suffix(file.path) not in READERS]
    others = [(file.part, [file.path]) for file in files if content_suffix(file.path) in READERS]
    if plain and others:
        raise BadInput(
            f"{plain[0]} has no pairs, unlike {others[0][1][0]}; give {' '.join(READERS)} files, or two line-aligned "
            "files"
        )
    return others or [("", plain)]


def refuse_labels(paths: Sequence[Path], reading: ReadSettings) -> None:
    """Raise BadInput if one side of the pairs has labels."""
    try:
        check_not_labels(paths, reading)
    except BadInput as error:
        found = str(error).partition(";")[0]
        raise BadInput(
            f"{found}; use --task classify, or name the columns of the texts with --text-column and --pair-column"
        ) from None
