"""The names of the package: one class name for one thing, and the field's words in place of everyday ones."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearstory.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent / "src" / "clearstory"

BANNED = frozenset(
    [
        "aside",
        "asked",
        "bend",
        "bends",
        "birth",
        "climb",
        "dialect",
        "doom",
        "exam",
        "foot",
        "foresee",
        "foreseen",
        "glued",
        "house",
        "ink",
        "ladder",
        "look",
        "looked",
        "looking",
        "looks",
        "pen",
        "place",
        "places",
        "riddle",
        "road",
        "room",
        "rooms",
        "rounds_of",
        "rung",
        "said",
        "settle",
        "shelf",
        "site_of",
        "spelt",
        "standing",
        "standings",
        "strangers",
        "sweep",
        "thin",
        "told",
        "tower",
        "twin",
        "walk",
        "watchman",
        "wording",
    ]
)
"""Words that say nothing to a reader who knows PyTorch and transformers; docs/glossary.md has the terms to use."""

VERBS = frozenset(
    [
        "check",
        "compare",
        "compute",
        "convert",
        "estimate",
        "fine-tune",
        "generate",
        "measure",
        "predict",
        "print",
        "read",
        "rank",
        "report",
        "serve",
        "show",
        "summarize",
        "train",
        "translate",
    ]
)
"""Verbs that a command's help may begin with."""


def definitions() -> Iterator[tuple[Path, int, str, str]]:
    """(file, line, kind, name) of every class, function, parameter, variable and attribute that the package defines."""
    for file in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                yield file, node.lineno, "class", node.name
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield file, node.lineno, "function", node.name
            elif isinstance(node, ast.arg):
                yield file, node.lineno, "parameter", node.arg
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield file, node.lineno, "variable", node.id
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                yield file, node.lineno, "attribute", node.attr


DEFINITIONS = list(definitions())


def test_no_class_name_is_defined_twice() -> None:
    classes: dict[str, list[str]] = defaultdict(list)
    for file, line, kind, name in DEFINITIONS:
        if kind == "class":
            classes[name].append(f"{file.relative_to(ROOT)}:{line}")
    assert {name: files for name, files in classes.items() if len(files) > 1} == {}


def test_no_identifier_is_a_banned_word() -> None:
    assert [
        f"{file.relative_to(ROOT)}:{line}: {kind} {name}"
        for file, line, kind, name in DEFINITIONS
        if name.strip("_").lower() in BANNED
    ] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_begins_with_a_verb(command: str) -> None:
    assert COMMANDS[command].split()[0] in VERBS
