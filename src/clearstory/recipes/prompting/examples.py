"""Examples of prompting: labeled texts with all their columns, or questions with their own choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput, BadSetting, UnknownName, nearest
from clearstory.tasks.data.choices import ANSWERS, PAIR, QUESTIONS, ChoiceQuestion, find_choices, read_choice_questions
from clearstory.tasks.data.columns import choose_column, find_named, plain
from clearstory.tasks.data.data_files import RECORD_FILES, find_data_files
from clearstory.tasks.data.examples import DataSplits, LabeledData, LabeledText
from clearstory.tasks.data.labeled_texts import read_labeled_texts
from clearstory.tasks.data.records import RecordTable, read_table
from clearstory.tasks.data.settings import LabelSettings
from clearstory.tasks.data.splits import split_data
from clearstory.text.read_notes import ReadNotes


@dataclass(frozen=True)
class PromptExample:
    """One example.

    Args:
        fields: its texts by name, "text" among them.
        candidates: the answers to choose from, as they are written in the prompt.
        answer: index of the right one.
        location: file and line.
    """

    fields: Mapping[str, str]
    candidates: tuple[str, ...]
    answer: int
    location: str = ""

    @property
    def label(self) -> str:
        """The right answer."""
        return self.candidates[self.answer]


@dataclass(frozen=True)
class PromptData:
    """Examples for the prompt and test examples.

    Args:
        shown: the training part, from which examples are sampled.
        test: the test examples.
        labels: the candidate answers, if they are the same for all examples; () if each has its own choices.
        notes: notes on the files.
        name: name of the test examples.
    """

    shown: tuple[PromptExample, ...]
    test: tuple[PromptExample, ...]
    labels: tuple[str, ...]
    notes: tuple[str, ...]
    name: str

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that every example has."""
        every = [set(each.fields) for each in (*self.shown, *self.test)]
        return tuple(sorted(set.intersection(*every))) if every else ()


def read_prompt_data(
    examples: str, test: str, settings: LabelSettings, verbalizers: Sequence[str], limit: int | None, seed: int
) -> PromptData:
    """Read the examples of `examples` and `test`, a file or the fraction of the examples that is held out.

    `verbalizers` are LABEL=WORD, the word for a label in the prompt. At most `limit` test examples are
    used, sampled by `seed`. Raises BadInput for data without labels or choices, UnknownName for an unknown label.
    """
    splits, fields = read_splits(examples, test, settings, seed)
    held_out = splits.test or splits.validation
    if not held_out.examples:
        raise BadInput(f"{examples} has no example left for testing; give a file with --test")
    answered = list(held_out.examples)
    if limit is not None and limit < len(answered):
        import random

        answered = random.Random(f"{seed} test").sample(answered, limit)
    if splits.train.kind == "choices":
        if verbalizers:
            raise BadSetting("labels is for words of labels, but each question has its own choices; leave it out")
        shown = tuple(map(question_example, splits.train.examples))
        return PromptData(shown, tuple(map(question_example, answered)), (), tuple(splits.notes), held_out.name)
    words = verbalized(splits.train.label_names, verbalizers)
    names = splits.train.label_names

    def example(each: LabeledText) -> PromptExample:
        extra = {} if each.pair is None else {"pair": each.pair}
        values = {**fields.get(each.location, {}), "text": each.text, **extra}
        return PromptExample(values, words, names.index(each.labels[0]), each.location)

    return PromptData(
        tuple(map(example, splits.train.examples)),
        tuple(map(example, answered)),
        words,
        (*splits.train.notes, *splits.notes),
        held_out.name,
    )


def read_splits(
    examples: str, test: str, settings: LabelSettings, seed: int
) -> tuple[DataSplits, dict[str, dict[str, str]]]:  # type: ignore[type-arg]  # of labeled texts or of questions
    """Training and test examples, and the texts of all columns of each row by its place."""
    notes = ReadNotes()
    sources = [examples]
    share = share_of(test)
    if not all(expand_home(each).exists() for each in sources):
        find_data_files(sources, settings.reading, RECORD_FILES)  # raises
    table: RecordTable | None = None
    fields: dict[str, dict[str, str]] = {}
    try:
        for source in [examples, *([] if share is not None else [test])]:
            table = read_table(find_data_files([source], settings.reading, RECORD_FILES), settings, notes)
            fields |= {
                each.location: {name: str(value) for name, value in each.values.items() if is_field(value)}
                for each in table.records
            }
    except BadInput:
        table = None  # trees or a folder for each label
    read = read_choice_questions if table is not None and has_choices(table, settings) else read_labeled_texts
    data: LabeledData[Any] = read([examples], settings)
    held: float | LabeledData[Any] = read([test], settings) if share is None else share
    if data.kind not in ("single", "choices"):
        raise BadInput(
            f"{data.name} has several labels or numbers per text, but a prompt has one answer; give one label per text"
        )
    return split_data(data, validation=0.0, test=held, seed=seed), fields


def is_field(value: object) -> bool:
    """Whether a value can be used in a prompt."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def share_of(test: str) -> float | None:
    """The share of the examples that is held out; None for a file."""
    try:
        share = float(test)
    except ValueError:
        return None
    if not 0 < share < 1:
        raise BadSetting(f"test is {test}; give a fraction between 0 and 1, such as 0.2, or a file")
    return share


def has_choices(table: RecordTable, settings: LabelSettings) -> bool:
    """Whether the rows of a table are questions with their own choices."""
    names = {plain(column) for column in table.columns}
    if set(PAIR) <= names and not settings.text_column:
        return True
    chosen = settings.text_column and choose_column(table, settings.text_column, "--text-column")
    question = chosen or find_named(table.columns, QUESTIONS)
    answer = settings.label_column or find_named([each for each in table.columns if each != question], ANSWERS)
    return question is not None and answer is not None and bool(find_choices(table, question, answer))


def question_example(each: ChoiceQuestion) -> PromptExample:
    """A question as an example, with its choices as lines too."""
    lines = "\n".join(f"{'ABCDEFGHIJ'[at % 10]}. {choice}" for at, choice in enumerate(each.choices))
    fields = {"text": each.question, "question": each.question, "choices": lines}
    return PromptExample(fields, each.choices, each.answer_index, each.location)


def verbalized(names: Sequence[str], verbalizers: Sequence[str]) -> tuple[str, ...]:
    """The word of each label: the one that is given, else its name.

    >>> verbalized(["neg", "pos"], ["pos=great,neg=terrible"])
    ('terrible', 'great')
    """
    words = {name: name for name in names}
    for each in (part for given in verbalizers for part in given.split(",")):
        name, separator, word = each.partition("=")
        if not separator or not word.strip():
            raise BadSetting(f"labels has {each[:40]!r}; write LABEL=WORD, such as positive=great")
        if name.strip() not in words:
            raise UnknownName(f"there is no label {name.strip()[:40]!r} in the data; {nearest(name.strip(), names)}")
        words[name.strip()] = word.strip()
    found = tuple(words.values())
    twice = next((word for word in found if found.count(word) > 1), None)
    if twice is not None:
        raise BadSetting(f"labels has the word {twice!r} for two labels; give each its own")
    return found


def content_free(example: PromptExample, text: str) -> PromptExample:
    """The example with this text in place of every field: a content-free input. Zhao et al. 2021, section 4."""
    return replace(example, fields=dict.fromkeys(example.fields, text))
