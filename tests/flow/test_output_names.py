"""Names of outputs that a command does not write."""

from __future__ import annotations

from pathlib import Path

import pytest

import clearstory
from clearstory.errors import BadSetting
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.recipes.settings.schema import build_settings
from clearstory.recipes.settings.translation import TranslationSettings


@pytest.mark.parametrize("name", ["out.svg", "out.HTML", "out.png", "out.csv", "out.json"])
def test_files_that_hold_no_lines_are_refused(name: str) -> None:
    with pytest.raises(
        BadSetting, match=rf"out is {name}; texts are written as \.jsonl, \.tsv, or lines of text, such as"
    ):
        build_settings(TranslationSettings, {"out": name})


@pytest.mark.parametrize("name", ["out.txt", "out.de", "out", "out.tsv", "out.jsonl"])
def test_texts_are_written_under_other_names(name: str) -> None:
    assert build_settings(TranslationSettings, {"out": name}).out == Path(name)


def test_an_output_folder_is_not_named_like_a_file(tmp_path: Path) -> None:
    message = r"out is .*p\.svg, but the output is a folder; name it without \.svg"
    values = {"model": "m", "data": ["d"], "out": tmp_path / "p.svg"}
    with pytest.raises(BadSetting, match=message):
        build_settings(FinetuneRecipe, values)
    with pytest.raises(BadSetting, match=message):
        clearstory.prompt("m", "{text} {label}", "d.csv", out=tmp_path / "p.svg")
    with pytest.raises(BadSetting, match=message):
        clearstory.evaluate("m", task="lm-eval:x", out=tmp_path / "p.svg")
    (tmp_path / "p.svg").mkdir()  # a run that exists can be resumed
    assert build_settings(FinetuneRecipe, values).out == tmp_path / "p.svg"
