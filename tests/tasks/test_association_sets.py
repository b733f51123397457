"""Sets of association tests: text, JSON, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clearstory.errors import BadInput
from clearstory.tasks.data.association_sets import read_association_sets
from clearstory.tasks.data.similarity import read_analogies

SETS = {
    ("target", "flowers"): ["aster", "tulip"],
    ("target", "insects"): ["ant", "flea"],
    ("attribute", "pleasant"): ["joy", "love"],
    ("attribute", "unpleasant"): ["filth", "grief", "an ugly thing"],
}

TEXT = "".join(f": {role} {name}\n{', '.join(words)}\n" for (role, name), words in SETS.items())


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_text_and_both_layouts_of_json_are_one(tmp_path: Path) -> None:
    named: dict[str, dict[str, list[str]]] = {"targets": {}, "attributes": {}}
    numbered = {}
    for key, ((role, name), words) in zip(("targ1", "targ2", "attr1", "attr2"), SETS.items(), strict=True):
        named[f"{role}s"][name] = words
        numbered[key] = {"category": name, "examples": words}
    files = [
        write(tmp_path, "a.txt", TEXT),
        write(tmp_path, "lines.txt", TEXT.replace(", ", "\n").replace(": target", ": Targets")),
        write(tmp_path, "a.json", json.dumps(named)),
        write(tmp_path, "b.json", json.dumps(numbered)),
    ]
    first, *others = map(read_association_sets, files)
    assert all(each == first for each in others)
    assert [(each.name, list(each.words)) for each in first.all] == [(name, words) for (_, name), words in SETS.items()]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TEXT.replace("aster, ", ""), "the target sets have different sizes, 'flowers' 1 and 'insects' 2; give both"),
        (TEXT.replace("ant, flea\n", ""), "the target set 'insects' is empty; give it words"),
        (TEXT.replace("joy, love", "joy, joy"), "'joy' appears twice in the attribute set 'pleasant'; give it once"),
        (TEXT.split(": attribute unpleasant")[0], "has 1 set of attributes; give two sets of targets and two of"),
        ("car automobile 3.92\n", "line 1 is in no set; give two sets of targets"),
        (": people\na, b\n", r"line 1 is ': people', which does not start a set"),
        ("", "has 0 sets of targets"),
    ],
)
def test_other_files_are_refused_in_a_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        read_association_sets(write(tmp_path, "a.txt", text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("[1]", "has 0 sets of targets"),
        ('{"targets": {"a": "word"}}', "the set 'a' is not a list of words"),
        ('{"targ1": {"category": "a"}}', "the set 'a' is not a list of words"),
    ],
)
def test_other_json_is_refused_in_a_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        read_association_sets(write(tmp_path, "a.json", text))


@pytest.mark.parametrize("text", [": a\n: b\nw x y z\n", ": b\nw x y z\n: a\n"])
def test_a_section_without_analogies_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match=r"line [13]: the section 'a' has no analogies; add some, or remove it"):
        read_analogies(write(tmp_path, "a.txt", text))
