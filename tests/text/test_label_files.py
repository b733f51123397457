"""Files of labels are never taken for prose or for pairs; the error names the command that they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearstory.errors import BadInput
from clearstory.text.documents import is_parallel, read_documents
from clearstory.text.label_files import find_labeled_lines
from clearstory.text.read_notes import ReadNotes
from clearstory.text.settings import ReadSettings

LABELED = "1\tA joy to see.\n0\tIt drags on.\n" * 20


@pytest.mark.parametrize(
    ("name", "text", "task"),
    [
        ("a.txt", LABELED, "classify"),
        ("a.conll", "Ada\tB-PER\ncodes\tO\n\n" * 20, "tag"),
        ("a.txt", "(3 (2 It) (4 (2 's) (4 lovely)))\n(1 (2 It) (0 drags))\n" * 20, "classify"),
    ],
)
def test_labeled_lines_are_no_prose(tmp_path: Path, name: str, text: str, task: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(BadInput, match=rf"{name} has .*, not prose; .*clearstory finetune MODEL FILE --task {task}"):
        list(read_documents(path))
    assert next(read_documents(path, ReadSettings(lines=True))).text == text.split("\n")[0]


def test_labeled_rows_are_no_pairs(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(LABELED)
    with pytest.raises(
        BadInput, match=r"has labels, not pairs of texts: .* \(0, 1\); .*clearstory finetune MODEL FILE"
    ):
        is_parallel([path], ReadSettings())
    with pytest.raises(BadInput, match="or fine-tune a model on its labels with clearstory finetune"):
        list(read_documents(path))


@pytest.mark.parametrize(
    "lines",
    [
        ["To be, or not to be, that is the question:", "Whether 'tis nobler in the mind to suffer"],
        ["1:1\tIn the beginning God created", "1:2\tAnd the earth was without form"],
        ["the\t1021", "of\t734", "and\t611", "vitamin B-12"],
        ["for i in range(3):", "\tprint(i)", "\treturn O"],
        ["Hello.\tHallo.", "Bye.\tTschüss."],
        ["name\tage", "Ada\t36"],
    ],
)
def test_prose_and_code_and_lists_stay_text(lines: list[str]) -> None:
    many = ["\t".join(f"{field} {number}" for field in line.split("\t")) for number in range(20) for line in lines]
    assert find_labeled_lines(many) is None


@pytest.mark.parametrize(
    ("name", "text"), [("a.csv", "text,label\nA joy.,1\n"), ("a.jsonl", '{"text": "a", "label": 1}\n')]
)
def test_labels_that_are_not_read_are_noted(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    notes = ReadNotes()
    assert len(list(read_documents(path, notes=notes))) == 1
    assert f"{name} has labels in 'label', which are ignored" in str(notes.text)
    with pytest.raises(BadInput, match="fine-tune a model on its labels with clearstory finetune"):
        list(read_documents(path, ReadSettings(text_field="body")))
