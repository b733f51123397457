"""Conversations in every form in which files have them, and what cannot be read of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clearstory.errors import BadInput
from clearstory.tasks.data.conversations import read_conversations
from clearstory.tasks.data.settings import LabelSettings

ASKED, ANSWERED = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ahoy."}

RECORDS: dict[str, dict[str, Any]] = {
    "openai": {"messages": [ASKED, ANSWERED]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "H"}, {"text": "i"}]}, ANSWERED]},
    "sharegpt": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ahoy."}]},
    "pair": {"prompt": "Hi", "completion": "Ahoy."},
    "lists": {"prompt": [ASKED], "completion": [ANSWERED]},
    "question": {"question": "Hi", "answer": "Ahoy."},
    "alpaca": {"instruction": "Hi", "input": "", "output": "Ahoy."},
}


def write(path: Path, *records: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_every_form_has_the_same_messages(record: dict[str, Any], tmp_path: Path) -> None:
    data = read_conversations([write(tmp_path / "chats.jsonl", record)])
    [example] = data.examples
    assert list(example.messages) == [ASKED, ANSWERED]
    assert (example.text, example.answer, data.kind) == ("Hi", "Ahoy.", "conversations")
    assert example.location.endswith("chats.jsonl, line 1")
    with_system = read_conversations([write(tmp_path / "system.jsonl", {**record, "system": "Be brief."})])
    if "lists" not in str(record) and not isinstance(record.get("prompt"), list):
        assert with_system.examples[0].messages[0] == {"role": "system", "content": "Be brief."}


def test_what_comes_before_a_completion_is_only_read(tmp_path: Path) -> None:
    record = {"prompt": [ASKED, ANSWERED, ASKED], "completion": [ANSWERED]}
    [example] = read_conversations([write(tmp_path / "a.jsonl", record)]).examples
    assert [each.get("weight") for each in example.messages] == [None, 0, None, None]
    alpaca = {"instruction": "Add.", "input": "1 and 1", "output": "2"}
    [example] = read_conversations([write(tmp_path / "b.jsonl", alpaca)]).examples
    assert example.messages[0]["content"] == "Add.\n\n1 and 1"


def test_tables_and_parquet_are_read_with_their_parts(tmp_path: Path) -> None:
    file = tmp_path / "chats.csv"
    file.write_text("prompt,response,split\nHi,Ahoy.,train\nBye,So long.,test\n", encoding="utf-8")
    assert [each.part for each in read_conversations([str(file)]).examples] == ["train", "test"]
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: clearstory[data]")
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist([RECORDS["openai"], {"messages": [ASKED, {**ANSWERED, "name": "Mira"}]}])
    parquet.write_table(table, tmp_path / "chats.parquet")
    examples = read_conversations([str(tmp_path / "chats.parquet")]).examples
    assert [len(each.messages) for each in examples] == [2, 2]
    assert examples[1].location.endswith("chats.parquet, row 2")


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"messages": [ASKED]}, "line 2: this conversation has no assistant message"),
        (
            {"messages": [{"role": "narrator", "content": "x"}]},
            "line 2: message 1 has the role 'narrator'; known roles",
        ),
        ({"messages": [ASKED, {"role": "assistant", "content": " "}]}, r"line 2: message 2 \(assistant\) has no text"),
        ({"messages": ["Hi"]}, "line 2: message 1 is 'Hi'; give"),
        ({"messages": []}, "not a supported conversation format|give a list of them"),
        ({"messages": [ASKED, {**ANSWERED, "content": None, "tool_calls": [{}]}]}, "has tool calls"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, ANSWERED]}, "part of the type 'image'"),
        ({"messages": [ASKED, {**ANSWERED, "weight": 0.5}]}, "weight '0.5'; it must be 0"),
        ({"text": "plain"}, "line 2 has 'text', which is not a supported conversation format"),
        ({"prompt": "Hi", "completion": [ANSWERED]}, "are a text and a list"),
        ({"prompt": "Hi", "completion": " "}, "'completion' is empty"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:24],
)
def test_a_broken_conversation_is_named_with_its_line(record: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=sentence) as error:
        read_conversations([write(tmp_path / "chats.jsonl", RECORDS["openai"], record)], LabelSettings())
    assert "\n" not in str(error.value)


def test_a_table_without_names_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "chats.tsv"
    file.write_text("Hi\tAhoy.\nBye\tSo long.\n", encoding="utf-8")
    with pytest.raises(BadInput, match="has no column names"):
        read_conversations([str(file)])
