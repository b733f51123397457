"""Questions with choices: ARC's, HellaSwag's, PIQA's and BLiMP's columns, or a question, its choices and the answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearstory.errors import BadInput
from clearstory.tasks.data.columns import choose_column, find_named, plain
from clearstory.tasks.data.data_files import RECORD_FILES, find_data_files
from clearstory.tasks.data.examples import LabeledData
from clearstory.tasks.data.records import LabelRecord, RecordTable, read_table
from clearstory.tasks.data.settings import LabelSettings
from clearstory.tasks.data.text_columns import find_split_column, part_of_record
from clearstory.text.read_notes import ReadNotes

QUESTIONS = ("question", "query", "goal", "context", "ctx", "prompt", "text", "sentence", "premise", "passage", "input")
CHOICES = ("choices", "options", "endings", "answers", "candidates", "alternatives")
ANSWERS = ("answerkey", "answer", "gold", "label", "correct", "correctanswer", "target", "answeridx", "labelidx")
PAIR = ("sentencegood", "sentencebad")
"""Columns of minimal pairs without a question; the first sentence is correct."""

NUMBERED = re.compile(r"(?:sol|choice|ending|option|answer|distractor)?_?([0-9a-e])", re.IGNORECASE)
"""Columns of single choices: sol1, choice2, ending0, option_b, A."""


@dataclass(frozen=True)
class ChoiceQuestion:
    """A question, or the beginning of a text, with its choices.

    Args:
        question: the text before the choices; "" if choices are complete texts.
        choices: the choices, at least two.
        answer_index: index of the correct choice.
    """

    question: str
    choices: tuple[str, ...]
    answer_index: int
    location: str = ""
    part: str = ""

    @property
    def text(self) -> str:
        """The question with its choices, by which equal examples are found."""
        return " | ".join((self.question, *self.choices))


@dataclass(frozen=True)
class ChoiceColumns:
    """The columns of the question, of the choices (one of lists, or several), of the answer and of the part."""

    question: str | None
    choices: tuple[str, ...]
    answer: str | None
    split: str | None = None


def read_choice_questions(
    sources: Iterable[str | Path] | str | Path, settings: LabelSettings | None = None
) -> LabeledData[ChoiceQuestion]:
    """Questions with their choices, from csv, tsv, jsonl or parquet. Raises BadInput, with file and line.

    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp(), "quiz.jsonl")
    >>> _ = file.write_text('{"question": "2 + 2?", "choices": ["3", "4"], "answer": "4"}')
    >>> read_choice_questions(file).examples[0].answer_index
    1
    """
    settings = settings or LabelSettings()
    notes = ReadNotes()
    sources = [sources] if isinstance(sources, str | Path) else list(sources)
    table = read_table(find_data_files(sources, settings.reading, RECORD_FILES), settings, notes)
    columns = choice_columns(table, settings)
    examples = tuple(choice_question(record, columns, settings.reading.errors) for record in table.records)
    read = " and ".join(map(repr, columns.choices))
    described = f"choices from {read}" if columns.question is None else f"question from {columns.question!r}, {read}"
    return LabeledData(examples, kind="choices", notes=(described, *notes.sentences()), name=Path(sources[0]).name)


def choice_columns(table: RecordTable, settings: LabelSettings) -> ChoiceColumns:
    """The columns by their usual names, or as named. Raises BadInput if choices or answers are not found."""
    split = find_split_column(table, settings)
    names = {plain(column): column for column in table.columns}
    if all(name in names for name in PAIR) and not settings.text_column:
        return ChoiceColumns(None, tuple(names[name] for name in PAIR), None, split)
    question = (
        choose_column(table, settings.text_column, "--text-column")
        if settings.text_column
        else find_named(table.columns, QUESTIONS)
    )
    answer = (
        choose_column(table, settings.label_column, "--label-column")
        if settings.label_column
        else find_named([column for column in table.columns if column != question], ANSWERS)
    )
    choices = find_choices(table, question, answer)
    if not choices:
        raise BadInput(
            f"{table.name} has no column of choices (its columns are {table.listed_columns}); give a list named "
            "'choices', or columns 'choice1', 'choice2'"
        )
    if answer is None:
        raise BadInput(
            f"{table.name} has choices and no answer (its columns are {table.listed_columns}); name the column with "
            "--label-column"
        )
    return ChoiceColumns(question, choices, answer, split)


def find_choices(table: RecordTable, question: str | None, answer: str | None) -> tuple[str, ...]:
    """The column with lists of choices, else the columns with one choice each; () where there is neither."""
    left = [column for column in table.columns if column not in (question, answer)]
    named = find_named(left, CHOICES)
    if named is not None:
        return (named,)
    if question is not None and table.records and isinstance(table.records[0].values.get(question), dict):
        return (question,)  # ARC's own files: question.stem and question.choices
    numbers = {found[1].lower(): column for column in left if (found := NUMBERED.fullmatch(column.strip()))}
    in_order = any("".join(sorted(numbers)) == every[: len(numbers)] for every in ("abcde", "0123456789", "123456789"))
    return tuple(numbers[each] for each in sorted(numbers)) if len(numbers) > 1 and in_order else ()


def choice_question(record: LabelRecord, columns: ChoiceColumns, errors: str = "strict") -> ChoiceQuestion:
    """One question. Raises BadInput for an empty choice, fewer than two choices, or an answer that is not a choice."""
    values = record.values
    part = record.part
    if columns.split is not None:
        part = part_of_record(values.get(columns.split), record.location)
    given: Any = values.get(columns.question) if columns.question is not None else ""
    found: Any = values.get(columns.choices[0]) if len(columns.choices) == 1 else None
    if isinstance(given, dict):  # ARC's own files
        given, found = given.get("stem"), given.get("choices")
    labels: list[str] = []
    if len(columns.choices) > 1:
        texts = [values.get(column) for column in columns.choices]
    else:
        labels, texts = labels_and_texts(found)
    if columns.question is not None and (not isinstance(given, str) or not given.strip()):
        raise BadInput(f"{record.location}: the question is empty; complete the row or remove it")
    if len(texts) < 2:
        raise BadInput(f"{record.location} has {len(texts)} choice{'s' * (len(texts) != 1)}; give at least two")
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str | int | float) or not str(text).strip():
            raise BadInput(
                f"{record.location}: choice {number} of {len(texts)} is empty; complete it or remove the row"
            )
    choices = tuple(str(text).strip() for text in texts)
    answer = 0 if columns.answer is None else find_answer(values.get(columns.answer), choices, labels, record.location)
    return ChoiceQuestion(str(given).strip(), choices, answer, record.location, part)


def labels_and_texts(found: Any) -> tuple[list[str], list[Any]]:
    """Labels (of none, []) and texts of choices: a list of texts, of objects with both, or an object of two lists."""
    if isinstance(found, dict):
        texts = found.get("text")
        return list(map(str, found.get("label") or ())), list(texts) if isinstance(texts, list) else []
    if not isinstance(found, list):
        return [], []
    if found and all(isinstance(each, dict) for each in found):
        labels = [str(each["label"]) for each in found if "label" in each]
        return labels if len(labels) == len(found) else [], [each.get("text") for each in found]
    return [], found


def find_answer(value: Any, choices: Sequence[str], labels: Sequence[str], location: str) -> int:
    """Index of the right choice, named by its label, its text, its letter or its index from 0."""
    text = str(value).strip()
    if isinstance(value, bool) or value is None or not text:
        raise BadInput(f"{location} has no answer; add it or remove the row")
    if text in labels:
        return labels.index(text)
    if isinstance(value, str) and text in choices:
        return choices.index(text)
    if text.isascii() and text.isdecimal() and int(text) < len(choices):
        return int(text)
    letter = ord(text.upper()) - ord("A") if len(text) == 1 else -1
    if 0 <= letter < len(choices):
        return letter
    known = ", ".join(repr(each[:30]) for each in (labels or choices))
    raise BadInput(f"{location}: the answer {text[:40]!r} is not one of the choices ({known}); correct it")
