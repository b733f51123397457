"""transformers gives the same ids, chat template and logits for every golden folder of its classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearstory.formats.folders import open_model
from clearstory.recipes.conversion.check_transformers import SAMPLE_TEXTS, check_portability

pytest.importorskip("transformers", reason="the oracle, transformers, is not installed")

HERE = Path(__file__).parents[1] / "golden"
CLASSES = sorted(each.name for each in HERE.iterdir() if each.is_dir() and each.name[0].isupper())


@pytest.mark.parametrize("name", CLASSES)
def test_a_golden_folder_is_portable(name: str) -> None:
    found = check_portability(HERE / name, open_model(HERE / name))
    assert found.portable, found.reason
    assert found.max_relative_difference is not None
    assert found.max_relative_difference < 1e-5
    assert found.texts == len(SAMPLE_TEXTS)
