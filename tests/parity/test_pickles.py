"""Pickled weights are rejected with a message whose suggested conversion works as written."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clearstory.errors import BadInput
from clearstory.formats.folders import open_model

transformers = pytest.importorskip("transformers", reason="the oracle, transformers, is not installed")

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "BertForTokenClassification", "T5ForConditionalGeneration"])
def test_the_suggested_conversion_of_a_pickle_works(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(GOLDEN / name, "old")
    torch.save(load_file("old/model.safetensors"), "old/pytorch_model.bin")
    Path("old/model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"old holds pytorch_model\.bin, a pickle, which can run code") as refused:
        open_model("old")
    way = re.search(r"convert it once: (.*), and copy", str(refused.value))
    assert way is not None
    exec(way[1], {"transformers": transformers})
    theirs, ours = open_model("NEW").model.state_dict(), open_model(GOLDEN / name).model.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[key], ours[key]) for key in ours)
