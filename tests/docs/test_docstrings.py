"""Every example in a docstring runs and prints the shown output."""

from __future__ import annotations

import ast
import doctest
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
WITH_DOCSTRINGS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(file: Path) -> Iterator[tuple[str, str, int]]:
    """Name, text and line of each docstring with an example. Read from the source: checked functions hide theirs."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, WITH_DOCSTRINGS) and ">>>" in (text := ast.get_docstring(node, clean=False) or ""):
            yield getattr(node, "name", "module"), text, node.body[0].lineno - 1


FILES = [file for file in sorted(SOURCE.rglob("*.py")) if any(docstrings(file))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE / "clearstory")))
def test_the_examples_of_a_module_run(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    module = import_module(".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"))
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    output: list[str] = []
    for name, text, line in docstrings(file):
        example = doctest.DocTestParser().get_doctest(text, dict(vars(module)), name, str(file), line)
        runner.run(example, out=output.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(output)
