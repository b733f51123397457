"""Conversations: messages of users and an assistant, read from jsonl, json, parquet, csv and folders of `datasets`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clearstory.errors import BadInput
from clearstory.tasks.data.data_files import RECORD_FILES, find_data_files
from clearstory.tasks.data.examples import LabeledData
from clearstory.tasks.data.records import read_table
from clearstory.tasks.data.settings import LabelSettings
from clearstory.tasks.data.text_columns import find_split_column, part_of_record
from clearstory.text.assistant_tokens import ASSISTANT
from clearstory.text.messages import PROMPTS, messages_of
from clearstory.text.read_notes import ReadNotes


@dataclass(frozen=True)
class ConversationExample:
    """A conversation; each message has a role and a content."""

    messages: tuple[dict[str, Any], ...] = field(default=())
    location: str = ""
    part: str = ""

    @property
    def text(self) -> str:
        """The system and user messages, by which equal conversations are found."""
        return "\n".join(each["content"] for each in self.messages if each["role"] != ASSISTANT)

    @property
    def answer(self) -> str:
        """The assistant's messages."""
        return "\n".join(each["content"] for each in self.messages if each["role"] == ASSISTANT)


def read_conversations(
    sources: Sequence[str], settings: LabelSettings | None = None
) -> LabeledData[ConversationExample]:
    """The conversations of files, in any of the forms of `messages_of`. Raises BadInput, with file and line.

    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp(), "chats.jsonl")
    >>> _ = file.write_text('{"prompt": "Hi", "completion": "Hello!"}')
    >>> [message["role"] for message in read_conversations([str(file)]).examples[0].messages]
    ['user', 'assistant']
    """
    settings, notes = settings or LabelSettings(), ReadNotes()
    table = read_table(find_data_files(sources, settings.reading, (*RECORD_FILES, ".txt")), settings, notes)
    if not table.has_header:
        raise BadInput(
            f"{table.name} has no column names, so prompts and answers are unknown; name the columns "
            f"{PROMPTS[0]!r} and 'completion'"
        )
    split = find_split_column(table, settings)
    examples = []
    for record in table.records:
        part = record.part if split is None else part_of_record(record.values.get(split), record.location)
        examples.append(ConversationExample(messages_of(record.values, record.location), record.location, part))
    turns = Counter(sum(each["role"] == ASSISTANT for each in example.messages) for example in examples)
    answers = sum(count * number for count, number in turns.items())
    described = f"{len(examples):,} conversations with {answers:,} messages of the assistant"
    name = Path(sources[0]).name + (f" and {len(sources) - 1} more" if len(sources) > 1 else "")
    return LabeledData(tuple(examples), (), "conversations", (described, *notes.sentences()), name=name)
