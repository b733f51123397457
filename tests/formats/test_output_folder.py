"""What --overwrite may replace: model folders, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

import clearstory
from clearstory.errors import BadSetting, FolderExists
from clearstory.formats.folders import save_model
from clearstory.formats.model_card import ModelCard
from clearstory.text.train_tokenizer import train_tokenizer
from tiny import TINY_GPT2, shaken


def test_overwrite_replaces_model_folders_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = train_tokenizer("characters", ["abcdefghijklmnopqrst "])
    model = save_model(tmp_path / "model", shaken(TINY_GPT2).float(), tokenizer, ModelCard())
    work = tmp_path / "work"
    work.mkdir()
    (work / "thesis.tex").write_text("x", encoding="utf-8")
    monkeypatch.chdir(work)
    for out in (".", work, f"{work}/"):
        with pytest.raises(FolderExists, match=r"holds thesis\.tex, so it is not replaced"):
            clearstory.convert(model, out, overwrite=True)
    with pytest.raises(BadSetting, match="OUT is ''"):
        clearstory.convert(model, "", overwrite=True)
    assert (work / "thesis.tex").read_text(encoding="utf-8") == "x"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "vocab.txt").write_text("x", encoding="utf-8")
    with pytest.raises(FolderExists, match="holds no model"):
        clearstory.convert(model, tmp_path / "other", overwrite=True)
    copy = clearstory.convert(model, tmp_path / "copy").path
    assert clearstory.convert(model, copy, overwrite=True).path == copy
    (copy / "1_Notes").mkdir()
    with pytest.raises(FolderExists, match="holds 1_Notes"):
        clearstory.convert(model, copy, overwrite=True)
